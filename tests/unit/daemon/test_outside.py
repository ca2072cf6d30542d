"""What a run of the agent reaches on a real host, by its configuration and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.actions import kernel_modules
from agent.clock import SystemClock
from agent.config import Config, decode_config
from agent.daemon import outside as outside_module
from agent.daemon.outside import Outside
from agent.errors import AgentError
from agent.model.process import Source
from agent.sources.cgroup.layout import CgroupLayout

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: what cron runs is root's")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return decode_config(
        f'docker_host = "unix://{tmp_path}/docker.sock"\n[images]\nlow = "team/alpine:3"\n'
        f'[paths]\nrun = "{tmp_path}/run"\ndatabase = "{tmp_path}/db/metrics.db"\n'
        f'[modules]\nsysinfo_path = "{tmp_path}/sysinfo"\ncontinfo_path = "{tmp_path}/continfo"\n'
        f'[cron]\ndirectory = "{tmp_path}/cron.d"\n',
        "test",
    )


@pytest.fixture
def outside(config: Config) -> Outside:
    return Outside(config, SystemClock(), lambda _: None)  # type: ignore[arg-type]


def test_locks_store_and_id_lie_where_the_configuration_says(
    outside: Outside, tmp_path: Path
) -> None:
    with outside.store():
        assert (tmp_path / "db/metrics.db").exists()
    assert (tmp_path / "db/installation").exists() is False
    first = outside.installation()
    assert (tmp_path / "db/installation").read_text() == first + "\n"
    assert outside.installation() == first
    assert outside.agent_lock().path == tmp_path / "run/agent.lock"
    assert outside.generator_lock().path == tmp_path / "run/generator.lock"


def test_the_engine_is_the_configured_one(outside: Outside, tmp_path: Path) -> None:
    engine = outside.engine(outside.config.engines[0])
    with pytest.raises(AgentError, match=str(tmp_path)):
        engine.list()
    engine.close()
    with pytest.raises(AgentError, match="Docker is away"):
        outside.remove_installation("0" * 32)


def test_proc_is_read_where_the_modules_are_not(outside: Outside) -> None:
    with pytest.raises(AgentError, match=r"continfo cannot be read"):
        outside.read_modules()
    found = outside.read_psutil(outside.layout())
    assert found.source is Source.PSUTIL
    assert os.getpid() in {one.pid for one in found.processes}


def test_the_host_s_cgroups_are_read_without_any_container(outside: Outside) -> None:
    layout = outside.layout()
    assert isinstance(layout, CgroupLayout)
    assert outside.read_cgroups(layout, (), frozenset()).containers == {}


@needs_root
def test_the_cron_file_is_put_in_the_configured_directory_and_taken_away(
    outside: Outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cron.d").mkdir()
    script = tmp_path / "generar_contenedores.sh"
    script.write_text("#!/bin/bash\n")
    monkeypatch.setattr(outside_module, "_generator", lambda: script)
    path = outside.install_cron()
    assert path == tmp_path / "cron.d/so1-agent"
    assert f"/bin/bash {script}" in path.read_text()
    outside.remove_cron()
    assert not path.exists()


@pytest.fixture
def generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "generar_contenedores.sh"
    script.write_text(
        f"env > {tmp_path}/env; pwd > {tmp_path}/pwd; cat /proc/self/stat > {tmp_path}/stat\n"
    )
    monkeypatch.setattr(outside_module, "_generator", lambda: script)
    return script


@needs_root
@pytest.mark.allow_subprocess
def test_the_first_generation_runs_in_a_session_of_its_own_with_nothing_of_ours_but_its_settings(
    outside: Outside, generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SHELL", "x")
    process = outside.start_generator()
    assert process.wait(60) == 0
    told = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert told["DOCKER_HOST"] == f"unix://{tmp_path}/docker.sock"
    assert told["SO1_IMAGE_LOW"] == "team/alpine:3"
    assert told["SO1_RUN_DIR"] == f"{tmp_path}/run"
    assert "SECRET_OF_THE_SHELL" not in told
    assert (tmp_path / "pwd").read_text() == "/\n"
    session = int((tmp_path / "stat").read_text().rpartition(")")[2].split()[3])
    assert session == process.pid != os.getsid(0)


@needs_root
def test_a_generator_that_others_could_change_is_not_run(outside: Outside, generator: Path) -> None:
    generator.chmod(0o777)
    with pytest.raises(AgentError, match="can be changed by others than root"):
        outside.start_generator()


@needs_root
def test_a_host_without_bash_is_told_to_install_it(
    outside: Outside, generator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "bash")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(AgentError, match="bash cannot be run") as raised:
        outside.start_generator()
    assert raised.value.hint == "Install bash."


def test_what_is_loaded_and_unloaded_goes_by_the_configuration(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(kernel_modules, "begin_loading", lambda *words: seen.append(words))
    monkeypatch.setattr(kernel_modules, "unload", lambda: ("sysinfo",))
    outside.begin_loading()
    assert seen == [(Path("/var/lib/so1/build"), outside.config.modules)]
    assert outside.unload_modules() == ("sysinfo",)
