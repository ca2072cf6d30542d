"""The checks on the kernel: does it take our modules and our BPF programs, and are they there?"""

from __future__ import annotations

from agent.config import Config, SourceChoice
from agent.doctor.check import AS_ROOT, Check, State, look_again
from agent.doctor.facts import Facts
from agent.place import INSTALL

_KMOD = ("insmod", "rmmod", "modinfo")


def kernel(facts: Facts, config: Config) -> Check:
    modules = facts.modules
    if config.source is SourceChoice.PSUTIL:
        return _not_wanted("kernel")
    if facts.proc_problem and not modules.takes_modules:
        return Check(
            "kernel", State.UNKNOWN, f"{modules.release} takes modules or not", "see /proc"
        )
    if not modules.takes_modules:
        return Check(
            "kernel",
            _without_modules(config),
            f"{modules.release} is built without loadable modules; psutil reads processes",
            'boot a distribution\'s kernel, or set source = "psutil"',
        )
    if modules.disabled:
        return Check(
            "kernel",
            _without_modules(config),
            "loading modules is switched off until the next boot (kernel.modules_disabled)",
            "reboot, and see who sets it: grep -r modules_disabled /etc/sysctl.d",
        )
    return Check("kernel", State.OK, f"{modules.release} takes modules")


def headers(facts: Facts, config: Config) -> Check:
    modules = facts.modules
    if config.source is SourceChoice.PSUTIL:
        return _not_wanted("headers")
    if modules.headers:
        return Check("headers", State.OK, f"those of {modules.release} are there")
    if not _modules_possible(facts):
        return Check("headers", State.OK, "none, and no module can be loaded anyway")
    if modules.built:
        return Check("headers", State.OK, "none, but the modules are built already")
    return Check(
        "headers",
        _without_modules(config),
        f"those of {modules.release} are missing",
        f"sudo apt-get install -y linux-headers-{modules.release}",
    )


def build_tools(facts: Facts, config: Config) -> Check:
    modules = facts.modules
    if config.source is SourceChoice.PSUTIL:
        return _not_wanted("build tools")
    if not modules.missing_tools:
        return Check("build tools", State.OK, "make, compiler, kmod")
    if not _modules_possible(facts):
        return Check("build tools", State.OK, "some missing, and no module can be loaded anyway")
    loaders = [tool for tool in modules.missing_tools if tool in _KMOD]
    builders = [tool for tool in modules.missing_tools if tool not in _KMOD]
    if modules.built and not loaders:
        return Check("build tools", State.OK, "some missing, but the modules are built already")
    packages = [*builders, *(["kmod"] if loaders else [])]
    return Check(
        "build tools",
        _without_modules(config),
        f"missing: {', '.join(modules.missing_tools)}",
        f"sudo apt-get install -y {' '.join(packages)}",
    )


def signing(facts: Facts, config: Config) -> Check:
    signing = facts.signing
    name = "module signing"
    if config.source is SourceChoice.PSUTIL:
        return _not_wanted(name)
    secure_boot = {True: "Secure Boot is on", False: "Secure Boot is off", None: ""}
    lockdown = "" if signing.lockdown is None else f"lockdown {signing.lockdown}"
    said = ", ".join(word for word in (secure_boot[signing.secure_boot], lockdown) if word)
    if not _modules_possible(facts):
        return Check(name, State.OK, said or "no module can be loaded anyway")
    if not signing.required:
        if signing.lockdown is None and signing.enforced is None:
            remedy = look_again(
                root=facts.root, else_by="sudo mount -t securityfs securityfs /sys/kernel/security"
            )
            return Check(name, State.UNKNOWN, said or "could not be looked at", remedy)
        return Check(name, State.OK, f"{said}: unsigned modules are taken".lstrip(": "))
    why = f"{said or 'module.sig_enforce'}: only signed modules are taken"
    if signing.key is False:
        return Check(
            name,
            _without_modules(config),
            f"{why}, and there is no key to sign with",
            "sudo apt-get install -y mokutil openssl && sudo mkdir -p /var/lib/dkms && "
            "sudo openssl req -new -x509 -newkey rsa:2048 -nodes -days 36500 -subj /CN=DKMS/ "
            "-outform DER -keyout /var/lib/dkms/mok.key -out /var/lib/dkms/mok.pub && "
            "sudo mokutil --import /var/lib/dkms/mok.pub, then reboot and confirm the key",
        )
    if signing.enrolled is False:
        return Check(
            name,
            _without_modules(config),
            f"{why}, and the firmware does not know our key",
            f"sudo mokutil --import {signing.certificate}, then reboot and confirm the key",
        )
    if signing.key is None or signing.enrolled is None:
        return Check(
            name,
            State.UNKNOWN,
            f"{why}; whether ours is known is not",
            f"mokutil --test-key {signing.certificate}",
        )
    return Check(name, State.OK, f"{why}; ours is known")


def modules(facts: Facts, config: Config) -> Check:
    modules = facts.modules
    if config.source is SourceChoice.PSUTIL:
        return _not_wanted("modules")
    if len(modules.loaded) == 1:
        return Check(
            "modules",
            State.DEGRADED,
            f"only {modules.loaded[0]} is loaded; a start puts it right",
            "sudo agent cleanup",
        )
    if modules.loaded:
        if modules.ours is False:
            finding = "loaded, but from other sources; a start replaces them"
            return Check("modules", State.DEGRADED, finding, "sudo agent cleanup")
        if modules.entry_problem:
            return Check(
                "modules",
                _without_modules(config),
                f"loaded, but {modules.entry_problem}",
                "sudo agent cleanup",
            )
        known = "ours" if modules.ours else "whether they are ours is unknown"
        return Check("modules", State.OK, f"loaded, {known}")
    if not _modules_possible(facts):
        return Check("modules", _without_modules(config), "cannot be loaded", "see kernel")
    if modules.built is None:
        remedy = look_again(root=facts.root, else_by="sudo bash/load_modules.sh --print-dir")
        return Check("modules", State.UNKNOWN, "not loaded; built or not", remedy)
    if modules.built:
        return Check("modules", State.OK, "built, not loaded: a start loads them")
    if not modules.headers or modules.missing_tools:
        finding = "not built, and cannot be built"
        return Check("modules", _without_modules(config), finding, "see headers, build tools")
    return Check("modules", State.OK, "not built yet: the first start builds them")


def bpf(facts: Facts, config: Config) -> Check:
    bpf = facts.bpf
    if not config.bpf.enabled:
        return Check("BPF", State.OK, "not wanted (bpf.enabled = false)")
    if bpf.events is False:
        return Check(
            "BPF",
            State.DEGRADED,
            "the kernel is built without CONFIG_BPF_EVENTS; rows are unverified",
            "boot a distribution's kernel",
        )
    if bpf.problem:
        return Check("BPF", State.DEGRADED, f"{bpf.problem} Rows are unverified.", bpf.hint)
    if bpf.partial:
        remedy = "report what the agent logs as bpf=partial"
        return Check("BPF", State.DEGRADED, bpf.partial, remedy)
    if bpf.events is None:
        return Check("BPF", State.OK, "types are there; the kernel's configuration is not readable")
    return Check("BPF", State.OK, "the kernel has tracing and tells its types (BTF)")


def bcc(facts: Facts, config: Config) -> Check:
    if not config.bpf.enabled:
        return Check("BCC", State.OK, "not wanted (bpf.enabled = false)")
    if facts.bpf.bcc:
        return Check("BCC", State.OK, facts.bpf.bcc)
    finding = f"{facts.bpf.bcc_problem or 'cannot be imported'}; rows are unverified"
    remedy = "sudo apt-get install -y python3-bpfcc"
    return Check("BCC", State.DEGRADED, finding, remedy if facts.python.distribution else INSTALL)


def oom(facts: Facts, config: Config) -> Check:
    """What an OOM kill leaves behind."""
    log, symbols = facts.oom.has_log, facts.oom.has_symbols
    if log is None or symbols is None:
        return Check("OOM kills", State.UNKNOWN, "only root can look", AS_ROOT)
    has_bpf = config.bpf.enabled and not facts.bpf.problem and facts.bpf.events is not False
    if not has_bpf and not log:
        return Check(
            "OOM kills",
            State.DEGRADED,
            "neither BPF nor the kernel's log tells of them; only counters do",
            "see BPF; give the agent CAP_SYSLOG and /dev/kmsg",
        )
    if not has_bpf:
        return Check("OOM kills", State.OK, "reported by the kernel's log alone, without BPF")
    if not symbols:
        return Check(
            "OOM kills",
            State.DEGRADED,
            "the kernel hides where its functions are; a kill's cause is concluded, not seen",
            "sudo sysctl kernel.kptr_restrict=0, and CAP_SYSLOG for the agent",
        )
    if not log:
        return Check("OOM kills", State.OK, "seen by BPF; the kernel's log cannot be read")
    return Check("OOM kills", State.OK, "seen by BPF, checked by the kernel's log")


def _without_modules(config: Config) -> State:
    return State.MISSING if config.source is SourceChoice.MODULES else State.DEGRADED


def _not_wanted(name: str) -> Check:
    return Check(name, State.OK, "not needed (source psutil)")


def _modules_possible(facts: Facts) -> bool:
    return facts.modules.takes_modules and not facts.modules.disabled
