# shellcheck shell=bash disable=SC2154 # what is not set here is load_modules.sh's
# For load_modules.sh: what the package so1-modules-dkms has built for a kernel already, with DKMS's
# signature, is taken instead of building it again.

# unpacked FILE: the module in it; 1 where there is none.
unpacked() {
    case $1 in
        *.ko) cat "$1" ;;
        *.ko.xz) xz -dc "$1" ;;
        *.ko.zst) zstd -qdc "$1" ;;
        *.ko.gz) gzip -dc "$1" ;;
        *) return 1 ;;
    esac
}

# take_from_dkms TARGET RELEASE SOURCES: puts both modules into TARGET. 1 where DKMS has none of these
# very sources for RELEASE. Uses the loader's MODULES, source_hash, put_in_place and `aside`.
take_from_dkms() {
    local target=$1 release=$2 sources=$3 version name file parent
    local from=${SO1_DKMS_MODULES:-/lib/modules/$release/updates/dkms} theirs
    version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"$/\1/p' "$sources/dkms.conf")
    theirs=${SO1_DKMS_SOURCES:-/usr/src}/so1-$version
    [[ -e $theirs/Kbuild && $(source_hash "$theirs") == "$(source_hash "$sources")" ]] || return 1
    parent=$(dirname "$target")
    mkdir -p "$parent" 2>/dev/null || return 1
    aside=$(mktemp -d "$parent/.aside-XXXXXX") || return 1
    chmod 0755 "$aside"
    for name in "${MODULES[@]}"; do
        file=$(find "$from" -maxdepth 1 -name "$name.ko*" -print -quit 2>/dev/null)
        if ! unpacked "$file" >"$aside/$name.ko" \
            || ! modinfo -F srcversion "$aside/$name.ko" >"$aside/$name.srcversion"; then
            rm -rf -- "$aside"
            aside=
            return 1
        fi
    done
    put_in_place "$target"
    say "took what DKMS has built for $release"
}
