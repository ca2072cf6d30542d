"""Settings are checked whole before anything changes: what is wrong is named, none is guessed."""

from __future__ import annotations

import os
import string
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.config import Config, Scope, SourceChoice, decode_config, load_config, with_overrides
from agent.errors import AgentError, ConfigError

KEYS = st.text(string.ascii_lowercase + "_", min_size=1, max_size=12)
KNOWN = st.sampled_from(
    [
        *("interval_s", "source", "docker_host", "policy", "retention", "images", "grafana"),
        *("modules", "cron", "bpf", "paths", "max_containers", "keep_low", "scope", "port"),
        *("enabled", "database", "rule", "rules", "name", "match", "when"),
    ]
)
SCALARS = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(max_size=20),
    st.dates(),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=5)


def toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(one) for one in value) + "]"
    return str(value)


def one_line(error: AgentError) -> None:
    """What a person is told: a sentence, and what to do."""
    assert error.message
    assert error.hint
    assert error.exit_status == 2
    assert "Traceback" not in str(error)


@given(st.text())
@example("a" * 100_000)
@example("[" * 5000)
@example("a." * 5000 + "a = 1")
@example("interval_s = " + "9" * 5000)
@example("interval_s = 1" + "0" * 400)
@example("interval_s = 1e999")
@example("[policy]\nkeep_low = 1" + "0" * 400)
@example("x = 1979-05-27T07:32:00Z")
@example("policy = 3")
def test_arbitrary_text_is_a_configuration_or_a_configuration_error(text: str) -> None:
    try:
        assert isinstance(decode_config(text, "agent.toml"), Config)
    except ConfigError as error:
        one_line(error)


@given(st.dictionaries(KNOWN | KEYS, VALUES, max_size=4), st.sampled_from(["", "policy", "paths"]))
def test_arbitrary_keys_and_values_are_a_configuration_or_a_configuration_error(
    entries: dict[str, object], section: str
) -> None:
    lines = [f"[{section}]"] if section else []
    lines += [f"{key} = {toml_value(value)}" for key, value in entries.items()]
    try:
        assert isinstance(decode_config("\n".join(lines), "agent.toml"), Config)
    except ConfigError as error:
        one_line(error)


def test_nothing_set_gives_the_defaults_that_the_documents_name() -> None:
    config = decode_config("", "agent.toml")
    assert config == Config()
    assert (config.interval_s, config.source) == (20.0, "auto")
    assert (config.policy.max_containers, config.policy.keep_low, config.policy.keep_high) == (
        10,
        3,
        2,
    )
    assert config.policy.scope is Scope.MANAGED
    assert config.modules.sysinfo_path == "/proc/sysinfo_so1_202300539"
    assert config.modules.continfo_path == "/proc/continfo_so1_202300539"
    assert config.paths.database == "/var/lib/so1/metrics.db"
    assert (config.images.low, config.images.high) == ("alpine:latest", "polinux/stress")


def test_every_setting_of_the_readme_is_taken() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    block = readme.split("```toml\n", 1)[1].split("```", 1)[0]
    assert decode_config(block, "README.md").grafana.admin_password == "something of your own"


EVERYTHING = """
interval_s = 7.5
source = "psutil"
docker_host = "unix:///run/other.sock"
[policy]
max_containers = 11
keep_low = 4
keep_high = 1
scope = "all"
stop_grace_s = 2
rules = "none"
[[policy.rule]]
name = "ci"
match.image = ["registry.example/ci/*"]
match.image_contains = "ci"
match.label = ["ci.job=*"]
match.name = "job-*"
match.project = "ci"
match.state = "running"
match.engine = "docker"
when.age = "6h"
when.held_mb = 2048.0
when.unhealthy = "5m"
when.cpu = { above = 90.0, for = "10m" }
when.pressure = { memory = 20.0, for = "10s" }
when.available_mb = 1024.0
keep = 5
order = "cpu"
action = "stop"
grace_s = 10
step = [ { after = "1h", action = "remove" } ]
[[policy.rule]]
name = "ended"
match = { name = "*", state = "exited" }
when = { exited = "1h" }
[[policy.rule]]
name = "resting"
match = { name = "rest-*", state = ["running", "restarting"] }
when = { idle = "30m" }
[retention]
raw_hours = 12
history_days = 60
rollup_5min_days = 30
rollup_days = 200
max_database_mb = 100
[images]
low = "registry.example:5000/alpine@sha256:00"
high = "busybox:1.36"
[grafana]
enabled = false
keep = true
port = 3001
language = "en"
admin_password = "x"
[modules]
keep = true
sysinfo_path = "/proc/sysinfo_x"
continfo_path = "/proc/continfo_x"
[cron]
enabled = false
directory = "/etc/cron.other"
[bpf]
enabled = false
[metrics]
listen = "127.0.0.1:9436"
containers = 7
commands = 8
[fleet]
dsn = "postgresql://so1_agent@centre.example/so1"
secret_file = "/srv/secret"
flush_s = 60
resolution = "60s"
processes = "top:20"
environment = "/srv/fleet"
[notify]
journal = true
actions = true
per_minute = 60
[notify.webhook]
url = "https://hooks.example:8443/so1?of=this@host"
key_file = "/srv/key"
ca_file = "/srv/ca.pem"
timeout_s = 2.5
[notify.alertmanager]
urls = ["http://127.0.0.1:9093", "https://[::1]:9093/am"]
ca_file = "/srv/ca.pem"
timeout_s = 3.5
[proof]
agreement = 0.9
loss = 0.01
unexplained = 0.2
canary = 0.1
canary_hours = 24
[paths]
install = "/opt/x"
database = "/srv/x.db"
build = "/srv/build"
bpf = "/srv/bpf"
run = "/run/x"
log = "/srv/log"
[[engine]]
name = "podman"
kind = "podman"
socket = "unix:///run/podman/podman.sock"
environment = "/opt/own/cri"
govern = true
"""


def test_every_setting_of_a_file_arrives_as_it_was_written() -> None:
    read = msgspec.json.decode(msgspec.json.encode(decode_config(EVERYTHING, "agent.toml")))
    assert read == tomllib.loads(EVERYTHING)
    defaults = msgspec.to_builtins(Config())

    def differs(mine: dict[str, object], theirs: dict[str, object]) -> bool:
        return all(
            differs(mine[key], theirs[key])  # type: ignore[arg-type]
            if isinstance(mine[key], dict)
            else mine[key] != theirs[key]
            for key in theirs
        )

    assert differs(read, defaults), "a setting is left at its default here"


def test_the_documents_name_the_default_of_every_setting() -> None:
    """Written out a second time on purpose: who changes a default changes what users have."""
    assert msgspec.to_builtins(Config()) == {
        "interval_s": 20.0,
        "source": "auto",
        "docker_host": "unix:///var/run/docker.sock",
        "engine": (),
        "policy": {
            "max_containers": 10,
            "keep_low": 3,
            "keep_high": 2,
            "scope": "managed",
            "stop_grace_s": 1,
            "rules": None,
            "rule": (),
        },
        "retention": {
            "raw_hours": 24,
            "history_days": 30,
            "max_database_mb": 2048,
            "rollup_5min_days": 90,
            "rollup_days": 400,
        },
        "images": {"low": "alpine:latest", "high": "polinux/stress"},
        "grafana": {
            "enabled": True,
            "keep": False,
            "port": 3000,
            "language": "es",
            "admin_password": "admin",
        },
        "modules": {
            "keep": False,
            "sysinfo_path": "/proc/sysinfo_so1_202300539",
            "continfo_path": "/proc/continfo_so1_202300539",
        },
        "cron": {"enabled": True, "directory": "/etc/cron.d"},
        "bpf": {"enabled": True},
        "metrics": {"listen": "", "containers": 500, "commands": 20},
        "fleet": {
            "dsn": "",
            "secret_file": "/etc/so1/fleet.secret",
            "flush_s": 300,
            "resolution": "5m",
            "processes": "",
            "environment": "/opt/so1/fleet",
        },
        "notify": {
            "journal": False,
            "actions": False,
            "per_minute": 30,
            "webhook": {
                "url": "",
                "key_file": "/etc/so1/notify.key",
                "ca_file": None,
                "timeout_s": 10.0,
            },
            "alertmanager": {"urls": (), "ca_file": None, "timeout_s": 10.0},
        },
        "proof": {
            "agreement": 0.95,
            "loss": 0.02,
            "unexplained": 0.1,
            "canary": 0.05,
            "canary_hours": 0,
        },
        "paths": {
            "install": "/opt/so1",
            "database": "/var/lib/so1/metrics.db",
            "build": "/var/lib/so1/build",
            "bpf": "/var/lib/so1/bpf",
            "run": "/run/so1",
            "log": "/var/log/so1",
        },
    }


REFUSED = {
    "an unknown key": ("intervall_s = 20", "intervall_s"),
    "an unknown key in a section": ("[policy]\nkeep_lo = 3", "keep_lo"),
    "an unknown section": ("[polizei]\n", "polizei"),
    "a negative interval": ("interval_s = -5", "$.interval_s"),
    "an interval of 0": ("interval_s = 0", "$.interval_s"),
    "an interval that is no number": ('interval_s = "soon"', "$.interval_s"),
    "an interval that is not a number": ("interval_s = nan", "interval_s"),
    "an endless interval": ("interval_s = inf", "$.interval_s"),
    "a truth value for a number": ("[policy]\nkeep_low = true", "$.policy.keep_low"),
    "a negative floor": ("[policy]\nkeep_high = -1", "$.policy.keep_high"),
    "more kept than may run": (
        "[policy]\nmax_containers = 4",
        "keep_low and keep_high leave 5 (3 and 2), more than max_containers allows (4)",
    ),
    "no container at all": ("[policy]\nmax_containers = 0", "$.policy.max_containers"),
    "a scope that is none": ('[policy]\nscope = "everything"', "$.policy.scope"),
    "a source that is none": ('source = "proc"', "$.source"),
    "Docker by TCP": ('docker_host = "tcp://10.0.0.1:2375"', "$.docker_host"),
    "a relative path": ('[paths]\ndatabase = "metrics.db"', "$.paths.database"),
    "a path with a line end": ('[paths]\nlog = "/var/log\\n* * * * *"', "$.paths.log"),
    "an image with a blank": ('[images]\nlow = "alpine; rm -rf /"', "$.images.low"),
    "an image like an option": ('[images]\nhigh = "--privileged"', "$.images.high"),
    "a port that is none": ("[grafana]\nport = 70000", "$.grafana.port"),
    "a language that no dashboard has": ('[grafana]\nlanguage = "fr"', "$.grafana.language"),
    "a webhook's URL with a password": (
        '[notify.webhook]\nurl = "https://u:secret@h/"',
        "without user and password - at `$.notify.webhook.url`",
    ),
    "an Alertmanager that is no URL": (
        '[notify.alertmanager]\nurls = ["localhost:9093"]',
        "$.notify.alertmanager.urls",
    ),
    "a webhook's port that is none": (
        '[notify.webhook]\nurl = "https://h:99999/"',
        "the port of the URL is not from 1 to 65535",
    ),
    "a share beyond all": ("[proof]\nloss = 1.5", "$.proof.loss"),
    "a section that is a list": ("policy = [1]", "$.policy"),
    "a key twice": ("interval_s = 5\ninterval_s = 6", "overwrite"),
    "what is not TOML": ("interval_s: 5", "TOML"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_meant_is_refused_by_its_name(what: str) -> None:
    text, named = REFUSED[what]
    with pytest.raises(ConfigError) as caught:
        decode_config(text, "/etc/so1/agent.toml")
    one_line(caught.value)
    assert named in caught.value.message
    assert "/etc/so1/agent.toml" in caught.value.message


def test_an_override_of_the_command_line_wins_over_the_file() -> None:
    file = decode_config('interval_s = 5\n[policy]\nscope = "managed"\nkeep_low = 1', "f")
    config = with_overrides(
        file, interval_s=7.5, policy__scope=Scope.ALL, source=SourceChoice.PSUTIL
    )
    assert (config.interval_s, config.policy.scope, config.policy.keep_low) == (7.5, "all", 1)
    assert config.source is SourceChoice.PSUTIL


def test_an_override_that_was_not_given_leaves_the_file_s_value() -> None:
    file = decode_config("interval_s = 5\n[cron]\nenabled = false", "f")
    assert with_overrides(file, interval_s=None, cron__enabled=None) == file


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("interval_s", -1.0),
        ("interval_s", float("nan")),
        ("paths__database", "/a\nb"),
        ("paths__database", ""),
    ],
)
def test_an_override_is_checked_as_a_file_s_value_is(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        with_overrides(Config(), **{name: value})
    one_line(caught.value)
    assert "command line" in caught.value.message


def test_a_named_file_has_to_be_there_and_the_default_one_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.config.DEFAULT_CONFIG", tmp_path / "none.toml")
    assert load_config(None) == Config()
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "none.toml")
    one_line(caught.value)
    assert str(tmp_path / "none.toml") in caught.value.message


@pytest.mark.parametrize("what", ["a directory", "not UTF-8", "a loop of links"])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, what: str) -> None:
    path = tmp_path / "agent.toml"
    if what == "a directory":
        path.mkdir()
    elif what == "not UTF-8":
        path.write_bytes(b"source = '\xff'")
    else:
        path.symlink_to(path)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    one_line(caught.value)


@pytest.mark.parametrize(
    ("mode", "named", "taken"),
    [
        (0o600, False, True),
        (0o644, False, True),
        (0o664, False, False),
        (0o646, False, False),
        (0o664, True, True),
        (0o666, True, False),
    ],
)
def test_a_file_that_another_user_could_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, named: bool, taken: bool
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("interval_s = 5\n")
    path.chmod(mode)
    monkeypatch.setattr("agent.config.DEFAULT_CONFIG", path)
    if taken:
        assert load_config(path if named else None).interval_s == 5
        return
    with pytest.raises(ConfigError) as caught:
        load_config(path if named else None)
    one_line(caught.value)
    assert "written by others" in caught.value.message


def test_the_default_file_has_to_be_root_s_or_the_caller_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a file away")
    path = tmp_path / "agent.toml"
    path.write_text("interval_s = 5\n")
    os.chown(path, 65534, 65534)
    monkeypatch.setattr("agent.config.DEFAULT_CONFIG", path)
    with pytest.raises(ConfigError):
        load_config(None)
    assert load_config(path).interval_s == 5


@pytest.mark.parametrize(
    ("given", "below"),
    [("metrics.db", "metrics.db"), ("./a/../b.db", "b.db"), ("../x.db", "../x.db")],
)
def test_a_relative_path_of_the_command_line_is_one_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, below: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config = with_overrides(Config(), paths__database=given)
    assert config.paths.database == os.path.normpath(tmp_path / below)


def test_a_working_directory_that_is_gone_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(ConfigError, match="working directory") as caught:
        with_overrides(Config(), paths__database="metrics.db")
    one_line(caught.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[paths]\ndatabase = "metrics.db"', "an absolute path"),
        ('docker_host = "tcp://1.2.3.4:2375"', "unix://"),
        ('[images]\nlow = "Not An Image"', "an image's name"),
    ],
)
def test_a_text_of_another_form_is_refused_in_words_and_not_by_a_pattern(
    text: str, word: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_config(text, "here")
    assert word in caught.value.message
    assert "regex" not in caught.value.message
    assert "$." in caught.value.message


def test_a_byte_order_mark_before_the_settings_is_no_setting(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(b"\xef\xbb\xbfinterval_s = 7\r\n")
    assert load_config(path).interval_s == 7


def test_buckets_stay_ninety_and_four_hundred_days_unless_told() -> None:
    retention = Config().retention
    assert (retention.rollup_5min_days, retention.rollup_days) == (90, 400)


@pytest.mark.parametrize("address", ["127.0.0.1:9436", "127.1.2.3:1", "[::1]:65535", ""])
def test_metrics_are_shown_to_this_host(address: str) -> None:
    text = f'[metrics]\nlisten = "{address}"\ncontainers = 3\ncommands = 0'
    assert decode_config(text, "x").metrics.listen == address


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0:9436", "[::]:9436", "10.0.0.1:9436", "localhost:9436", "127.0.0.1", ":9436"),
        *("127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:http", "[::1]", "127.0.0.1:9436\\n"),
    ],
)
def test_metrics_are_shown_to_no_other_host(address: str) -> None:
    with pytest.raises(ConfigError) as raised:
        decode_config(f'[metrics]\nlisten = "{address}"', "agent.toml")
    one_line(raised.value)


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:9436", ("127.0.0.1", 9436)), ("[::1]:80", ("::1", 80))],
)
def test_an_address_is_taken_apart(address: str, expected: tuple[str, int]) -> None:
    config = decode_config(f'[metrics]\nlisten = "{address}"', "x")
    assert config.metrics.address == expected


@pytest.mark.parametrize(
    "line",
    [
        'docker_host = "unix:///run/docker.sock\\n"',
        'images.low = "alpine\\n"',
        'paths.database = "/var/lib/so1/metrics.db\\n"',
        'paths.run = "/run/so1\\nx"',
    ],
)
def test_a_line_end_is_no_part_of_any_value(line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        decode_config(line, "agent.toml")
    one_line(raised.value)
