"""What the doctor finds on a host: each fact by itself, with what it could not look at as unknown.

The judgement of the facts is tested in `test_doctor.py`, the whole on real hosts in `tests/vm`.
"""

from __future__ import annotations

import gzip
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config, decode_config
from agent.doctor import probe, probe_kernel, probe_python
from agent.util.subprocess import CommandError, Finished
from tests.unit.sources.engine.fake_engine import FakeEngine, reply
from tests.unit.store.builders import START_NS, a_tick, open_store

OURS = "0123456789abcdef" * 2
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: who is not is told less")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return decode_config(
        f'docker_host = "unix://{tmp_path}/docker.sock"\n[images]\nlow = "team/a:1"\n'
        f'[paths]\ndatabase = "{tmp_path}/db/metrics.db"\nrun = "{tmp_path}/run"\n'
        f'[cron]\ndirectory = "{tmp_path}/cron.d"\n'
        f'[modules]\nsysinfo_path = "{tmp_path}/sysinfo"\ncontinfo_path = "{tmp_path}/continfo"\n',
        "test",
    )


@pytest.fixture(autouse=True)
def no_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_compose", lambda: "docker compose")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    fake = FakeEngine(tmp_path)
    fake.answers["/info"] = {"CgroupDriver": "systemd"}
    fake.answers["/events"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    fake.answers["/images/team/a:1/json"] = {"Id": "sha256:1"}
    fake.answers["/containers/json"] = []
    yield fake
    fake.stop()


def test_the_engine_tells_its_version_driver_and_images(config: Config, engine: FakeEngine) -> None:
    facts, containers, grafana = probe._docker(config)
    assert (facts.version, facts.api, facts.driver) == ("20.10.24", "1.41", "systemd")
    assert facts.images == {"team/a:1": True, "polinux/stress": False}
    assert (facts.problem, facts.compose, facts.grafana_image) == ("", "docker compose", False)
    assert facts.events_refused == ""
    assert (containers, grafana) == (0, False)


@needs_root
def test_this_installation_s_containers_are_counted_by_its_label(
    config: Config, engine: FakeEngine, tmp_path: Path
) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db/installation").write_text(OURS + "\n")
    (tmp_path / "db/installation").chmod(0o600)
    engine.answers["/containers/json"] = [{"Id": "a" * 64}, {"Id": "b" * 64}]
    _, containers, grafana = probe._docker(config)
    assert (containers, grafana) == (2, True)
    asked = [one for one in engine.requests if "/containers/json" in one]
    assert OURS in asked[0]
    assert "com.docker.compose.project" in asked[1]
    (tmp_path / "db/installation").write_text("no id")
    assert probe._docker(config)[1] is None


def test_an_engine_that_refuses_its_events_says_so_and_nothing_else_is_lost(
    config: Config, engine: FakeEngine
) -> None:
    engine.answers["/events"] = reply({"message": "not through me"}, "403 Forbidden")
    facts, _, _ = probe._docker(config)
    assert "gives no events: status 403" in facts.events_refused
    assert facts.version == "20.10.24"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (reply({"message": "not you"}, "403 Forbidden"), "refuses to be asked"),
        (reply({"message": "boom"}, "500 No"), "boom"),
        (reply([]), ""),
    ],
    ids=["refused", "failed", "a list"],
)
def test_an_engine_that_does_not_tell_of_itself_is_a_problem_or_of_unknown_driver(
    config: Config, engine: FakeEngine, answer: bytes, problem: str
) -> None:
    engine.answers["/info"] = answer
    facts, containers, _ = probe._docker(config)
    assert problem in facts.problem
    assert (facts.problem == "") is (problem == "")
    assert (containers is None) is (problem != "")


def test_without_an_engine_there_is_a_remedy_and_nothing_is_known_of_containers(
    config: Config,
) -> None:
    facts, containers, grafana = probe._docker(config)
    assert "docker.sock" in facts.problem
    assert "systemctl start docker" in facts.hint
    assert (facts.images, containers, grafana) == (None, None, None)


def test_a_database_that_is_not_there_yet_is_judged_by_the_nearest_directory(
    config: Config, tmp_path: Path
) -> None:
    found = probe._store(tmp_path / "a/b/metrics.db", root=True)
    assert (found.kind, found.path_problem, found.size_mb) == ("absent", "", 0)
    assert found.writable is True
    about = os.statvfs(tmp_path)
    assert found.free_mb == pytest.approx(about.f_bavail * about.f_frsize >> 20, abs=512)
    assert probe._store(tmp_path / "metrics.db", root=False).writable is None


def test_our_database_tells_its_journal_schema_and_newest_row(tmp_path: Path) -> None:
    path = tmp_path / "db/metrics.db"
    with open_store(path) as store:
        store.write_tick(a_tick(START_NS))
        found = probe._store(path, root=True)
    assert (found.kind, found.journal, found.schema) == ("ours", "wal", "current")
    assert probe._store(path, root=True).journal == "delete"
    assert found.newest_row_ms == START_NS // 10**6
    assert found.read_problem == ""


@pytest.mark.parametrize(
    ("change", "schema"),
    [
        ("INSERT INTO schema_migration VALUES (99, '9999_of_the_future', '2030-01-01')", "newer"),
        ("DELETE FROM schema_migration WHERE name LIKE '0002%'", "older"),
    ],
)
def test_a_database_of_another_version_is_newer_or_older(
    tmp_path: Path, change: str, schema: str
) -> None:
    path = tmp_path / "db/metrics.db"
    with open_store(path) as store:
        store.write_tick(a_tick())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    assert probe._store(path, root=True).schema == schema


def test_another_program_s_database_and_noise_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    path.write_bytes(bytes(range(256)) * 64)
    noise = probe._store(path, root=True)
    assert noise.kind not in ("ours", "absent")
    assert noise.schema is None


@needs_root
def test_a_directory_that_others_can_write_is_a_problem_with_its_remedy(tmp_path: Path) -> None:
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    found = probe._store(place / "metrics.db", root=True)
    assert found.kind is None
    assert str(place) in found.path_problem
    assert found.path_hint


@needs_root
def test_who_runs_and_whether_cron_has_our_file_is_looked_up(
    config: Config, tmp_path: Path
) -> None:
    assert probe._agent_pid(config) == 0
    assert probe._cron_file(config) is False
    (tmp_path / "run").mkdir()
    (tmp_path / "run/agent.lock").symlink_to(tmp_path)
    assert probe._agent_pid(config) is None


@pytest.mark.parametrize(
    ("package", "oldest", "there"),
    [
        ("msgspec", (0, 1), True),
        ("msgspec", (9999, 0), False),
        ("no_such_package_at_all", (0, 0), False),
        ("json", (9999, 0), True),
    ],
)
def test_a_package_is_there_in_its_oldest_version_or_of_no_version(
    package: str, oldest: tuple[int, int], there: bool
) -> None:
    assert probe_python.has(package, oldest) is there


# The kernel's side.


@pytest.mark.parametrize(
    ("names", "value", "told"),
    [
        (None, b"", False),
        ((), b"", None),
        (("Boot0000-8be4df61",), b"", False),
        (("SECURE",), b"\6\0\0\0\1", True),
        (("SECURE",), b"\6\0\0\0\0", False),
        (("SECURE",), b"\6\0", None),
    ],
    ids=["no EFI", "variables that are not shown", "not among them", "on", "off", "cut"],
)
def test_secure_boot_is_on_off_or_unknown_by_the_firmware_s_variable(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...] | None,
    value: bytes,
    told: bool | None,
) -> None:
    efi = tmp_path / "efi"
    monkeypatch.setattr(probe_kernel, "_EFI", efi)
    if names is not None:
        (efi / "efivars").mkdir(parents=True)
        for name in names:
            path = efi / (probe_kernel._SECURE_BOOT if name == "SECURE" else f"efivars/{name}")
            path.write_bytes(value)
    assert probe_kernel._secure_boot() is told


@pytest.mark.parametrize(
    ("done", "version", "problem"),
    [
        (Finished((), 0, "0.26.0\n", ""), "0.26.0", ""),
        (Finished((), 1, "", "ModuleNotFoundError: No module named 'bcc'\n"), "", "not installed"),
        (
            Finished((), 1, "", "AttributeError: module 'bcc' has no attribute 'BPF'\n"),
            "",
            "another package of that name",
        ),
        (Finished((), 1, "", "OSError: libbcc.so.0 is missing\n"), "", "libbcc.so.0 is missing"),
        (CommandError("python took longer than 20 s and was ended."), "", "took longer"),
    ],
    ids=["there", "absent", "another package", "broken", "hung"],
)
def test_bcc_is_there_or_what_is_wrong_with_it(
    monkeypatch: pytest.MonkeyPatch, done: Any, version: str, problem: str
) -> None:
    stand_in(monkeypatch, done)
    found, said = probe_kernel._bcc()
    assert found == version
    assert problem in said
    assert (said == "") is (problem == "")


def stand_in(monkeypatch: pytest.MonkeyPatch, done: Finished | CommandError) -> list[Sequence[str]]:
    """Programs end as `done` says; gives what they were called with."""
    calls: list[Sequence[str]] = []

    def run(argv: Sequence[str], **_: object) -> Finished:
        calls.append(argv)
        if isinstance(done, CommandError):
            raise done
        return done

    monkeypatch.setattr(probe_kernel, "run", run)
    return calls


@pytest.mark.parametrize(
    ("done", "directory"),
    [
        (Finished((), 0, "/srv/build/6.1.0/abc\n", ""), Path("/srv/build/6.1.0/abc")),
        (Finished((), 0, "no path\n", ""), None),
        (CommandError("bash failed"), None),
    ],
)  # fmt: skip
def test_the_loader_says_where_it_builds_or_it_is_unknown(
    monkeypatch: pytest.MonkeyPatch, config: Config, done: Any, directory: Path | None
) -> None:
    calls = stand_in(monkeypatch, done)
    assert probe_kernel._build_directory(config) == directory
    assert calls[0][-1] == "--print-dir"


def test_a_build_is_whole_or_not_and_unknown_where_nobody_knows_its_place(tmp_path: Path) -> None:
    assert probe_kernel._is_built(None) is None
    for name in ("SHA256SUMS", "sysinfo.ko"):
        (tmp_path / name).touch()
    assert probe_kernel._is_built(tmp_path) is False
    (tmp_path / "continfo.ko").touch()
    assert probe_kernel._is_built(tmp_path) is True


@pytest.mark.parametrize(
    ("loaded", "built", "told"),
    [((), True, None), (("sysinfo",), None, None), (("sysinfo",), False, False)],
)
def test_modules_are_ours_only_where_a_whole_build_says_so(
    tmp_path: Path, loaded: tuple[str, ...], built: bool | None, told: bool | None
) -> None:
    assert probe_kernel._are_ours(loaded, tmp_path, built) is told


def test_an_entry_is_read_empty_or_missing(config: Config, tmp_path: Path) -> None:
    assert "No such file" in str(probe_kernel._entry_problem(config))
    for name in ("sysinfo", "continfo"):
        (tmp_path / name).write_text("{}")
    assert probe_kernel._entry_problem(config) == ""
    (tmp_path / "continfo").write_text("")
    assert probe_kernel._entry_problem(config) == f"{tmp_path}/continfo is empty"


@pytest.mark.parametrize(
    ("variables", "settings", "compiler"),
    [
        ("CC_VERSION := x\noverride KBUILD_CC = gcc-12\n", "", "gcc"),
        (None, "CONFIG_CC_IS_CLANG=y\n", "clang"),
        (None, "CONFIG_CC_IS_GCC=y\n", "gcc"),
        (None, None, "gcc"),
    ],
)
def test_the_compiler_is_the_one_that_the_headers_ask_for(
    tmp_path: Path, variables: str | None, settings: str | None, compiler: str
) -> None:
    if variables is not None:
        (tmp_path / ".kernelvariables").write_text(variables)
    if settings is not None:
        (tmp_path / "include/config").mkdir(parents=True)
        (tmp_path / "include/config/auto.conf").write_text(settings)
    assert probe_kernel._compiler(tmp_path).startswith(compiler)


def test_a_kernel_s_option_is_read_from_whatever_configuration_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: dict[str, bytes] = {}

    def read(path: Path) -> bytes:
        for name, data in places.items():
            if str(path).startswith(name):
                return data
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "read_bytes", read)
    assert probe_kernel._kernel_has("CONFIG_BPF_EVENTS") is None
    places["/boot/config-"] = b"CONFIG_BPF=y\nCONFIG_BPF_EVENTS=y\n"
    assert probe_kernel._kernel_has("CONFIG_BPF_EVENTS") is True
    places["/proc/config.gz"] = gzip.compress(b"# CONFIG_BPF_EVENTS is not set\n")
    assert probe_kernel._kernel_has("CONFIG_BPF_EVENTS") is False
    places["/proc/config.gz"] = b"\x1f\x8b cut"
    assert probe_kernel._kernel_has("CONFIG_BPF_EVENTS") is True
