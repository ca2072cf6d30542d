"""Our one file in cron's directory: what is in it, whose it is, and when it is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.actions import cron
from agent.actions.cron import CronError
from agent.config import Config, CronSettings, decode_config

SCRIPT = Path("/opt/so1/src/bash/generar_contenedores.sh")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="cron files are root's: not root here")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "cron.d").mkdir()
    return decode_config(f'[cron]\ndirectory = "{tmp_path}/cron.d"\n', "test")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "generar_contenedores.sh"
    path.write_text("#!/bin/bash\n")
    path.chmod(0o755)
    return path


def directory(config: Config) -> Path:
    return Path(config.cron.directory)


def test_the_file_is_as_cron_wants_it(config: Config, script: Path) -> None:
    path = cron.install(config, script)
    about = path.stat()
    assert "." not in path.name
    assert (about.st_uid, stat.S_IMODE(about.st_mode), about.st_nlink) == (0, 0o644, 1)
    text = path.read_text()
    assert text.endswith("\n")
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n" in text
    (line,) = [line for line in text.splitlines() if line.startswith("*")]
    assert line == f"* * * * * root /bin/bash {script} >/dev/null 2>&1"
    assert [entry.name for entry in directory(config).iterdir()] == ["so1-agent"]


def test_the_generator_is_told_what_the_configuration_says(tmp_path: Path) -> None:
    config = decode_config(
        '[images]\nlow = "team/alpine:3"\n[policy]\nmax_containers = 7\n'
        '[paths]\ndatabase = "/srv/so1/m.db"\n',
        "test",
    )
    assert cron.generator_environment(config) == {
        "DOCKER_HOST": "unix:///var/run/docker.sock",
        "SO1_IMAGE_LOW": "team/alpine:3",
        "SO1_IMAGE_HIGH": "polinux/stress",
        "SO1_MAX_CONTAINERS": "7",
        "SO1_RUN_DIR": "/run/so1",
        "SO1_LOG_DIR": "/var/log/so1",
        "SO1_INSTALLATION_FILE": "/srv/so1/installation",
    }


def test_installing_twice_is_installing_once(config: Config, script: Path) -> None:
    first = cron.install(config, script).read_text()
    assert cron.install(config, script).read_text() == first
    assert cron.is_installed(config.cron)
    assert cron.remove(config.cron)
    assert not cron.remove(config.cron)
    assert not cron.is_installed(config.cron)
    assert list(directory(config).iterdir()) == []


def test_what_a_killed_run_left_aside_is_taken_up_and_away(config: Config, script: Path) -> None:
    aside = directory(config) / ".so1-agent.new"
    aside.write_text("half a")
    assert not cron.remove(config.cron)
    assert not aside.exists()
    aside.write_text("half a")
    cron.install(config, script)
    assert not aside.exists()


def test_anothers_file_of_our_name_stays(config: Config, script: Path) -> None:
    theirs = directory(config) / "so1-agent"
    theirs.write_text("* * * * * root true\n")
    with pytest.raises(CronError, match="is not ours"):
        cron.install(config, script)
    assert not cron.remove(config.cron)
    assert not cron.is_installed(config.cron)
    assert theirs.read_text() == "* * * * * root true\n"


def test_a_link_is_never_followed(config: Config, script: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text(cron.MARKER + "\nkeep\n")
    (directory(config) / "so1-agent").symlink_to(target)
    with pytest.raises(CronError, match="is not ours"):
        cron.install(config, script)
    assert not cron.remove(config.cron)
    assert (directory(config) / "so1-agent").is_symlink()
    assert target.read_text() == cron.MARKER + "\nkeep\n"


def test_a_users_file_with_our_first_line_is_not_ours(config: Config) -> None:
    path = directory(config) / "so1-agent"
    path.write_text(cron.MARKER + "\n")
    os.chown(path, 65534, 65534)
    assert not cron.is_installed(config.cron)
    assert not cron.remove(config.cron)
    assert path.exists()


def test_without_cron_it_is_said_how_to_get_it(config: Config, script: Path) -> None:
    directory(config).rmdir()
    with pytest.raises(CronError, match=r"does not exist.*apt-get install cron"):
        cron.install(config, script)
    assert not cron.remove(config.cron)


def test_a_script_that_others_can_change_is_refused(config: Config, script: Path) -> None:
    script.chmod(0o777)
    with pytest.raises(CronError, match="changed by others than root"):
        cron.install(config, script)
    script.chmod(0o755)
    os.chown(script.parent, 65534, 65534)
    with pytest.raises(CronError, match="changed by others than root"):
        cron.install(config, script)
    assert not cron.is_installed(config.cron)


def test_a_script_that_is_not_there_is_refused(config: Config, tmp_path: Path) -> None:
    with pytest.raises(CronError, match="cannot be read"):
        cron.install(config, tmp_path / "absent.sh")


@pytest.mark.parametrize(
    "path",
    [
        "/opt/a b/x.sh",
        "/opt/100%/x.sh",
        "/opt/$(id)/x",
        "/opt/a\nb",
        "/opt/'x'",
        "/a;b",
        "/a&b",
        "x",
    ],
)
def test_a_path_that_cron_or_the_shell_would_read_is_refused(path: str) -> None:
    with pytest.raises(CronError, match="characters that cron or the shell"):
        cron.cron_text(Path(path), {})


names_of_settings = st.from_regex(r"[A-Z][A-Z0-9_]{0,5}", fullmatch=True) | st.text(max_size=6)
values_of_settings = st.from_regex(r"[a-z0-9./:@-]{1,9}[\n%$]?", fullmatch=True) | st.text(
    max_size=9
)


@given(st.dictionaries(names_of_settings, values_of_settings, max_size=4))
def test_no_setting_ever_adds_a_line_or_a_word(environment: dict[str, str]) -> None:
    try:
        text = cron.cron_text(SCRIPT, environment)
    except CronError:
        return
    lines = text.split("\n")
    assert len(lines) == 5 + len(environment) + 1
    assert lines[-2].startswith("* * * * * root /bin/bash /opt/")
    assert set(lines[4:-2]) == {f"{name}={value}" for name, value in environment.items()}
    assert not any(char in line for line in lines[4:] for char in "%'`\\$")


def process(proc: Path, pid: int, comm: str, namespace: str) -> None:
    (proc / str(pid) / "ns").mkdir(parents=True)
    (proc / str(pid) / "comm").write_text(comm + "\n")
    (proc / str(pid) / "ns/pid").symlink_to(namespace)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    process(tmp_path / "proc", 1, "init", "pid:[1]")
    (tmp_path / "proc" / "self").symlink_to("1")
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/cron").touch()
    return tmp_path


def problem(host: Path, *, systemd: bool = False) -> str | None:
    found = cron.daemon_problem(host / "proc", host, host if systemd else host / "no")
    return str(found) if found else None


def test_a_running_cron_is_no_problem(host: Path) -> None:
    process(host / "proc", 7, "cron", "pid:[1]")
    assert problem(host) is None


def test_a_containers_cron_is_not_the_hosts(host: Path) -> None:
    process(host / "proc", 7, "cron", "pid:[2]")
    assert problem(host) is not None


def test_a_pid_file_of_a_cron_that_died_proves_nothing(host: Path) -> None:
    (host / "run").mkdir()
    (host / "run/crond.pid").write_text("7\n")
    process(host / "proc", 7, "bash", "pid:[1]")
    assert problem(host) is not None


def test_the_command_that_starts_cron_fits_the_host(host: Path) -> None:
    assert "`sudo service cron start`" in (problem(host) or "")
    assert "`sudo systemctl enable --now cron`" in (problem(host, systemd=True) or "")
    (host / "usr/sbin/cron").unlink()
    assert "`sudo apt-get install cron`" in (problem(host) or "")


def test_settings_alone_name_the_directory(tmp_path: Path) -> None:
    assert not cron.is_installed(CronSettings(directory=str(tmp_path)))


def test_a_directory_that_takes_no_file_is_a_sentence_and_leaves_none(
    config: Config, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(CronError, match="so1-agent cannot be written: Read-only file system"):
        cron.install(config, script)
    assert not cron.is_installed(config.cron)


def test_a_file_of_ours_that_cannot_be_removed_is_named_with_the_command(
    config: Config, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cron.install(config, script)

    def refuse(one: Path, *, missing_ok: bool = False) -> None:
        if one == path:
            raise OSError(1, "Operation not permitted", str(one))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(CronError, match="cannot be removed: Operation not permitted") as raised:
        cron.remove(config.cron)
    assert raised.value.hint == f"Remove it: `sudo rm {path}`."
