"""The load generator when Docker, images, settings or its log are not as they should be."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.containers import ALPINE, STRESS
from tests.docker.generator import KINDS, OURS, SCRIPT, Generator, agent, generator, is_locked
from tests.docker.private_engine import PrivateEngine

__all__ = ["agent", "generator"]


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
