"""What `FROM` names where no registry can be reached: Debian by debootstrap, as a tar file.

It holds what the agent's package depends on, so that `docker build` needs no network either.
"""

from __future__ import annotations

from pathlib import Path

from tests.lab import cache
from tests.lab.bootstrap import mirror
from tests.lab.process import need, network_environment, run

_INCLUDED = ("python3", "python3-bpfcc", "kmod", "procps", "ca-certificates")


def base_tar(suite: str) -> Path:
    """The file, from the lab's cache or made now (minutes, and the network)."""
    key = cache.key([suite, *_INCLUDED, Path(__file__), mirror() or ""])

    def make(aside: Path) -> None:
        source = mirror()
        run(
            [
                *(need("debootstrap", "debootstrap"), "--variant=minbase"),
                *(f"--include={','.join(_INCLUDED)}", suite, aside / "root"),
                *([source] if source else []),
            ],
            timeout_s=1800,
            log=aside / "build.log",
            env=network_environment(),
        )
        left_out = [f"--exclude=./{path}" for path in ("var/cache/apt/archives/*.deb", "dev/*")]
        run(
            ["tar", "-C", aside / "root", *left_out, "-cf", aside / "base.tar", "."],
            timeout_s=600,
        )
        cache.remove_tree(aside / "root")

    with cache.lock("build", f"a base image of {suite}"):
        parent = cache.directory() / "container"
        return cache.obtain(parent, suite, key, make) / "base.tar"
