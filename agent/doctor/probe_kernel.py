"""Finds out what this kernel, its headers and its signing rules are like. Changes nothing."""

from __future__ import annotations

import dataclasses
import gzip
import os
import re
import sys
from pathlib import Path

from agent.actions import kernel_modules
from agent.config import Config
from agent.doctor.facts import BpfFacts, CgroupFacts, ModuleFacts, OomFacts, SigningFacts
from agent.errors import AgentError
from agent.util.subprocess import CommandError, find, run

_TOOL_TIMEOUT_S = 60.0
_EFI = Path("/sys/firmware/efi")
_SECURE_BOOT = "efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_KEYS = (
    (Path("/var/lib/shim-signed/mok/MOK.priv"), Path("/var/lib/shim-signed/mok/MOK.der")),
    (Path("/var/lib/dkms/mok.key"), Path("/var/lib/dkms/mok.pub")),
)
"""Key and certificate, in the order in which `load_modules.sh` looks for them."""
_DEBIAN_COMPILER = re.compile(r"^override CC = .*[ )]([a-z][^ )\n]*)$", re.MULTILINE)


def module_facts(config: Config) -> ModuleFacts:
    release = os.uname().release
    headers = Path("/lib/modules") / release / "build"
    wanted = ("make", _compiler(headers), "insmod", "rmmod", "modinfo")
    disabled = _text(Path("/proc/sys/kernel/modules_disabled"))
    loaded = kernel_modules.loaded()
    target = _build_directory(config)
    built = _is_built(target)
    return ModuleFacts(
        release=release,
        takes_modules=Path("/proc/modules").exists(),
        disabled=None if disabled is None else disabled == "1",
        headers=(headers / "Makefile").exists(),
        missing_tools=tuple(tool for tool in wanted if find(tool) is None),
        built=built,
        loaded=loaded,
        ours=_are_ours(loaded, target, built),
        entry_problem=_entry_problem(config) if loaded else None,
    )


def signing_facts() -> SigningFacts:
    lockdown = _text(Path("/sys/kernel/security/lockdown"))
    chosen = re.search(r"\[(\w+)\]", lockdown or "")
    enforced = _text(Path("/sys/module/module/parameters/sig_enforce"))
    found = [(_exists(*pair), pair[1]) for pair in _KEYS]
    key, certificate = next((one for one in found if one[0]), found[-1])
    facts = SigningFacts(
        secure_boot=_secure_boot(),
        lockdown=chosen[1] if chosen else None,
        enforced=None if enforced is None else enforced == "Y",
        key=key,
        enrolled=None,
        certificate=str(certificate),
    )
    if not facts.required or not facts.key or find("mokutil") is None:
        return facts
    try:
        done = run(
            ["mokutil", "--test-key", facts.certificate], timeout_s=_TOOL_TIMEOUT_S, check=False
        )
    except CommandError:
        return facts
    said = {
        True: "is already enrolled" in done.stdout,
        False: "is not enrolled" in done.stdout,
    }
    known = [answer for answer, heard in said.items() if heard]
    return dataclasses.replace(facts, enrolled=known[0] if len(known) == 1 else None)


def bpf_facts(config: Config) -> BpfFacts:
    from agent.sources.bpf.support import probe_support

    version, bcc_problem = _bcc() if config.bpf.enabled else ("", "not looked for")
    # BCC and rights have rows of their own, the first with what importing it really says.
    problem = dataclasses.replace(probe_support(), root=True, bcc=True).problem or ("", "")
    return BpfFacts(
        problem=problem[0],
        hint=problem[1],
        events=_kernel_has("CONFIG_BPF_EVENTS"),
        bcc=version,
        bcc_problem=bcc_problem,
        partial=_partial_probes(Path(config.paths.run)),
    )


def _partial_probes(run: Path) -> str:
    """By the running agent's own word: only a load tells what a kernel refuses."""
    from agent.daemon import status

    try:
        told = status.read(run)
    except AgentError:
        return ""
    word = told.bpf if told is not None else ""
    return word.removeprefix("ready: ") if word.startswith("ready: ") else ""


def oom_facts(*, root: bool) -> OomFacts:
    from agent.sources.bpf.ooms import kernel_symbols
    from agent.sources.kernel_log import KernelLog

    if not root:
        return OomFacts(None, None)
    log = KernelLog.open()
    if log is not None:
        log.close()
    return OomFacts(log is not None, kernel_symbols().known)


def cgroup_facts() -> CgroupFacts:
    from agent.model.container import Hierarchy
    from agent.sources.activity import io_problem
    from agent.sources.cgroup.layout import detect

    try:
        layout = detect()
    except AgentError as error:
        return CgroupFacts("", "", None, error.message, error.hint)
    io, psi = io_problem(layout), Path("/proc/pressure/memory").exists()
    if layout.hierarchy is Hierarchy.MEMORY_V1:
        return CgroupFacts(str(layout.mode), "memory", True, io_problem=io, has_psi=psi)
    controllers = _text(layout.root / "cgroup.controllers")
    memory = None if controllers is None else "memory" in controllers.split()
    return CgroupFacts(str(layout.mode), "default", memory, io_problem=io, has_psi=psi)


def _compiler(headers: Path) -> str:
    """The compiler that the kernel's headers ask for, as `load_modules.sh` finds it."""
    named = _DEBIAN_COMPILER.search(_text(headers / ".kernelvariables") or "")
    if named:
        return named[1]
    settings = _text(headers / "include/config/auto.conf") or ""
    return "clang" if "CONFIG_CC_IS_CLANG=y" in settings.splitlines() else "gcc"


def _build_directory(config: Config) -> Path | None:
    try:
        done = run(
            ["bash", str(kernel_modules.script()), "--print-dir"],
            timeout_s=_TOOL_TIMEOUT_S,
            env={"SO1_BUILD_ROOT": config.paths.build},
        )
    except CommandError:
        return None
    return Path(done.stdout.strip()) if done.stdout.startswith("/") else None


def _is_built(target: Path | None) -> bool | None:
    if target is None:
        return None
    return _exists(
        target / "SHA256SUMS", *(target / f"{name}.ko" for name in kernel_modules.MODULES)
    )


def _are_ours(loaded: tuple[str, ...], target: Path | None, built: bool | None) -> bool | None:
    if not loaded or target is None or built is None:
        return None
    return built and all(
        _text(Path("/sys/module") / name / "srcversion") == _text(target / f"{name}.srcversion")
        for name in loaded
    )


def _entry_problem(config: Config) -> str | None:
    for path in (config.modules.sysinfo_path, config.modules.continfo_path):
        try:
            with Path(path).open("rb") as file:
                if not file.read(1):
                    return f"{path} is empty"
        except PermissionError as error:
            return f"{path}: {error.strerror}" if os.geteuid() == 0 else None
        except OSError as error:
            return f"{path}: {error.strerror}"
    return ""


def _secure_boot() -> bool | None:
    """The firmware's variable: four bytes of attributes, then 1 or 0 (UEFI, Globally Defined)."""
    if not _EFI.exists():
        return False
    try:
        value = (_EFI / _SECURE_BOOT).read_bytes()
    except FileNotFoundError:
        return False if any((_EFI / "efivars").glob("*-*")) else None
    except OSError:
        return None
    return value[4] == 1 if len(value) >= 5 else None


def _kernel_has(option: str) -> bool | None:
    """Whether the kernel was built with `option`, None where its configuration is not readable."""
    release = os.uname().release
    for path in (Path("/proc/config.gz"), Path("/boot") / f"config-{release}"):
        try:
            data = path.read_bytes()
            text = gzip.decompress(data) if path.suffix == ".gz" else data
        except (OSError, EOFError, gzip.zlib.error):  # type: ignore[attr-defined]
            continue
        return f"\n{option}=y\n".encode() in b"\n" + text
    return None


def _bcc() -> tuple[str, str]:
    """BCC's version or what is wrong with it, found out in a process of its own: it is large."""
    code = "import bcc; bcc.BPF.TRACEPOINT; print(bcc.__version__)"
    try:
        done = run([sys.executable, "-I", "-c", code], timeout_s=_TOOL_TIMEOUT_S, check=False)
    except CommandError as error:
        return "", error.message
    if done.status == 0:
        return done.stdout.strip(), ""
    if "No module named 'bcc'" in done.stderr:
        return "", "not installed"
    if "AttributeError" in done.last_line:
        return "", "the bcc that Python finds is another package of that name"
    return "", f"cannot be imported: {done.last_line[:200]}"


def _exists(*paths: Path) -> bool | None:
    """Whether all are there; None where a directory on the way may not be looked into."""
    try:
        for path in paths:
            path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None
    return True


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
