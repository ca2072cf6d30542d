"""`python -m agent.cli.documents SHARE`: man pages and completions below a `share` directory.

Dated by SOURCE_DATE_EPOCH (reproducible-builds.org) where that is set.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from agent.cli.documents.completions import completion_files
from agent.cli.documents.man import manual_pages
from agent.cli.documents.tree import read_tree


def write(share: Path, made_s: int) -> None:
    """Writes all of them. Raises OSError."""
    tree = read_tree()
    pages = {f"man/man1/{name}": text for name, text in manual_pages(tree, made_s).items()}
    for name, text in (pages | completion_files(tree)).items():
        path = share / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main() -> None:
    """The command line: one directory."""
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m agent.cli.documents SHARE")
    made_s = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    write(Path(sys.argv[1]), made_s)


if __name__ == "__main__":
    main()
