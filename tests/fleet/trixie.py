"""Debian 13's PostgreSQL 17 in a tree of its own: `python3 -m tests.fleet.trixie` prints its path.

Made from the lab's tree of Debian 13, once (minutes, and the network). Tests whose environment has
`SO1_POSTGRES_ROOT` run the servers in that tree.
"""

from __future__ import annotations

import os
import pwd
import shlex
from pathlib import Path

from tests.lab import cache
from tests.lab.bootstrap import APT_NETWORK, base_key, guest_apt_settings, in_tree, make_base
from tests.lab.guests import GUESTS, Guest
from tests.lab.process import run

VERSION = 17
PROGRAMS = f"/usr/lib/postgresql/{VERSION}/bin"


_INSTALL = """\
getent group {1} >/dev/null || groupadd -g {1} postgres
getent passwd {0} >/dev/null || useradd -u {0} -g {1} -d /var/lib/postgresql postgres
mkdir -p /etc/postgresql-common
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
apt-get -q update
apt-get -q -y -o Dpkg::Options::=--force-confold install --no-install-recommends \
    postgresql-{version} patroni python3-pysyncobj
apt-get clean
"""


def obtain() -> Path:
    """The tree, from the cache or made now. Needs root."""
    guest = GUESTS["debian13"]
    with cache.lock("build-postgres", "making PostgreSQL's tree"):
        base = cache.obtain(
            cache.directory() / guest.name, "base", base_key(guest), lambda to: make_base(guest, to)
        )
        made_from = cache.key([base_key(guest), Path(__file__), str(_user())])
        return (
            cache.obtain(
                cache.directory() / "postgres", "tree", made_from, lambda to: _make(guest, base, to)
            )
            / "root"
        )


def command(root: str, name: str, words: tuple[str, ...]) -> list[str]:
    """How a program of PostgreSQL's is run in the tree, seeing this machine's /tmp and devices."""
    script = (
        'for one in dev tmp; do mount --rbind "/$one" "$0/$one"; done;'
        ' mount -t proc proc "$0/proc"; exec chroot --userspec="$1" "$0" "$2" "${@:3}"'
    )
    user = ":".join(map(str, _user()))
    argv = ["unshare", "--mount", "--propagation", "private", "bash", "-ec", script]
    return [*argv, root, user, f"{PROGRAMS}/{name}", *words]


def _user() -> tuple[int, int]:
    """Whose the servers' files are on this machine; the tree has the same."""
    try:
        found = pwd.getpwnam("postgres")
    except KeyError:
        found = pwd.getpwnam("nobody")
    return found.pw_uid, found.pw_gid


def _make(guest: Guest, base: Path, aside: Path) -> None:
    root, log = aside / "root", aside / "build.log"
    run(["cp", "-a", "--reflink=auto", base / "root", root], timeout_s=600, log=log)
    settings = root / "etc/apt/apt.conf.d/99so1-build"
    settings.write_text(guest_apt_settings(guest), encoding="utf-8")
    guard = root / "usr/sbin/policy-rc.d"
    guard.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    guard.chmod(0o755)
    in_tree(
        root,
        ["sh", "-exc", _INSTALL.format(*_user(), version=VERSION)],
        timeout_s=1200,
        log=log,
        network=APT_NETWORK,
    )
    settings.unlink()
    guard.unlink()


if __name__ == "__main__":
    if os.geteuid() != 0:
        raise SystemExit("It needs root: sudo python3 -m tests.fleet.trixie")
    print(shlex.quote(str(obtain())))
