"""The guests that the lab can boot: which distribution, kernel and packages each one is.

The table is data: a new guest is a new row. Whoever wants to know what is inside an image, or
what a test may count on being installed in a guest, looks here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import LabError

# What a host that runs the agent has, and what the tests look with.
COMMON_PACKAGES: tuple[str, ...] = (
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "initramfs-tools",
    "linux-image-amd64",
    "linux-headers-amd64",
    "docker.io",
    "containerd",
    "docker-compose",
    "podman",
    "crun",
    "iptables",
    "apparmor",
    "cron",
    "sudo",
    "python3",
    "python3-venv",
    "python3-bpfcc",
    "libbpf1",
    "bpftool",
    "busybox-static",
    "stress",
    "gcc",
    "libc6-dev",
    "make",
    # What a module's build asks for with all warnings on.
    "perl",
    "sparse",
    "dkms",
    "mokutil",
    "sqlite3",
    "jq",
    "procps",
    "psmisc",
    "strace",
    "iproute2",
    "netbase",
    "ca-certificates",
    "e2fsprogs",
    "util-linux",
)

# A host on which nothing was prepared: for trying the whole installation, through a network.
FRESH_PACKAGES: tuple[str, ...] = (
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "initramfs-tools",
    "linux-image-amd64",
    "apparmor",
    "cron",
    "sudo",
    "procps",
    "iproute2",
    "netbase",
    "ca-certificates",
    "e2fsprogs",
    "util-linux",
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """Another kernel than its suite's own: the packages, and the suite they come from."""

    packages: tuple[str, ...]
    # Beside the guest's own, as its backports; empty where that has them.
    suite: str = ""


@dataclass(frozen=True, slots=True)
class Guest:
    """One row of the matrix. `suite` is Debian's, `linux` what its kernel is called in reports."""

    name: str
    suite: str
    linux: str
    extra_packages: tuple[str, ...] = ()
    # A rolling suite's Release file may look expired by the machine's clock.
    rolling: bool = False
    # systemd 256 and later boots cgroup v1 only when told twice.
    legacy_cgroup_force: bool = False
    # systemd 258 and later has v2 only.
    cgroup_v1: bool = True
    # Nothing of ours is prepared: no virtual environment, no images, no agent installed.
    fresh: bool = False
    # Whether the default run of the vm layer covers it.
    in_ci: bool = True
    # The rest of such a guest is made from the tree of the guest that `like` names.
    kernel: Kernel | None = None
    like: str = ""
    # Debian's name of it.
    arch: str = "amd64"

    @property
    def packages(self) -> tuple[str, ...]:
        common = FRESH_PACKAGES if self.fresh else COMMON_PACKAGES
        # Packages of a kernel bear its architecture's name.
        named = tuple(re.sub("-amd64$", f"-{self.arch}", name) for name in common)
        return named + self.extra_packages


GUESTS: dict[str, Guest] = {
    guest.name: guest
    for guest in (
        Guest("debian12", "bookworm", "6.1"),
        Guest(
            "debian13",
            "trixie",
            "6.12",
            extra_packages=("docker-cli",),
            legacy_cgroup_force=True,
        ),
        Guest(
            "sid",
            "sid",
            "7.2",
            extra_packages=("docker-cli",),
            rolling=True,
            cgroup_v1=False,
            in_ci=False,
        ),
        Guest(
            "debian12-5.10",
            "bookworm",
            "5.10",
            in_ci=False,
            kernel=Kernel(
                (
                    # Its meta packages are older than the suite's own.
                    "--allow-downgrades",
                    "linux-image-amd64/bullseye",
                    "linux-headers-amd64/bullseye",
                ),
                suite="bullseye",
            ),
            like="debian12",
        ),
        Guest(
            "debian12-rt",
            "bookworm",
            "6.1",
            in_ci=False,
            kernel=Kernel(("linux-image-rt-amd64", "linux-headers-rt-amd64")),
            like="debian12",
        ),
        Guest(
            "debian13-rt",
            "trixie",
            "6.12",
            extra_packages=("docker-cli",),
            legacy_cgroup_force=True,
            in_ci=False,
            kernel=Kernel(("linux-image-rt-amd64", "linux-headers-rt-amd64")),
            like="debian13",
        ),
        Guest(
            "debian13-backports",
            "trixie",
            "7.3",
            extra_packages=("docker-cli",),
            legacy_cgroup_force=True,
            in_ci=False,
            kernel=Kernel(
                (
                    "linux-image-amd64/trixie-backports",
                    "linux-headers-amd64/trixie-backports",
                ),
                suite="trixie-backports",
            ),
            like="debian13",
        ),
        Guest(
            "debian13-arm64",
            "trixie",
            "6.12",
            extra_packages=("docker-cli",),
            in_ci=False,
            cgroup_v1=False,
            arch="arm64",
        ),
        Guest("debian12-fresh", "bookworm", "6.1", fresh=True, in_ci=False),
        Guest(
            "debian13-fresh",
            "trixie",
            "6.12",
            fresh=True,
            legacy_cgroup_force=True,
            in_ci=False,
        ),
    )
}


def find_guest(name: str) -> Guest:
    """The guest called `name`; LabError names those that there are."""
    try:
        return GUESTS[name]
    except KeyError:
        raise LabError(f"no guest is called {name!r}", f"use one of {', '.join(GUESTS)}") from None
