"""What lies here needs the debug kernel and is collected on no other."""

from __future__ import annotations

import platform

collect_ignore_glob = [] if platform.release().endswith("-debug") else ["test_*.py"]
