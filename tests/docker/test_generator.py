"""`generar_contenedores.sh` on a real engine: how many, when not, never two, nothing left behind.

Where a test has to meet the script in the middle of a docker command, a few lines in front of the
real `docker` hold that command up or spoil it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.containers import ALPINE, STRESS, wait_until
from tests.docker.private_engine import PrivateEngine, private_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).resolve().parents[2] / "bash" / "generar_contenedores.sh"
OURS = "0123456789abcdef" * 2
STAMP = r"[A-Z][a-z]{2} \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [A-Z0-9+-]+: "
KINDS = {
    (ALPINE, ("sleep", "infinity")),
    (STRESS, ("stress", "--vm", "1", "--vm-bytes", "128M")),
    (STRESS, ("stress", "--cpu", "1")),
}


HOLD_RUN = """
if [[ $1 == run ]]; then
    touch "$place/reached"
    while [[ ! -e $place/go ]]; do sleep 0.01; done
fi"""


@pytest.fixture(scope="module")
def module_engine() -> Iterator[PrivateEngine]:
    with private_engine() as engine:
        yield engine


@pytest.fixture
def engine(module_engine: PrivateEngine) -> Iterator[PrivateEngine]:
    yield module_engine
    module_engine.resume_daemon()
    module_engine.clear()


@dataclass
class Generator:
    """The script with directories of its own and `shim` in front of docker."""

    engine: PrivateEngine
    place: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def run_dir(self) -> Path:
        return self.place / "run"

    @property
    def log_file(self) -> Path:
        return self.place / "log" / "execution.log"

    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.place / 'shim'}:{os.environ['PATH']}",
            "TMPDIR": str(self.place / "tmp"),
            "DOCKER_HOST": self.engine.host,
            "SO1_IMAGE_LOW": ALPINE,
            "SO1_IMAGE_HIGH": STRESS,
            "SO1_RUN_DIR": str(self.run_dir),
            "SO1_LOG_DIR": str(self.place / "log"),
            "SO1_INSTALLATION_FILE": str(self.place / "installation"),
            **self.settings,
        }

    def start(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            # Tests may run under nohup, and a shell cannot trap what it was started to ignore.
            ["env", "--default-signal=HUP,INT,TERM", "bash", str(SCRIPT), *options],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *options: str, status: int = 0) -> str:
        """Runs it to its end; what it said on stderr."""
        process = self.start(*options)
        out, said = process.communicate(timeout=300)
        assert (process.returncode, out) == (status, ""), said
        return said

    def log(self) -> list[str]:
        """The log's lines without their time; none where there is no log."""
        if not self.log_file.exists():
            return []
        lines = self.log_file.read_text(encoding="utf-8").splitlines()
        assert all(re.match(STAMP, line) for line in lines), lines
        return [re.sub("^" + STAMP, "", line) for line in lines]

    def shim(self, script: str) -> None:
        """`script` runs before each docker command; `$real "$@"` is that command."""
        path = self.place / "shim" / "docker"
        real = shutil.which("docker")
        path.write_text(
            f'#!/bin/bash\nreal={real}\nplace={self.place}\n{script}\nexec $real "$@"\n'
        )
        path.chmod(0o755)

    def hold_agent_lock(self) -> int:
        self.run_dir.mkdir(exist_ok=True)
        return hold(self.run_dir / "agent.lock")


def hold(path: Path) -> int:
    """A descriptor with an exclusive lock on `path`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture
def generator(engine: PrivateEngine, tmp_path: Path) -> Generator:
    if os.geteuid() != 0:
        pytest.skip("root is needed to generate containers")
    for name in ("shim", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "installation").write_text(OURS + "\n")
    (tmp_path / "installation").chmod(0o600)
    return Generator(engine, tmp_path)


@pytest.fixture
def agent(generator: Generator) -> Iterator[int]:
    """An agent that runs, as far as its lock tells."""
    descriptor = generator.hold_agent_lock()
    yield descriptor
    os.close(descriptor)


def test_it_fills_up_to_ten_of_the_three_kinds_with_our_label(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.run()
    names = engine.names()
    assert len(names) == 10
    for name in names:
        assert re.fullmatch(r"so1_contenedor_\d+", name)
        about = engine.inspect(name)
        assert about["Config"]["Labels"] == {"so1.installation": OURS}
        assert (about["Config"]["Image"], tuple(about["Config"]["Cmd"])) in KINDS
    assert generator.log() == [
        "Contenedores actuales: 0",
        "Creando 10 contenedores nuevos...",
        "✅ Creación completa. Total actual: 10 contenedores.",
    ]
    assert list((generator.place / "tmp").iterdir()) == []


def test_at_ten_it_starts_none_and_says_so(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    for number in range(10):
        engine.run("--name", f"so1_contenedor_{number}")
    since = engine.now()
    generator.run()
    assert engine.events(since, "create", "start") == []
    assert generator.log() == [
        "Contenedores actuales: 10",
        "LÍMITE ALCANZADO (10 contenedores). NO se crean nuevos.",
    ]


def test_only_running_ones_of_that_name_count(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    for number in range(7):
        engine.run("--name", f"so1_contenedor_{number}")
    engine.run("--name", "so1_contenedor_exited", command=("true",))
    engine.run("--name", "other_so1_contenedor_7")
    engine.docker("pause", "so1_contenedor_0")
    wait_until(lambda: "so1_contenedor_exited" not in engine.names(), "it exited")
    generator.run()
    assert len([name for name in engine.names() if name.startswith("so1_contenedor_")]) == 10
    assert generator.log()[:2] == ["Contenedores actuales: 7", "Creando 3 contenedores nuevos..."]


def test_the_number_is_a_setting(generator: Generator, engine: PrivateEngine, agent: int) -> None:
    generator.settings["SO1_MAX_CONTAINERS"] = "2"
    generator.run()
    assert len(engine.names()) == 2


def test_without_an_agent_it_does_nothing_and_leaves_no_trace(
    generator: Generator, engine: PrivateEngine
) -> None:
    assert "no agent runs" in generator.run()
    assert not generator.run_dir.exists()
    os.close(generator.hold_agent_lock())  # one that ran and ended
    assert "no agent runs" in generator.run()
    assert engine.names("-a") == set()
    assert generator.log() == []


def test_people_can_force_it(generator: Generator, engine: PrivateEngine) -> None:
    generator.settings["SO1_MAX_CONTAINERS"] = "1"
    generator.run("--force")
    assert len(engine.names()) == 1


def test_two_at_once_make_no_more_than_one_would(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    several = [generator.start() for _ in range(4)]
    said = [process.communicate(timeout=300)[1] for process in several]
    assert [process.returncode for process in several] == [0] * 4
    assert len(engine.names()) == 10
    assert sum("another one is at work" in words for words in said) >= 1
    assert generator.log().count("Creando 10 contenedores nuevos...") == 1


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_a_stopping_agent_keeps_it_out_even_by_force(
    generator: Generator, engine: PrivateEngine, agent: int, options: tuple[str, ...]
) -> None:
    stop = hold(generator.run_dir / "generator.lock")
    assert "another one is at work" in generator.run(*options)
    os.close(stop)
    assert engine.names("-a") == set()


def test_the_agents_lock_is_asked_again_under_the_generators_own(
    generator: Generator, engine: PrivateEngine
) -> None:
    """The agent ends between the first question and the lock, which `flock` here stands for."""
    agent = generator.hold_agent_lock()
    shim = generator.place / "shim" / "flock"
    shim.write_text(
        "#!/bin/bash\n"
        f'{shutil.which("flock")} "$@"; status=$?\n'
        f"[[ $* == *--shared* ]] || {{ touch {generator.place}/locked; "
        f"while [[ ! -e {generator.place}/ended ]]; do sleep 0.01; done; }}\n"
        "exit $status\n"
    )
    shim.chmod(0o755)
    process = generator.start()
    wait_until((generator.place / "locked").exists, "it has its lock")
    os.close(agent)
    (generator.place / "ended").touch()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert engine.names("-a") == set()
    assert generator.log() == []


def test_it_stops_when_the_agent_is_gone_in_the_middle(
    generator: Generator, engine: PrivateEngine
) -> None:
    agent = generator.hold_agent_lock()
    generator.shim(HOLD_RUN)
    process = generator.start()
    wait_until((generator.place / "reached").exists, "it starts a container")
    os.close(agent)
    (generator.place / "go").touch()
    process.communicate(timeout=60)
    assert len(engine.names("-a")) == 1
    assert generator.log()[-1] == "⚠️ Creación interrumpida. Total actual: 1 contenedores."


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_it_finish_the_one_it_makes_and_no_other(
    generator: Generator, engine: PrivateEngine, agent: int, number: signal.Signals
) -> None:
    generator.shim(HOLD_RUN)
    process = generator.start()
    wait_until((generator.place / "reached").exists, "it starts a container")
    process.send_signal(number)
    (generator.place / "go").touch()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(engine.names("-a")) == 1
    assert list((generator.place / "tmp").iterdir()) == []
    assert not is_locked(generator.run_dir / "generator.lock")


def test_killed_in_the_middle_its_lock_lasts_until_its_last_container_is_made(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.shim(HOLD_RUN)
    process = generator.start()
    wait_until((generator.place / "reached").exists, "it starts a container")
    process.kill()
    process.wait()
    # What a stop waits for: with the lock free, no container can be born any more.
    assert is_locked(generator.run_dir / "generator.lock")
    (generator.place / "go").touch()
    wait_until(lambda: not is_locked(generator.run_dir / "generator.lock"), "the lock is free")
    assert len(engine.names("-a")) == 1
    (name,) = engine.names()
    assert engine.inspect(name)["Config"]["Labels"] == {"so1.installation": OURS}
    process.communicate()
    generator.run()
    assert len(engine.names()) == 10


def test_no_docker_command_inherits_the_agents_lock_and_no_pull_any_lock(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.settings.update(SO1_IMAGE_LOW="so1-absent-alpine:none", SO1_MAX_CONTAINERS="1")
    generator.shim('for fd in /proc/$$/fd/*; do echo "$1 $(readlink "$fd")"; done >>"$place/fds"')
    generator.run()
    held = [line for line in (generator.place / "fds").read_text().splitlines() if ".lock" in line]
    assert not [line for line in held if "agent.lock" in line]
    assert not [line for line in held if line.startswith("pull")]
    assert [line for line in held if line.startswith("run")]


def test_a_hung_docker_ends_it_within_its_limit(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.settings["SO1_DOCKER_TIMEOUT"] = "1"
    engine.pause_daemon()
    said = generator.run(status=1)
    engine.resume_daemon()
    assert f"Docker does not answer at {engine.host}" in said
    assert generator.log() == [f"Docker no responde en {engine.host}."]
    assert not is_locked(generator.run_dir / "generator.lock")


def test_docker_hanging_in_the_middle_ends_it_too(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.settings["SO1_DOCKER_TIMEOUT"] = "1"
    generator.shim("[[ $1 != run ]] || exec sleep 60061")
    said = generator.run(status=1)
    assert "10 of 10 containers could not be started: Docker did not answer within 1 s" in said
    assert subprocess.run(["pgrep", "-f", "^sleep 60061$"], capture_output=True).stdout == b""


def test_failures_are_counted_logged_and_not_repeated_for_ever(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.shim('[[ $1 != run ]] || { echo >>"$place/runs"; echo "docker: no such thing" >&2; '
                   "exit 125; }")  # fmt: skip
    assert "10 of 10 containers could not be started: docker: no such thing" in generator.run(
        status=1
    )
    assert len((generator.place / "runs").read_text().splitlines()) == 3
    assert generator.log()[-1] == (
        "⚠️ Creación incompleta: fallaron 10 de 10 (docker: no such thing)."
        " Total actual: 0 contenedores."
    )


def test_one_that_was_made_but_cannot_start_is_taken_away_again(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.settings.update(SO1_IMAGE_LOW=STRESS, SO1_IMAGE_HIGH=ALPINE)  # no `stress` in it
    process = generator.start()
    process.communicate(timeout=300)
    assert engine.docker("ps", "-aq", "--filter", "status=created") == ""
    assert engine.names("-a") == engine.names()


def test_a_name_that_is_taken_is_tried_again_and_its_bearer_left_alone(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    taken = engine.run("--name", "so1_contenedor_1")
    generator.settings["SO1_MAX_CONTAINERS"] = "2"
    generator.shim(
        'if [[ $1 == run && ! -e $place/once ]]; then touch "$place/once"\n'
        'set -- "${@/so1_contenedor_*/so1_contenedor_1}"; fi'
    )
    generator.run()
    assert (generator.place / "once").exists()
    assert engine.inspect(taken)["State"]["Running"]
    assert len(engine.names()) == 2


def test_an_image_that_cannot_be_had_is_replaced_by_one_made_here_and_said(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    engine.docker("image", "rm", ALPINE, STRESS)
    absent = "absent/stress"
    generator.settings.update(SO1_IMAGE_LOW="alpine:none", SO1_IMAGE_HIGH=absent)
    generator.settings["SO1_MAX_CONTAINERS"] = "3"
    generator.shim('[[ $1 != pull ]] || { echo >>"$place/pulls"; exit 1; }')
    generator.run()
    assert len(engine.names()) == 3
    assert generator.log()[2:4] == [
        f"Imagen alpine:none no disponible: se construyó {ALPINE} con busybox del sistema.",
        f"Imagen {absent} no disponible: se construyó {STRESS} con busybox y stress del sistema.",
    ]
    assert {engine.inspect(name)["Config"]["Image"] for name in engine.names()} <= {ALPINE, STRESS}
    # It is not `alpine:latest`, and what it promises works.
    assert set(engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()) == {
        ALPINE,
        STRESS,
    }
    engine.docker("run", "--rm", ALPINE, "sh", "-c", "ls / | grep tmp && sleep 0")
    engine.docker("run", "--rm", STRESS, "stress", "--cpu", "1", "--timeout", "1")
    # An hour without another try, unless it is asked for.
    engine.clear()
    generator.run()
    assert generator.log()[7] == f"Imagen alpine:none no disponible: se usa {ALPINE}."
    assert len((generator.place / "pulls").read_text().splitlines()) == 2
    engine.clear()
    generator.run("--force")
    assert len((generator.place / "pulls").read_text().splitlines()) == 4


def test_an_image_that_is_there_is_never_pulled(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.settings["SO1_MAX_CONTAINERS"] = "1"
    generator.shim('echo "$1" >>"$place/words"')
    generator.run()
    assert "pull" not in (generator.place / "words").read_text().split()


@pytest.mark.parametrize("spoil", ["absent", "nonsense", "link", "others", "long"])
def test_without_a_trustworthy_installation_id_it_starts_nothing(
    generator: Generator, engine: PrivateEngine, agent: int, spoil: str
) -> None:
    file = generator.place / "installation"
    if spoil == "absent":
        file.unlink()
    elif spoil == "nonsense":
        file.write_text("--privileged\n")
    elif spoil == "link":
        file.rename(generator.place / "elsewhere")
        file.symlink_to(generator.place / "elsewhere")
    elif spoil == "others":
        file.chmod(0o666)
    else:
        file.write_text(OURS + "0" * 32 + "\n")
    assert "holds no installation's id" in generator.run(status=1)
    assert engine.names("-a") == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SO1_IMAGE_LOW", "--privileged"),
        ("SO1_IMAGE_HIGH", "a b"),
        ("SO1_IMAGE_HIGH", "$(id)"),
        ("SO1_MAX_CONTAINERS", "0"),
        ("SO1_MAX_CONTAINERS", "a[$(id)]"),
        ("SO1_DOCKER_TIMEOUT", "-1"),
        ("SO1_RUN_DIR", "run"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(
    generator: Generator, engine: PrivateEngine, agent: int, name: str, value: str
) -> None:
    generator.settings[name] = value
    assert generator.run(status=2).count("\n") == 1
    assert engine.names("-a") == set()


def test_an_unknown_option_is_refused_and_help_is_given(generator: Generator) -> None:
    assert "--bogus is no option" in generator.run("--bogus", status=2)
    process = generator.start("-h")
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.startswith("Usage: generar_contenedores.sh")


def test_who_is_not_root_is_told(generator: Generator, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-s"],
        input=SCRIPT.read_bytes(),
        env=generator.environment(),
        capture_output=True,
        user=65534,
        group=65534,
        cwd="/",
    )
    assert done.returncode == 3
    assert b"run it with sudo" in done.stderr


class TestLog:
    def test_it_is_rotated_and_three_old_ones_are_kept(
        self, generator: Generator, engine: PrivateEngine, agent: int
    ) -> None:
        generator.settings["SO1_MAX_CONTAINERS"] = "1"
        engine.run("--name", "so1_contenedor_1")
        generator.log_file.parent.mkdir()
        for letter in "abcde":
            generator.log_file.write_text(letter * 2**20)
            generator.run()
        names = sorted(path.name for path in generator.log_file.parent.iterdir())
        assert names == ["execution.log", *(f"execution.log.{n}" for n in (1, 2, 3))]
        first = [(generator.log_file.parent / name).read_text()[0] for name in names[1:]]
        assert first == ["e", "d", "c"]
        assert len(generator.log()) == 2

    def test_a_link_in_its_place_is_refused(
        self, generator: Generator, engine: PrivateEngine, agent: int
    ) -> None:
        generator.log_file.parent.mkdir()
        target = generator.place / "precious"
        target.write_text("keep")
        generator.log_file.symlink_to(target)
        assert "is a symbolic link" in generator.run(status=1)
        assert target.read_text() == "keep"
        assert engine.names("-a") == set()

    def test_a_directory_that_others_can_write_is_refused(
        self, generator: Generator, engine: PrivateEngine, agent: int
    ) -> None:
        generator.log_file.parent.mkdir()
        generator.log_file.parent.chmod(0o777)
        assert "is not a directory that only root can write" in generator.run(status=1)
        assert engine.names("-a") == set()

    def test_a_full_disk_stops_nothing(
        self, generator: Generator, engine: PrivateEngine, agent: int
    ) -> None:
        generator.settings["SO1_MAX_CONTAINERS"] = "1"
        generator.log_file.parent.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4k,mode=755", "none", generator.log_file.parent]
        )
        if mounted.returncode != 0:
            pytest.skip("a small file system cannot be mounted here")
        try:
            (generator.log_file.parent / "fill").write_bytes(b"x" * 4096)
            assert "cannot write to" in generator.run()
        finally:
            subprocess.run(["umount", generator.log_file.parent], check=True)
        assert len(engine.names()) == 1


def test_from_none_to_ten_takes_seconds(
    generator: Generator, engine: PrivateEngine, agent: int, record_property: object
) -> None:
    began = time.monotonic()
    generator.run()
    record_property("seconds", round(time.monotonic() - began, 2))  # type: ignore[operator]
    assert len(engine.names()) == 10


def with_entrypoint(engine: PrivateEngine, name: str, of: str) -> str:
    """An image as many are: its ENTRYPOINT takes a command for its arguments."""
    base = engine.docker("create", "--network=none", of, "true")
    engine.docker("commit", "--change", 'ENTRYPOINT ["echo"]', base, name)
    engine.docker("rm", base)
    return name


def test_an_images_entrypoint_does_not_take_the_command_for_its_arguments(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.settings.update(
        SO1_IMAGE_LOW=with_entrypoint(engine, "entry-alpine:local", ALPINE),
        SO1_IMAGE_HIGH=with_entrypoint(engine, "entry-stress:local", STRESS),
        SO1_MAX_CONTAINERS="4",
    )
    generator.run()
    assert generator.log()[-1] == "✅ Creación completa. Total actual: 4 contenedores."
    for name in engine.names():
        command = tuple(engine.inspect(name)["Config"]["Cmd"])
        assert command in {words for _, words in KINDS}
        shown = engine.docker("top", name, "-eo", "pid,args").splitlines()[1].split()[1:]
        assert tuple(shown) == command


def test_what_does_not_stay_up_is_reported_and_fails(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.settings["SO1_MAX_CONTAINERS"] = "3"
    # Each of them is a `false`, whatever it was to be.
    generator.shim(
        'if [[ $1 == run ]]; then words=("$@")\n'
        'while [[ ${words[-1]} != *:local ]]; do unset "words[-1]"; done\n'
        'set -- "${words[@]}" false; fi'
    )
    said = generator.run(status=1)
    assert "3 of 3 containers did not stay up" in said
    assert "ended at once with status 1." in said
    last = generator.log()[-1]
    assert last.startswith("⚠️ Creación incompleta: terminaron 3 de 3 (")
    assert last.endswith("Total actual: 0 contenedores.")


def test_what_an_agent_took_away_meanwhile_is_no_failure(
    generator: Generator, engine: PrivateEngine, agent: int
) -> None:
    generator.settings["SO1_MAX_CONTAINERS"] = "2"
    generator.shim(
        'if [[ $1 == inspect && ! -e $place/once ]]; then touch "$place/once"\n'
        "$real kill $($real ps -q --latest) >/dev/null\n"
        "$real rm -f $($real ps -aq | tail -1) >/dev/null; fi"
    )
    generator.run()
    assert generator.log()[-1].startswith("✅ Creación completa.")
