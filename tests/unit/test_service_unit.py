"""The systemd unit against what the agent is: its paths, its exit statuses, its launcher."""

from __future__ import annotations

import configparser
from pathlib import Path, PurePosixPath

import pytest

from agent import errors
from agent.config import Config

PROJECT = Path(__file__).resolve().parents[2]
UNIT = PROJECT / "bash/systemd/so1-agent.service"


@pytest.fixture(scope="module")
def service() -> dict[str, str]:
    """The section [Service]; of a setting that comes several times, the lines together."""

    class Lines(dict[str, object]):
        def __setitem__(self, key: str, value: object) -> None:
            if key in self and isinstance(value, list) and isinstance(self[key], list):
                value = [*self[key], *value]  # type: ignore[misc]
            super().__setitem__(key, value)

    parser = configparser.RawConfigParser(strict=False, dict_type=Lines)  # type: ignore[arg-type]
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return dict(parser["Service"])


def test_everything_the_agent_writes_by_default_is_writable_in_the_sandbox(
    service: dict[str, str],
) -> None:
    assert service["ProtectSystem"] == "strict"
    writable = [
        PurePosixPath("/run", service["RuntimeDirectory"]),
        PurePosixPath("/var/lib", service["StateDirectory"]),
        PurePosixPath("/var/log", service["LogsDirectory"]),
        *(PurePosixPath(word.lstrip("-")) for word in service["ReadWritePaths"].split()),
    ]
    paths, cron = Config().paths, Config().cron
    for path in (paths.database, paths.build, paths.run, paths.log, cron.directory):
        assert any(PurePosixPath(path).is_relative_to(place) for place in writable), path


def test_the_run_directory_outlives_a_stop_because_of_the_locks_in_it(
    service: dict[str, str],
) -> None:
    assert service["RuntimeDirectoryPreserve"] == "yes"


def test_a_failure_that_another_start_cannot_mend_is_not_tried_again(
    service: dict[str, str],
) -> None:
    assert {int(status) for status in service["RestartPreventExitStatus"].split()} == {
        errors.ConfigError.exit_status,
        errors.PrivilegeError.exit_status,
        errors.LockedError.exit_status,
    }


def test_the_unit_starts_what_the_installation_makes(service: dict[str, str]) -> None:
    launcher = service["ExecStart"].split()[0]
    assert f":-{launcher}}}" in (PROJECT / "bash/lib/install.sh").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "right",
    [
        *("CAP_SYS_MODULE", "CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE"),
        "CAP_SYSLOG",
    ],
)
def test_the_rights_that_the_agent_lives_on_are_left(service: dict[str, str], right: str) -> None:
    assert right in service["CapabilityBoundingSet"].split()


def test_the_kernels_log_can_be_read_and_not_written(service: dict[str, str]) -> None:
    assert service["ProtectKernelLogs"] == "no"
    assert service["DeviceAllow"] == "/dev/kmsg r"


def test_no_right_is_left_that_it_does_not_live_on(service: dict[str, str]) -> None:
    assert len(service["CapabilityBoundingSet"].split()) == 6
    assert service["NoNewPrivileges"] == "yes"
