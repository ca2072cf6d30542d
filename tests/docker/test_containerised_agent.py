"""The agent inside a container of the engine that it governs: all others go, and it stays.

The container sees the host's programs and processes, as one that watches a host has to.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.agent_process import PROJECT, rows
from tests.containers import DockerCommandError
from tests.docker.private_engine import PrivateEngine

_SHOWN = ("/usr", "/lib", "/lib64", "/bin", "/sbin")


def run_inside(engine: PrivateEngine, place: Path, *options: str) -> str:
    """One tick under `--scope all` that keeps nobody; the full id of the agent's container."""
    config = place / "agent.toml"
    config.write_text(
        f'docker_host = "{engine.host}"\nsource = "psutil"\n'
        "[policy]\nkeep_low = 0\nkeep_high = 0\n[paths]\n"
        f'run = "{place}/run"\nlog = "{place}/log"\ndatabase = "{place}/metrics.db"\n'
    )
    interpreter = Path(sys.prefix)
    shown = {*_SHOWN, str(interpreter), str(Path(sys.base_prefix)), str(PROJECT)}
    mounts = [f"--volume={path}:{path}:ro" for path in sorted(shown) if Path(path).exists()]
    said = ""
    try:
        said = engine.docker(
            *("run", "--name", "so1_agent", "--pid=host", "--cap-add=SYS_PTRACE"),
            *("--volume=/sys/fs/cgroup:/sys/fs/cgroup:ro", f"--volume={place}:{place}"),
            *(f"--volume={engine.directory}/docker.sock:{engine.directory}/docker.sock", *mounts),
            *("--workdir", str(PROJECT), "--env=PYTHONDONTWRITEBYTECODE=1", *options),
            *("so1-alpine-standin:local", sys.executable, "-m", "agent"),
            *("start", "--once", "--no-bpf", "--scope", "all", "--config", str(config)),
        )
    except DockerCommandError as error:
        said = str(error)  # its own removal ends it too
    own = engine.docker("ps", "-aq", "--no-trunc", "--filter", "name=so1_agent")
    assert own, f"the agent removed the container that it runs in: {said}"
    assert engine.inspect(own)["State"]["ExitCode"] == 0, said
    return own


@pytest.mark.parametrize(
    "options",
    [
        ("--cgroupns=host", "--network=none"),
        ("--cgroupns=private", "--network=none"),
        ("--cgroupns=private", "--network=container:"),
    ],
    ids=["host's cgroup namespace", "its own cgroup namespace", "another's network"],
)
def test_under_scope_all_every_other_container_goes_and_its_own_stays(
    module_engine: PrivateEngine, place: Path, options: tuple[str, ...]
) -> None:
    engine = module_engine
    others = [engine.run("--name", f"other_{number}") for number in range(3)]
    spared = set()
    if options[-1] == "--network=container:":
        # The files in /etc are then the other one's; it is spared too.
        options = (*options[:-1], f"--network=container:{others[0]}")
        spared = {others[0]}
    run_inside(engine, place, *options)
    assert {one for one in others if engine.exists(one)} == spared
    gone = {row["container_id"] for row in rows(place / "metrics.db", "SELECT * FROM deletions")}
    assert gone == {one[:12] for one in others if one not in spared}
