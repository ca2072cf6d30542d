"""Whether this host can run the BPF probes, and what is missing where it cannot.

Facts are probed once into one value (unknown is not absent); the verdict over them is pure, and
`agent start`, `agent bpf` and `agent doctor` all tell it in the same words.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from agent.sources.bpf.btf import BTF_PATH

PACKAGE = Path(__file__).resolve().parents[2]
SOURCES = PACKAGE.parent / "kernel" / "bpf"

_CAP_SYS_ADMIN, _CAP_PERFMON, _CAP_BPF = 21, 38, 39


@dataclass(frozen=True, slots=True)
class BpfSupport:
    """What this host has of what the probes need; None where it could not be told."""

    root: bool
    """root with CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON."""
    btf: bool
    bcc: bool
    """The distribution's BCC can be imported by this interpreter."""
    python: str
    lockdown: str | None
    """`none`, `integrity` or `confidentiality`."""
    sources: bool
    machine: str

    @property
    def problem(self) -> tuple[str, str] | None:
        """The cause in a sentence, and the remedy; None where the probes should work."""
        if not self.root:
            return "BPF needs root.", "Run it with sudo."
        if not self.btf:
            return (
                f"this kernel has no type information ({BTF_PATH}).",
                "Boot a kernel built with CONFIG_DEBUG_INFO_BTF, as Debian's are.",
            )
        if self.lockdown == "confidentiality":
            return (
                "the kernel is locked down (confidentiality), which forbids BPF to read it.",
                "Boot without lockdown=confidentiality.",
            )
        if not self.bcc:
            return (
                f"BCC cannot be imported by {self.python}.",
                "Run `apt-get install python3-bpfcc`; it serves /usr/bin/python3 and its children.",
            )
        if not self.sources:
            return f"the BPF programs are not in {SOURCES}.", "Install the agent again."
        return None


def probe_support() -> BpfSupport:
    """Looks once; loads nothing and changes nothing."""
    return BpfSupport(
        root=_may_trace(),
        btf=os.access(BTF_PATH, os.R_OK),
        bcc=_has_bcc(),
        python=sys.executable,
        lockdown=_lockdown(Path("/sys/kernel/security/lockdown")),
        sources=(SOURCES / "witness.c").is_file(),
        machine=platform.machine(),
    )


def _may_trace() -> bool:
    for line in (
        Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    ):
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            both = 1 << _CAP_BPF | 1 << _CAP_PERFMON
            return bool(bits >> _CAP_SYS_ADMIN & 1) or bits & both == both
    return os.geteuid() == 0


def _has_bcc() -> bool:
    """PyPI's `bcc` is an unrelated package: a submodule tells them apart, unimported."""
    try:
        spec = importlib.util.find_spec("bcc")
    except (ImportError, ValueError):
        return False
    places = (spec.submodule_search_locations if spec else None) or ()
    return any((Path(place) / "libbcc.py").is_file() for place in places)


def _lockdown(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="ascii")
    except OSError:
        return None
    start, end = text.find("["), text.find("]")
    return text[start + 1 : end] if 0 <= start < end else None
