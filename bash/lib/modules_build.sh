# shellcheck shell=bash disable=SC2154 # what is not set here is load_modules.sh's
# Building the two modules for a kernel, signed where it takes signed ones only. Uses load_modules.sh's
# say, fail, have, install_hint and its $source_dir, $release, $kdir, $MODULES.

sources() { # sources [DIR]
    (cd "${1:-$source_dir}" && printf '%s\n' Kbuild Makefile dkms.conf ./*.c ./*.h probe/*.c | sort)
}

source_hash() { # source_hash [DIR]
    (cd "${1:-$source_dir}" && sources "$PWD" | xargs sha256sum --) | sha256sum | cut -c 1-16
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
    [[ -r $signing_key && -r $signing_cert ]] || fail "$E_LOCKED" \
        "$why, and there is no key to sign with: run: sudo apt-get install -y mokutil openssl && sudo mkdir -p ${dkms%/*} && sudo openssl req -new -x509 -newkey rsa:2048 -nodes -days 36500 -subj /CN=DKMS/ -outform DER -keyout $dkms.key -out $dkms.pub && sudo mokutil --import $dkms.pub, then reboot and confirm the key."
    if have mokutil && mokutil --test-key "$signing_cert" 2>/dev/null |
        grep -q 'is not enrolled'; then
        fail "$E_LOCKED" \
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
        fail "$E_TOOLS" "make is missing: $(install_hint "make $compiler" "make and $compiler")."
    have "$compiler" || fail "$E_TOOLS" \
        "The compiler $compiler is missing, which the kernel $release was built with: $(install_hint "$compiler" "$compiler")."
}

require_headers() {
    [[ -e $kdir/Makefile ]] || fail "$E_HEADERS" \
        "The headers of the kernel $release are missing (no $kdir): $(install_hint "linux-headers-$release" "the kernel headers (kernel-devel) of $release")."
    [[ -e $kdir/include/config/auto.conf && -x $kdir/scripts/mod/modpost ]] || fail "$E_HEADERS" \
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
        fail "$E_BUILD" "The directory $parent cannot be made: run as root, or set SO1_BUILD_ROOT."
    exec {build_lock}>"$parent/.lock" ||
        fail "$E_BUILD" "The directory $parent cannot be written: run as root, or set SO1_BUILD_ROOT."
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
        fail "$E_BUILD" "The modules do not build for $release ($(build_error "$parent/failed.log")); the whole output is in $parent/failed.log."
    fi
    for name in "${MODULES[@]}"; do
        mv "$aside/work/$name.ko" "$aside/"
        srcversion_of "$aside/$name.ko" "$aside/work/$name.mod.c" >"$aside/$name.srcversion"
        sign "$aside/$name.ko"
    done
    rm -rf "$aside/work"
    put_in_place "$target"
    rm -f "$parent/failed.log"
    exec {build_lock}>&-
    say "built $target"
}

# put_in_place TARGET: what is in `aside` becomes TARGET, with checksums, on the disk before it is there.
put_in_place() {
    (cd "$aside" && sha256sum -- *.ko >SHA256SUMS)
    sync -f "$aside"
    rm -rf -- "$1"
    mv -T "$aside" "$1"
    aside=
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
    [[ -x $tool ]] || fail "$E_LOCKED" \
        "The tool that signs modules is missing ($tool): $(install_hint "linux-headers-$release" "the kernel headers of $release")."
    hash=$(sed -n 's/^CONFIG_MODULE_SIG_HASH="\(.*\)"$/\1/p' "$kdir/include/config/auto.conf")
    "$tool" "${hash:-sha256}" "$signing_key" "$signing_cert" "$1" >&2 ||
        fail "$E_LOCKED" "$1 could not be signed with $signing_key: see the line above."
}
