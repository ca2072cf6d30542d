"""`unpack_wheels.py WHEELS SITE`: what wheels hold, put into a site-packages directory.

pip would do the same and add where, when and by what it was installed, which no two builds share.
Programs that a wheel brings are left out: the package has one command, `agent`.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path, PurePosixPath

_DATA_IN_SITE = ("purelib", "platlib")


def place_of(name: str) -> PurePosixPath | None:
    """Where below site-packages a member of a wheel goes, None for what is left out.

    The binary distribution format (packaging.python.org) has `NAME.data/KIND/…` beside packages.
    Raises ValueError for a path that leads elsewhere.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name} leads out of the wheel")
    if not path.parts or not path.parts[0].endswith(".data"):
        return path
    kind, *rest = path.parts[1:]
    return PurePosixPath(*rest) if kind in _DATA_IN_SITE else None


def unpack(wheel: Path, site: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            place = place_of(member.filename)
            if place is None or member.is_dir():
                continue
            target = site / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and target.read_bytes() != archive.read(member):
                sys.exit(f"unpack_wheels.py: {wheel.name} brings another {place}")
            target.write_bytes(archive.read(member))
            target.chmod(0o644)


def main() -> None:
    """Unpacks every wheel of one directory."""
    if len(sys.argv) != 3:
        sys.exit("Usage: unpack_wheels.py WHEELS SITE")
    wheels = sorted(Path(sys.argv[1]).glob("*.whl"))
    if not wheels:
        sys.exit(f"unpack_wheels.py: no wheels in {sys.argv[1]}")
    for wheel in wheels:
        unpack(wheel, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
