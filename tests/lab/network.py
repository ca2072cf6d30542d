"""What a guest with user networking needs to reach the registries that this machine reaches.

Taken from this machine at run time and given to that guest alone: hosts, resolver, certificates,
apt's and pip's settings. Nothing of it is ever written to an image or to the repository.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from .bootstrap import guest_apt_settings
from .process import network_environment

if TYPE_CHECKING:
    from .guests import Guest

_SCRIPT = """\
# Sourced by guest.sh when the lab was asked for a network.
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
cat /lab/network/hosts >>/etc/hosts
printf 'nameserver 10.0.2.3\\n' >/etc/resolv.conf
cat /lab/network/environment >>/etc/environment
cp /lab/network/apt.conf /etc/apt/apt.conf.d/99so1-lab
if [ -e /lab/network/certificates.crt ]; then
    cp /lab/network/certificates.crt /etc/ssl/certs/ca-certificates.crt
fi
if [ -e /lab/network/pip.conf ]; then cp /lab/network/pip.conf /etc/pip.conf; fi
"""


def network_share(lab: Path, guest: Guest) -> None:
    """Write `network.sh` and what it copies into the guest's share."""
    directory = lab / "network"
    directory.mkdir()
    shutil.copy("/etc/hosts", directory / "hosts")
    (directory / "apt.conf").write_text(guest_apt_settings(guest), encoding="utf-8")
    for source, name in (
        ("/etc/ssl/certs/ca-certificates.crt", "certificates.crt"),
        ("/etc/pip.conf", "pip.conf"),
    ):
        if Path(source).exists():
            shutil.copy(source, directory / name)
    variables = {
        name: value
        for name, value in network_environment().items()
        if name.startswith("PIP_") or name.lower().endswith("_proxy")
    }
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    # su and sudo clean the environment and read this file.
    everybody = "".join(f"{name}={value}\n" for name, value in variables.items())
    (directory / "environment").write_text(everybody, encoding="utf-8")
    (lab / "network.sh").write_text(_SCRIPT + exports, encoding="utf-8")
