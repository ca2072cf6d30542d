#!/usr/bin/env bash
# Builds, loads and verifies the two kernel modules, or unloads them; see usage().
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
umask 022

readonly MODULES=(sysinfo continfo)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
readonly here
# shellcheck source=bash/lib/modules_build.sh
source "$here/lib/modules_build.sh"
# shellcheck source=bash/lib/modules_removal.sh
source "$here/lib/modules_removal.sh"
# shellcheck source=bash/lib/dkms_modules.sh
source "$here/lib/dkms_modules.sh"

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
    source_dir=$here/../kernel/modules
    [[ -e $source_dir/Kbuild ]] ||
        fail $E_BUILD "The modules' sources are missing (no $source_dir): install the agent again."
    dir=${SO1_BUILD_ROOT:-/var/lib/so1/build}/$release/$(source_hash)
    case $action in
    load) load_all ;;
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
