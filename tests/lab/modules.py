"""Builds the kernel modules for a guest, natively in its tree, before it boots.

A build takes seconds in a chroot and minutes inside an emulated guest. What comes out is kept by
the hash of its sources and put where the guest's own load_modules.sh looks for it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from . import cache
from .bootstrap import in_tree
from .errors import LabError
from .image import PROJECT, Image
from .process import run, step

_SCRIPT = "bash/load_modules.sh"
_TIMEOUT_S = 600


def obtain_modules(image: Image, kernel_tree: Path | None = None) -> Path | None:
    """The directory `<release>/<source hash>/…` to seed a guest with; None without sources.

    With `kernel_tree`, a built kernel source tree, the modules are built for that kernel with
    this machine's compiler; else for the image's own kernel, in its tree.
    """
    script = PROJECT / _SCRIPT
    if not script.exists() or not (PROJECT / "kernel").is_dir():
        return None
    release = kernel_release(kernel_tree) if kernel_tree else image.kernel_release
    library = PROJECT / "bash" / "lib"
    parts: list[str | bytes | Path] = [release, image.directory.name, Path(__file__)]
    parts += [PROJECT / "kernel", script, library]
    if kernel_tree:
        parts.append(str(kernel_tree))
    parent = cache.directory() / image.guest.name
    prefix = "modules" if kernel_tree is None else f"modules-for-{_short(kernel_tree)}"

    def make(aside: Path) -> None:
        settings = {"KERNEL_RELEASE": release}
        log = aside / "build.log"
        if kernel_tree:
            settings |= {"KDIR": str(kernel_tree), "SO1_BUILD_ROOT": str(aside)}
            run(["bash", script, "--build-only"], timeout_s=_TIMEOUT_S, log=log, env=settings)
        else:
            settings |= {
                "KDIR": f"/lib/modules/{release}/build",
                "SO1_BUILD_ROOT": "/run/so1-build",
            }
            in_tree(
                image.tree,
                ["/bin/bash", f"/run/so1-project/{_SCRIPT}", "--build-only"],
                timeout_s=_TIMEOUT_S,
                log=log,
                env=settings,
                binds={PROJECT: "/run/so1-project"},
                writable_binds={aside: "/run/so1-build"},
            )
        if not any(aside.glob(f"{release}/*/*.ko")):
            raise LabError(
                f"{_SCRIPT} --build-only left no module under {release}/<hash>/ of SO1_BUILD_ROOT",
                log.read_text(encoding="utf-8"),
            )

    with cache.lock("build", f"modules for {image.guest.name}"):
        target = parent / f"{prefix}-{cache.key(parts)}"
        if target.is_dir():
            return target
        with step(f"{image.guest.name}: modules for {release}"):
            return cache.obtain(parent, prefix, cache.key(parts), make)


def kernel_release(tree: Path) -> str:
    """The release of a built kernel tree."""
    path = tree / "include/config/kernel.release"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise LabError(
            f"{tree} is no built kernel tree: {error}", "make bzImage modules"
        ) from error


def _short(tree: Path) -> str:
    return hashlib.sha256(str(tree.resolve()).encode()).hexdigest()[:8]
