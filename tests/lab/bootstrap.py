"""Makes the tree of a guest's distribution: debootstrap, then the packages of its row, in a chroot.

This is the slow half of an image (minutes, and the network), so it has a key of its own and knows
nothing of the project. Whatever is mounted lives in a private mount namespace and goes with it.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from . import cache
from .process import need, network_environment, run, step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .guests import Guest

# The files of this machine that lead to the archive and to the package index.
APT_NETWORK = ("/etc/hosts", "/etc/resolv.conf")
PIP_NETWORK = (*APT_NETWORK, "/etc/ssl/certs", "/etc/pip.conf")

_MINUTES = 60
# The few modules that mount the root file system: a small initrd boots much faster under TCG.
_INITRD_MODULES = """\
virtio_pci
virtio_blk
crc32c
crc32c_generic
ext4
"""
_DPKG_OPTIONS = """\
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/lintian/*
"""
# Nothing is started while packages are installed in a chroot.
_POLICY = "#!/bin/sh\nexit 101\n"
_APT_SETTING = re.compile(
    r'Acquire::(?:http|https|ftp)(?:::[^\s"]*)? "|Acquire::(?:Retries|proxy) ', re.IGNORECASE
)


def base_key(guest: Guest) -> str:
    return cache.key(
        [guest.suite, str(guest.rolling), *guest.packages, Path(__file__), mirror() or ""]
    )


def mirror() -> str | None:
    """`SO1_LAB_MIRROR`, for those whose debootstrap default is out of reach."""
    return os.environ.get("SO1_LAB_MIRROR")


def make_base(guest: Guest, aside: Path) -> None:
    """Put the tree into `aside/root`; `aside/build.log` says what the tools said."""
    root, log = aside / "root", aside / "build.log"
    with step(f"{guest.name}: debootstrap {guest.suite}"):
        source = mirror()
        run(
            [
                need("debootstrap", "debootstrap"),
                "--variant=minbase",
                guest.suite,
                root,
                *([source] if source else []),
            ],
            timeout_s=20 * _MINUTES,
            log=log,
            env=network_environment(),
        )
    with step(f"{guest.name}: {len(guest.packages)} packages and what they need"):
        _write(root / "etc/initramfs-tools/conf.d/so1-lab", "MODULES=list\n")
        _write(root / "etc/initramfs-tools/modules", _INITRD_MODULES)
        _write(root / "etc/dpkg/dpkg.cfg.d/so1-lab", _DPKG_OPTIONS)
        policy = root / "usr/sbin/policy-rc.d"
        _write(policy, _POLICY, mode=0o755)
        apt_settings = root / "etc/apt/apt.conf.d/99so1-lab-build"
        _write(apt_settings, guest_apt_settings(guest))
        apt = ["apt-get", "-q", "-y"]
        in_tree(root, [*apt, "update"], timeout_s=10 * _MINUTES, log=log, network=APT_NETWORK)
        in_tree(
            root,
            [
                *apt,
                "-o",
                "Dpkg::Options::=--force-confold",
                "install",
                "--no-install-recommends",
                *guest.packages,
            ],
            timeout_s=40 * _MINUTES,
            log=log,
            network=APT_NETWORK,
        )
        in_tree(root, ["apt-get", "clean"], timeout_s=_MINUTES, log=log)
        policy.unlink()
        apt_settings.unlink()
        cache.remove_tree(root / "var/lib/apt/lists")
        (root / "var/lib/apt/lists/partial").mkdir(parents=True)


def guest_apt_settings(guest: Guest) -> str:
    """This machine's own way to the archive, for the time of the build only."""
    dump = run([need("apt-config", "apt"), "dump"], timeout_s=30)
    lines = [line for line in dump.splitlines() if _APT_SETTING.match(line)]
    if guest.rolling:
        lines.append('Acquire::Check-Valid-Until "false";')
    return "\n".join([*lines, 'APT::Install-Recommends "false";', ""])


def in_tree(
    root: Path,
    command: Sequence[str],
    *,
    timeout_s: float,
    log: Path | None = None,
    network: Sequence[str] = (),
    binds: Mapping[Path, str] | None = None,
    writable_binds: Mapping[Path, str] | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run `command` in the tree by chroot, with /proc, /dev and what is asked for mounted.

    `binds` maps host paths to places in the tree, read-only; `network` names
    the files of this machine that lead to a registry. The mounts are made in a mount namespace of
    the command's own: they are gone when it is, even after a kill.
    """
    script = ["set -e", f"root={shlex.quote(str(root))}"]
    script += [
        'mount -t proc proc "$root/proc"',
        'mount --rbind /dev "$root/dev"',
        'mount -t sysfs -o ro sysfs "$root/sys"',
        'mount -t tmpfs tmpfs "$root/run"',
    ]
    everything = dict(binds or {})
    environment = dict(env or {}) | {"DEBIAN_FRONTEND": "noninteractive"}
    if network:
        environment |= network_environment()
        everything |= {Path(path): path for path in network if Path(path).exists()}
    for outside, inside in everything.items():
        script += _bind(outside, inside, writable=False)
    for outside, inside in (writable_binds or {}).items():
        script += _bind(outside, inside, writable=True)
    script.append(f'exec chroot "$root" {shlex.join(command)}')
    return run(
        [
            need("unshare", "util-linux"),
            "--mount",
            "--propagation",
            "private",
            "/bin/sh",
            "-c",
            "\n".join(script),
        ],
        timeout_s=timeout_s,
        log=log,
        env=environment,
        name=f"{shlex.join(command[:3])} … in {root}",
    )


def _bind(outside: Path, inside: str, *, writable: bool) -> list[str]:
    source, target = shlex.quote(str(outside.resolve())), f'"$root"{shlex.quote(inside)}'
    # A certificate in /etc/ssl/certs may be a link to a place that the tree does not have.
    make = f"mkdir -p {target}" if outside.is_dir() else f"[ -e {target} ] || : > {target}"
    lines = [make, f"mount --bind {source} {target}"]
    if not writable:
        lines.append(f"mount -o remount,ro,bind {target}")
    return lines


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
