#!/usr/bin/env bash
# Builds, loads and verifies the two kernel modules, or unloads them; see usage().
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
umask 022

readonly MODULES=(sysinfo continfo)

readonly E_USAGE=2 E_ROOT=3 E_KERNEL=4 E_TOOLS=5 E_HEADERS=6 E_LOCKED=7 E_BUILD=8 E_LOAD=9
readonly E_VERIFY=10 E_UNLOAD=11

usage() {
    cat <<'END'
Usage: load_modules.sh [--build-only | --unload | --print-dir | -h]

Without an option: builds sysinfo.ko and continfo.ko if they are not built yet, loads them in
place of what is loaded under their names, and checks both /proc files. A module that is loaded
already and is the same is left as it is. What a failed run has loaded it unloads.

  --build-only  only build, and print the directory; KDIR and KERNEL_RELEASE name another kernel
  --unload      unload both, whoever loaded them
  --print-dir   print the directory where the modules of this source are, or would be, built
  -h, --help    this text

Environment:
  SO1_BUILD_ROOT     where modules are built: DIR/<kernel release>/<source hash>/
                     (default /var/lib/so1/build)
  KERNEL_RELEASE     default: the running kernel's
  KDIR               default: /lib/modules/<kernel release>/build
  SO1_SYSINFO_ENTRY, SO1_CONTINFO_ENTRY
                     names in /proc (default sysinfo_so1_202300539, continfo_so1_202300539)
  SO1_MODULE_MODE    permissions of the /proc files: 0444 (default), 0440 or 0400
  SO1_MAX_SNAPSHOTS  snapshots of each file held at once (default 64)
  SO1_PARENT         load nothing unless the process of this number still waits for it
  SO1_SIGN_KEY, SO1_SIGN_CERT
                     key and certificate (DER) to sign with where the kernel takes signed modules
                     only (default: those of shim-signed or DKMS, /var/lib/dkms/mok.key and mok.pub)

Exit status: 0 done; 2 wrong usage; 3 not root; 4 this kernel takes no modules; 5 no compiler or
make; 6 no kernel headers; 7 the kernel takes signed modules only; 8 the build failed; 9 a module
could not be loaded; 10 a module or /proc file is not as it should be; 11 a module cannot be
unloaded. The last line on stderr is then one sentence that says what to do.
END
}

say() { printf 'load_modules: %s\n' "$*" >&2; }

# fail STATUS SENTENCE: the sentence is printed last, when everything is undone.
fail() {
    last_words=$2
    exit "$1"
}

# How long a removal may take. Both, and the wait for another run, fit into the agent's 60 seconds.
readonly REMOVAL_S=20 REMOVAL_TRIES=6

last_words=
aside=
turn=
loaded=()

# Undoes what this run did; on success nothing is left to undo.
finish() {
    local status=$? name
    trap - EXIT
    [[ -z $aside ]] || rm -rf -- "$aside"
    if ((status)); then
        for name in "${loaded[@]}"; do
            try_unload "$name" || say "$why"
        done
        printf '%s\n' "${last_words:-load_modules.sh was ended with status $status}" >&2
    fi
    exit "$status"
}

setting() { # setting PARAMETER MODULE: the value a module parameter is to have
    local entry="SO1_${2^^}_ENTRY"
    case $1 in
    entry) printf '%s' "${!entry:-$2_so1_202300539}" ;;
    mode) printf '%s' "${SO1_MODULE_MODE:-0444}" ;;
    max_snapshots) printf '%s' "${SO1_MAX_SNAPSHOTS:-64}" ;;
    esac
}

check_settings() {
    local name entry
    for name in "${MODULES[@]}"; do
        entry=$(setting entry "$name")
        [[ $entry =~ ^"$name"[A-Za-z0-9_-]*$ ]] || fail $E_USAGE \
            "SO1_${name^^}_ENTRY has to begin with $name, with letters, digits, _ or - after it."
    done
    [[ $(setting mode "") =~ ^0(400|440|444)$ ]] ||
        fail $E_USAGE "SO1_MODULE_MODE has to be 0400, 0440 or 0444."
    [[ $(setting max_snapshots "") =~ ^[1-9][0-9]{0,3}$ ]] ||
        fail $E_USAGE "SO1_MAX_SNAPSHOTS has to be a number from 1 to 4096."
}

sources() { # sources [DIR]
    (cd "${1:-$source_dir}" && printf '%s\n' Kbuild Makefile dkms.conf ./*.c ./*.h probe/*.c | sort)
}

source_hash() { # source_hash [DIR]
    (cd "${1:-$source_dir}" && sources "$PWD" | xargs sha256sum --) | sha256sum | cut -c 1-16
}

install_hint() { # install_hint DEBIAN-PACKAGES OTHERS: the command that brings them
    if have apt-get; then
        printf 'run: sudo apt-get install -y %s' "$1"
    else
        printf 'install %s' "$2"
    fi
}

# bash finds what cannot be executed too, where there is nothing better.
have() {
    local path
    path=$(type -P "$1") && [[ -x $path ]]
}

require_root() {
    ((EUID == 0)) || fail $E_ROOT "Kernel modules take root: run sudo $self${1:+ $1}."
}

require_modular_kernel() {
    [[ -e /proc/modules ]] || fail $E_KERNEL \
        "The kernel $release is built without loadable modules: boot a distribution's kernel, or run the agent with --source psutil."
    [[ $(cat /proc/sys/kernel/modules_disabled 2>/dev/null || echo 0) == 0 ]] || fail $E_KERNEL \
        "Loading modules is switched off until the next boot (kernel.modules_disabled): reboot, and see who sets it in /etc/sysctl.d."
    local tool
    for tool in insmod rmmod modinfo; do
        have "$tool" ||
            fail $E_TOOLS "$tool is missing: $(install_hint kmod kmod)."
    done
}

# Whether the running kernel refuses modules without a signature it knows.
signed_only() {
    grep -Eqs '\[(integrity|confidentiality)\]' /sys/kernel/security/lockdown ||
        grep -qsx Y /sys/module/module/parameters/sig_enforce
}

secure_boot() {
    have mokutil && mokutil --sb-state 2>/dev/null | grep -q 'SecureBoot enabled'
}

require_signing_key() {
    local shim=/var/lib/shim-signed/mok/MOK dkms=/var/lib/dkms/mok
    if [[ -n ${SO1_SIGN_KEY:-} || -n ${SO1_SIGN_CERT:-} ]]; then
        signing_key=${SO1_SIGN_KEY:-} signing_cert=${SO1_SIGN_CERT:-}
    elif [[ -r $shim.priv && -r $shim.der ]]; then # Ubuntu makes and enrols these
        signing_key=$shim.priv signing_cert=$shim.der
    else
        signing_key=$dkms.key signing_cert=$dkms.pub
    fi
    local why="This kernel is locked down and takes signed modules only"
    if secure_boot; then
        why="Secure Boot is on: this kernel takes signed modules only"
    fi
    [[ -r $signing_key && -r $signing_cert ]] || fail $E_LOCKED \
        "$why, and there is no key to sign with: run: sudo apt-get install -y mokutil openssl && sudo mkdir -p ${dkms%/*} && sudo openssl req -new -x509 -newkey rsa:2048 -nodes -days 36500 -subj /CN=DKMS/ -outform DER -keyout $dkms.key -out $dkms.pub && sudo mokutil --import $dkms.pub, then reboot and confirm the key."
    if have mokutil && mokutil --test-key "$signing_cert" 2>/dev/null |
        grep -q 'is not enrolled'; then
        fail $E_LOCKED \
            "$why, and it does not know the key $signing_cert yet: run: sudo mokutil --import $signing_cert, then reboot and confirm the key."
    fi
}

require_build_tools() {
    local compiler=gcc
    # Debian's headers name the compiler their kernel was built with.
    if [[ -r $kdir/.kernelvariables ]]; then
        compiler=$(sed -n 's/^override CC = .*[ )]\([a-z][^ )]*\)$/\1/p' "$kdir/.kernelvariables")
    elif grep -qsx 'CONFIG_CC_IS_CLANG=y' "$kdir/include/config/auto.conf"; then
        compiler=clang
        make_options+=(LLVM=1)
    fi
    compiler=${compiler:-gcc}
    have make ||
        fail $E_TOOLS "make is missing: $(install_hint "make $compiler" "make and $compiler")."
    have "$compiler" || fail $E_TOOLS \
        "The compiler $compiler is missing, which the kernel $release was built with: $(install_hint "$compiler" "$compiler")."
}

require_headers() {
    [[ -e $kdir/Makefile ]] || fail $E_HEADERS \
        "The headers of the kernel $release are missing (no $kdir): $(install_hint "linux-headers-$release" "the kernel headers (kernel-devel) of $release")."
    [[ -e $kdir/include/config/auto.conf && -x $kdir/scripts/mod/modpost ]] || fail $E_HEADERS \
        "The kernel tree $kdir is not built or only in part: $(install_hint "--reinstall linux-headers-$release" "the kernel headers of $release again")."
}

# built DIR: whether DIR holds both modules, whole, for this kernel, signed if they must be.
built() {
    local name
    for name in "${MODULES[@]}"; do
        [[ -s $1/$name.ko && -s $1/$name.srcversion ]] || return 1
        if ((must_sign)); then
            # What sign-file appends ends in this line (include/linux/module_signature.h).
            tail -c 28 "$1/$name.ko" | grep -q '~Module signature appended~' || return 1
        fi
    done
    (cd "$1" && sha256sum --check --status SHA256SUMS 2>/dev/null)
}

build() {
    local target=$1 parent name
    parent=$(dirname "$target")
    mkdir -p "$parent" 2>/dev/null ||
        fail $E_BUILD "The directory $parent cannot be made: run as root, or set SO1_BUILD_ROOT."
    exec {build_lock}>"$parent/.lock" ||
        fail $E_BUILD "The directory $parent cannot be written: run as root, or set SO1_BUILD_ROOT."
    flock "$build_lock"
    if built "$target"; then # by another run meanwhile
        exec {build_lock}>&-
        return
    fi
    require_headers
    require_build_tools

    say "building for $release"
    rm -rf -- "$parent"/.aside-* # of a run that was killed; the lock is ours
    aside=$(mktemp -d "$parent/.aside-XXXXXX")
    chmod 0755 "$aside"
    mkdir "$aside/work"
    (cd "$source_dir" && sources | xargs cp --parents -t "$aside/work" --)
    if ! make -C "$kdir" M="$aside/work" "${make_options[@]}" modules \
        >"$aside/build.log" 2>&1 </dev/null {build_lock}>&-; then
        mv -f "$aside/build.log" "$parent/failed.log"
        fail $E_BUILD "The modules do not build for $release ($(build_error "$parent/failed.log")); the whole output is in $parent/failed.log."
    fi
    for name in "${MODULES[@]}"; do
        mv "$aside/work/$name.ko" "$aside/"
        srcversion_of "$aside/$name.ko" "$aside/work/$name.mod.c" >"$aside/$name.srcversion"
        sign "$aside/$name.ko"
    done
    rm -rf "$aside/work"
    (cd "$aside" && sha256sum -- *.ko >SHA256SUMS)
    sync -f "$aside"
    rm -rf -- "$target"
    mv -T "$aside" "$target"
    aside=
    rm -f "$parent/failed.log"
    exec {build_lock}>&-
    say "built $target"
}

# The first error of a build, without control characters, short enough for a sentence.
build_error() {
    local line
    line=$(grep -m 1 -E 'error:|\*\*\*|[Nn]o such file|not found' "$1" || tail -n 1 "$1")
    printf '%s' "${line:-no output}" | tr -d '[:cntrl:]' | cut -c 1-200
}

# modpost writes it into the generated source too, which needs no modinfo on a build machine.
srcversion_of() { # srcversion_of KO GENERATED
    sed -n 's/^MODULE_INFO(srcversion, "\([0-9A-F]*\)");$/\1/p' "$2" | grep . ||
        modinfo -F srcversion "$1"
}

sign() {
    ((must_sign)) || return 0
    local tool=$kdir/scripts/sign-file hash
    [[ -x $tool ]] || fail $E_LOCKED \
        "The tool that signs modules is missing ($tool): $(install_hint "linux-headers-$release" "the kernel headers of $release")."
    hash=$(sed -n 's/^CONFIG_MODULE_SIG_HASH="\(.*\)"$/\1/p' "$kdir/include/config/auto.conf")
    "$tool" "${hash:-sha256}" "$signing_key" "$signing_cert" "$1" >&2 ||
        fail $E_LOCKED "$1 could not be signed with $signing_key: see the line above."
}

# What root loads must be writable by root alone, the files and all the way to them.
require_trusted() {
    local path=$1 owner mode
    local -a paths=("$1"/*.ko)
    while [[ $path != / ]]; do
        paths+=("$path")
        path=$(dirname "$path")
    done
    while read -r owner mode path; do
        # Others may write to a directory only where they cannot replace what is not theirs.
        if [[ $owner != 0 ]] || (((8#$mode & 8#022) && !(8#$mode & 8#1000))); then
            fail $E_LOAD "$path can be written by others than root: run: sudo chown root: $path && sudo chmod go-w $path."
        fi
    done < <(stat -L -c '%u %a %n' "${paths[@]}")
}

parameter_matches() { # parameter_matches MODULE PARAMETER
    local now want
    now=$(cat "/sys/module/$1/parameters/$2" 2>/dev/null) || return 1
    want=$(setting "$2" "$1")
    [[ $2 != mode ]] || want=$((8#$want))
    [[ $now == "$want" ]]
}

is_loaded() { [[ -e /sys/module/$1/initstate ]]; }

is_current() { # is_current MODULE: loaded from this source, with these settings
    local parameter
    is_loaded "$1" || return 1
    ! is_going "$1" || return 1
    [[ $(cat "/sys/module/$1/srcversion" 2>/dev/null) == "$(cat "$dir/$1.srcversion")" ]] || return 1
    for parameter in entry mode max_snapshots; do
        parameter_matches "$1" "$parameter" || return 1
    done
}

# users PATH...: «name (pid), name (pid)» of the processes, apart from us, that have one of the files
# open, at most five; nothing where there is none. With -l only those that hold a lock on it.
users() (
    local path fd pid comm found="" locked=""
    local -a wanted=()
    local -i count=0
    [[ $1 != -l ]] || { locked=1 && shift; }
    for path in "$@"; do
        wanted+=(-o -lname "$path" -o -lname "$path (deleted)")
    done
    # Ours, and not to be inherited by what looks for others'.
    [[ -z $turn ]] || exec {turn}>&-
    while read -r fd; do
        pid=${fd#/proc/} pid=${pid%%/*}
        [[ $pid != "$$" && $found != *"($pid)"* ]] || continue
        [[ -z $locked ]] || grep -qs '^lock:' "/proc/$pid/fdinfo/${fd##*/}" || continue
        comm=$(tr -d '[:cntrl:]' 2>/dev/null <"/proc/$pid/comm") || continue
        count+=1
        ((count > 5)) || found+="${found:+, }${comm:-?} ($pid)"
    done < <(find /proc/[0-9]*/fd -maxdepth 1 "(" "${wanted[@]:1}" ")" -print 2>/dev/null)
    ((count <= 5)) || found+=" and $((count - 5)) more"
    printf '%s' "$found"
)

# take_turn SECONDS: two runs at once would each load and undo what the other does. A program that we
# leave behind must not inherit the lock, or it would hold up every later run.
take_turn() {
    local by
    mkdir -p /run/so1
    exec {turn}>/run/so1/modules.lock
    flock -w "$1" "$turn" && return
    by=$(users -l /run/so1/modules.lock)
    fail $E_LOAD "The modules are being loaded or unloaded by ${by:-another program} since more than $1 s: wait until that has ended, or end it, and try again."
}

# An agent that was killed meanwhile is cleaned up after, and what is loaded then would stay. Whoever
# cleans up waits for our turn to end, so that after this no more than a look is needed.
require_parent() {
    [[ -z ${SO1_PARENT:-} ]] ||
        grep -qsx "PPid:[[:space:]]*$SO1_PARENT" "/proc/$$/status" ||
        fail $E_LOAD "The agent that asked for the modules has ended: run it again."
}

files_of() { # files_of MODULE: where it may be read
    printf '%s\n' "/proc/$(setting entry "$1")" "/proc/$1_so1_202300539" | sort -u
}

# held MODULE: the sentence on a module whose removal waits for a reader. The kernel waits for each
# read that has begun; one whose buffer is never filled, as on a dead network file system, lasts.
held() {
    local by pids
    local -a files
    mapfile -t files < <(files_of "$1")
    by=$(users "${files[@]}")
    pids=$(grep -Eo '\([0-9]+\)' <<<"$by" | tr -d '()' | tr '\n' ' ') || true
    printf '%s' "The module $1 is being removed and waits for a read of its file that has not ended"
    if [[ $by ]]; then
        printf '%s' ", by $by: end it with: sudo kill -9 ${pids% }; the removal then ends by itself."
    else
        printf '%s' ", by no process that could be found: see: sudo dmesg; it may take a reboot."
    fi
}

# is_going MODULE: somebody's rmmod of it has begun and not ended.
is_going() { [[ $(cat "/sys/module/$1/initstate" 2>/dev/null) == going ]]; }

# await_removal MODULE: an rmmod that another run left behind may be about to end.
await_removal() {
    local -i tries=$((REMOVAL_S * 10))
    while is_going "$1"; do
        ((tries-- > 0)) || return 1
        sleep 0.1
    done
}

# holders MODULE: «name (pid), …» of the readers that keep it loaded at this moment, as it says itself.
holders() {
    local pid comm found=
    local -a pids=()
    read -ra pids 2>/dev/null <"/sys/module/$1/parameters/holders" || true
    for pid in "${pids[@]}"; do
        [[ $pid =~ ^[0-9]+$ ]] || continue
        comm=$(tr -d '[:cntrl:]' 2>/dev/null <"/proc/$pid/comm") || comm=
        found+="${found:+, }${comm:-?} ($pid)"
    done
    printf '%s' "$found"
}

# try_unload MODULE: unloads it, or leaves why not in `why`. An rmmod that waits for a reader cannot
# be ended by anybody: after a while it is left to itself, without our lock or our output.
try_unload() {
    local said by status=
    local -i attempt
    why=
    is_loaded "$1" || return 0
    if is_going "$1"; then
        await_removal "$1" || { why=$(held "$1"); return 1; }
        return 0
    fi
    # An ordinary reader keeps it for moments: what is in use is tried again for a while.
    for ((attempt = 0; attempt < REMOVAL_TRIES; attempt++)); do
        ((attempt == 0)) || sleep 0.5
        exec {answer}< <(
            exec 2>&1 {turn}>&-
            rmmod "$1" || echo "status $?"
            echo end
        )
        said=
        while read -r -t "$REMOVAL_S" -u "$answer" status; do
            [[ $status != end ]] || break
            said+="$status "
        done
        exec {answer}<&-
        [[ $said == *"in use"* ]] || break
    done
    if is_going "$1"; then
        why=$(held "$1")
        return 1
    fi
    if [[ $status != end || $said == *"status "* ]]; then
        by=$(holders "$1")
        if [[ -n $by ]]; then
            why="The module $1 stays loaded: a read of $by keeps it. End that, then run: sudo rmmod $1."
            return 1
        fi
        said=${said%%status *} said=${said##*: }
        why="The module $1 cannot be unloaded (${said:-no answer}): see what uses it with lsmod, then run: sudo rmmod $1."
        why=${why/ ):/):}
        return 1
    fi
    say "unloaded $1"
}

unload() { # unload MODULE
    try_unload "$1" || fail $E_UNLOAD "$why"
}

load() { # load MODULE
    local said parameter
    local -a options=()
    for parameter in entry mode max_snapshots; do
        options+=("$parameter=$(setting "$parameter" "$1")")
    done
    if said=$(insmod "$dir/$1.ko" "${options[@]}" 2>&1); then
        loaded+=("$1")
        say "loaded $1"
        return
    fi
    said=${said##*: }
    case $said in
    *"Key was rejected"* | *"Required key not available"*)
        fail $E_LOCKED "The kernel does not know the key that $1 is signed with ($said): run: sudo mokutil --import ${signing_cert:-/var/lib/dkms/mok.pub}, then reboot and confirm the key." ;;
    *"Operation not permitted"*)
        fail $E_LOAD "The kernel lets nobody load $1 here ($said): run it on the host, not in a container." ;;
    *"Invalid module format"*)
        fail $E_LOAD "$1.ko does not fit the running kernel ($said), as after an update of the headers alone: reboot, or run: sudo rm -r $dir, and try again." ;;
    *)
        fail $E_LOAD "The module $1 cannot be loaded ($said): see the end of: sudo dmesg." ;;
    esac
}

verify() { # verify MODULE FIRST-CHARACTER
    local path first
    path=/proc/$(setting entry "$1")
    [[ $(cat "/sys/module/$1/initstate" 2>/dev/null) == live ]] ||
        fail $E_VERIFY "The module $1 is loaded but not live: see the end of: sudo dmesg."
    [[ -e $path ]] || fail $E_VERIFY "The module $1 is loaded but $path is not there: see the end of: sudo dmesg."
    first=$(head -c 1 "$path" 2>&1) || fail $E_VERIFY \
        "$path cannot be read (${first##*: }): a /proc of another PID namespace, as in a container, shows it but gives nothing."
    [[ $first == "$2" ]] || fail $E_VERIFY "$path does not begin with $2: see the end of: sudo dmesg."
}

load_all() {
    local name
    require_root
    [[ $release == "$(uname -r)" ]] ||
        fail $E_USAGE "KERNEL_RELEASE is for --build-only: the running kernel is $(uname -r)."
    require_modular_kernel
    if signed_only; then
        must_sign=1
        require_signing_key
    fi
    built "$dir" || take_from_dkms "$dir" "$release" "$source_dir" || true
    built "$dir" || build "$dir"
    require_trusted "$dir"
    take_turn 120
    require_parent
    for name in continfo sysinfo; do
        is_current "$name" || unload "$name"
    done
    for name in "${MODULES[@]}"; do
        is_loaded "$name" || load "$name"
    done
    verify sysinfo '{'
    verify continfo '['
}

# One that is held keeps the other from nothing.
unload_all() {
    require_root --unload
    local name left=
    take_turn 15
    for name in continfo sysinfo; do
        try_unload "$name" || left+="${left:+ }$why"
    done
    [[ -z $left ]] || fail $E_UNLOAD "$left"
}

main() {
    local action=load
    case ${1:-} in
    "") ;;
    --build-only | --unload | --print-dir) action=${1#--} ;;
    -h | --help)
        usage
        exit 0 ;;
    *)
        fail $E_USAGE "Unknown option $1: see $self --help." ;;
    esac
    (($# <= 1)) || fail $E_USAGE "One option at most: see $self --help."
    check_settings
    if [[ $action == unload ]]; then
        unload_all
        return
    fi
    local here
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
    source_dir=$here/../kernel/modules
    [[ -e $source_dir/Kbuild ]] ||
        fail $E_BUILD "The modules' sources are missing (no $source_dir): install the agent again."
    dir=${SO1_BUILD_ROOT:-/var/lib/so1/build}/$release/$(source_hash)
    case $action in
    load)
        # shellcheck source=bash/lib/dkms_modules.sh
        source "$here/lib/dkms_modules.sh"
        load_all ;;
    build-only)
        built "$dir" || build "$dir"
        printf '%s\n' "$dir" ;;
    print-dir) printf '%s\n' "$dir" ;;
    esac
}

self=$0
release=${KERNEL_RELEASE:-$(uname -r)}
kdir=${KDIR:-/lib/modules/$release/build}
must_sign=0
make_options=()
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
main "$@"
