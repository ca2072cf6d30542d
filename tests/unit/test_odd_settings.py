"""Settings that have the form of what they should be, and are none."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from agent.actions.notify.post import Target
from agent.config import Config, GrafanaSettings, PolicySettings, decode_config
from agent.config_outlets import MetricsSettings
from agent.errors import ConfigError

ODD = {
    "a port of nobody": ('[notify.webhook]\nurl = "http://127.0.0.1:0/"', "the port of the URL"),
    "an address that is left open": (
        '[notify.webhook]\nurl = "http://[::1/"',
        "the host of the URL is none",
    ),
    "a port without a host": ('[notify.webhook]\nurl = "http://:80/"', "the host of the URL"),
    "a path beyond ASCII": ('[notify.webhook]\nurl = "http://h/\\u00e9"', "as %C3%A9"),
    "a host beyond ASCII": ('[notify.alertmanager]\nurls = ["http://h\\u00e9"]', "as xn--"),
    "an address out of range": ('[metrics]\nlisten = "127.0.0.999:80"', "127.0.0.999 of listen"),
    "a database that is the root": ('[paths]\ndatabase = "/"', "database / names a directory"),
    "a database above": ('[paths]\ndatabase = "/var/.."', "database /var/.. names a directory"),
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_none_is_refused_with_its_own_sentence(what: str) -> None:
    text, named = ODD[what]
    with pytest.raises(ConfigError) as caught:
        decode_config(text, "agent.toml")
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("url", "port"),
    [("http://h", 80), ("https://h/x", 443), ("http://h:/", 80), ("https://[::1]:8443/", 8443)],
)
def test_what_can_be_posted_to_is_taken(url: str, port: int) -> None:
    assert decode_config(f'[notify.webhook]\nurl = "{url}"', "agent.toml").notify.wanted
    assert Target.of(url).port == port


def test_loopback_addresses_are_taken_as_before() -> None:
    for listen in ("127.0.0.1:9436", "127.255.255.254:1", "[::1]:9436", ""):
        taken = decode_config(f'[metrics]\nlisten = "{listen}"', "agent.toml")
        assert taken.metrics.listen == listen


def test_the_comments_of_the_package_s_file_are_the_defaults() -> None:
    file = Path(__file__).parents[2] / "packaging/so1-agent/agent.toml"
    text = re.sub(r"^# (?=\[|\w+ = )", "", file.read_text(encoding="utf-8"), flags=re.M)
    config = decode_config(text, "agent.toml")
    for section in ("[[policy.rule]]", "[proof]", "[notify]", "[images]", "[fleet]"):
        assert f"\n{section}" in text
    assert [one.name for one in config.policy.rule] == ["old-jobs"]
    examples = {
        "policy": PolicySettings(), "grafana": GrafanaSettings(), "metrics": MetricsSettings()
    }  # fmt: skip
    assert msgspec.structs.replace(config, **examples) == Config()
