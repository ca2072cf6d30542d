"""Settings are checked whole before anything changes: what is wrong is named, none is guessed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from agent.config import Config, Scope, decode_config
from agent.errors import ConfigError
from tests.unit.config_support import one_line


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
