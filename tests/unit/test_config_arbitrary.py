"""Whatever stands in a file is a configuration, or a sentence about it."""

from __future__ import annotations

import string

from hypothesis import example, given
from hypothesis import strategies as st

from agent.config import Config, decode_config
from agent.errors import ConfigError
from tests.unit.config_support import one_line

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
