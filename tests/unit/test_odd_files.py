"""Files that a person names: a pipe holds nobody, a device that never ends is read by nobody."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from agent.actions.notify.post import DeliveryError, Target, post
from agent.config import load_config
from agent.errors import ConfigError


@pytest.fixture(params=["pipe", "device"])
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "device":
        return Path("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_settings_are_a_regular_file(odd: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(odd)
    assert caught.value.message == (
        f"The configuration file {odd} cannot be read: it is no regular file."
    )
    assert "chown" not in caught.value.hint


def test_a_directory_is_named_as_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)


def test_the_authorities_of_a_receiver_are_a_regular_file(odd: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = Target.of(f"https://127.0.0.1:{server.getsockname()[1]}/", str(odd))
        with pytest.raises(DeliveryError) as caught:
            post(target, {}, b"{}", 5)
    assert str(caught.value).startswith(f"ca_file {odd} cannot be used: it is no regular file.")


def test_authorities_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/"
        for name in ("ca.pem", "absent.pem"):
            with pytest.raises(DeliveryError, match=rf"^ca_file .*{name} cannot be used: "):
                post(Target.of(url, str(tmp_path / name)), {}, b"{}", 5)
