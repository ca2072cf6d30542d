#!/usr/bin/env bash
# Builds the Debian packages so1-agent and so1-modules-dkms; see usage().
set -euo pipefail
export LC_ALL=C
umask 022

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly here root=${here%/packaging}
readonly PREFIX=/usr/lib/so1-agent LAUNCHER=/usr/bin/agent
# shellcheck source=bash/lib/install.sh
source "$root/bash/lib/install.sh"

usage() {
    cat <<'TEXT'
Usage: packaging/build.sh [-o DIR] [-s SUITE] [-a ARCHITECTURE] [-h]

Makes so1-agent_VERSION_ARCHITECTURE.deb and so1-modules-dkms_VERSION_all.deb in DIR (build/packages)
from this checkout, and prints their paths. Two builds of one checkout give the same bytes.

  -s SUITE         Debian's bookworm or trixie (default: this machine's)
  -a ARCHITECTURE  amd64 or arm64 (default: this machine's); nothing is compiled, so any machine will do
  -o DIR           where they go

It needs python3-venv, dpkg-deb and, the first time, a package index: every wheel is checked against
the hashes in requirements/*.txt and kept in SO1_PACKAGE_CACHE (~/.cache/so1/packages,
root: /var/cache/so1/packages).
SOURCE_DATE_EPOCH dates what is in them (default: the time of the last commit).
TEXT
}

say() { printf 'build.sh: %s\n' "$*" >&2; }

die() {
    say "$1"
    exit "${2:-1}"
}

# --- what is built --------------------------------------------------------------------------------

# The Python of each suite, and what its packages' versions end in: newer suites upgrade older ones.
python_of() {
    case $1 in
        bookworm) echo 3.11 ;;
        trixie) echo 3.13 ;;
        *) die "no package is made for the suite $1: there are bookworm and trixie" 2 ;;
    esac
}

suffix_of() {
    case $1 in
        bookworm) echo +deb12 ;;
        trixie) echo +deb13 ;;
    esac
}

machine_of() {
    case $1 in
        amd64) echo x86_64 ;;
        arm64) echo aarch64 ;;
        *) die "no package is made for the architecture $1: there are amd64 and arm64" 2 ;;
    esac
}

own_suite() { sed -n 's/^VERSION_CODENAME=//p' /etc/os-release; }

version_of_project() { sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml"; }

date_of_sources() {
    git -C "$root" log -1 --format=%ct 2>/dev/null || stat -c %Y "$root/CHANGELOG.md"
}

# --- wheels ---------------------------------------------------------------------------------------

# fetch_wheels LIST TARGET: the wheels of requirements/LIST.txt for the suite, each by its hash.
fetch_wheels() {
    local list=$1 target=$2 kept word
    local -a platforms=() options
    kept=$cache/wheels-$(sha256sum "$root/requirements/$list.txt" | cut -c 1-16)-$list-$python-$machine
    for word in manylinux2014 manylinux_2_{12,17,24,27,28,31,34,35,36}; do
        platforms+=(--platform "${word}_$machine")
    done
    options=(--quiet --disable-pip-version-check --no-input --no-deps --require-hashes
        --only-binary=:all: --implementation cp --python-version "$python" --abi "cp${python/./}"
        --abi abi3 --abi none "${platforms[@]}" -r "$root/requirements/$list.txt")
    if [[ ! -e $kept/.complete ]]; then
        rm -rf -- "$kept"
        "$tools" -m pip download "${options[@]}" -d "$kept"
        touch "$kept/.complete"
    fi
    # Once more, from what was kept: its hashes are checked again.
    "$tools" -m pip download "${options[@]}" --no-index --find-links "$kept" -d "$target"
}

# lay_out_environment NAME LIST SEES-SYSTEM: a virtual environment in the tree, as venv would make it
# there, with what the wheels hold. It is written by hand because the Python that will run it need
# not be on this machine.
lay_out_environment() {
    local place=$tree$PREFIX/$1 list=$2 sees=$3 site
    site=$place/lib/python$python/site-packages
    install -d "$place/bin" "$site"
    ln -s ../../../../bin/python3 "$place/bin/python"
    ln -s python "$place/bin/python3"
    printf 'home = /usr/bin\ninclude-system-site-packages = %s\nversion = %s\n' "$sees" "$python" \
        >"$place/pyvenv.cfg"
    fetch_wheels "$list" "$work/wheels-$list"
    /usr/bin/python3 -I "$here/unpack_wheels.py" "$work/wheels-$list" "$site"
}

# --- packages -------------------------------------------------------------------------------------

# documentation PACKAGE: what Debian's policy wants below /usr/share/doc.
documentation() {
    local place=$tree/usr/share/doc/$1
    install -d "$place"
    install -m 0644 "$here/copyright" "$place/copyright"
    {
        printf '%s (%s) unstable; urgency=medium\n\n  * See NEWS.gz.\n\n' "$1" "$version"
        printf ' -- %s  %s\n' "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")"
    } | gzip -9n >"$place/changelog.gz"
    gzip -9n <"$root/CHANGELOG.md" >"$place/NEWS.gz"
}

# control PACKAGE: fills the places of its control files.
control() {
    local file name
    install -d "$tree/DEBIAN"
    for file in "$here/$1"/*.in; do
        name=$(basename "$file" .in)
        sed -e "s|@VERSION@|$version|g" -e "s|@ARCHITECTURE@|$architecture|g" \
            -e "s|@MAINTAINER@|$maintainer|g" -e "s|@PYTHON@|$python|g" \
            -e "s|@NEXT_PYTHON@|${python%.*}.$((${python#*.} + 1))|g" \
            -e "s|@MODULES@|$modules|g" \
            -e "s|@SIZE@|$(du -k -s --apparent-size --exclude=DEBIAN "$tree" | cut -f 1)|g" "$file" \
            >"$tree/DEBIAN/$name"
        case $name in
            preinst | postinst | prerm | postrm) chmod 0755 "$tree/DEBIAN/$name" ;;
        esac
    done
    if [[ -e $here/$1/lintian-overrides ]]; then
        install -d "$tree/usr/share/lintian/overrides"
        install -m 0644 "$here/$1/lintian-overrides" "$tree/usr/share/lintian/overrides/$1"
    fi
    (cd "$tree" && find . -type f ! -path './DEBIAN/*' ! -path './etc/*' -printf '%P\0' | sort -z \
        | xargs -0 md5sum --) >"$tree/DEBIAN/md5sums"
}

# pack PACKAGE: the tree as a package, with nothing of when, where and by whom it was built.
pack() {
    local to=$output/$1_${version}_$architecture.deb
    find "$tree" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz --build "$tree" "$to.new" >/dev/null
    mv -f "$to.new" "$to"
    printf '%s\n' "$to"
}

build_agent() {
    local version tree=$work/so1-agent page name
    version=$project_version$(suffix_of "$suite")
    lay_out_environment venv run true
    for name in fleet cri; do
        lay_out_environment "$name" "$name" false
        link_source "$tree$PREFIX/$name" "$PREFIX/src"
    done
    install_tree "$root" "$PREFIX" "$LAUNCHER" "$tree"
    # The licence of all of it is in /usr/share/doc; what git would ignore is nobody's.
    find "$tree$PREFIX/src" -name .gitignore -delete
    # Nor is what was built in the checkout.
    find "$tree$PREFIX/src/kernel" -type f \( -name '*.o' -o -name '*.ko' -o -name '*.mod' -o -name '*.mod.c' \
        -o -name '.*.cmd' -o -name Module.symvers -o -name modules.order \) -delete
    install_documents "$tools" "$root" "$tree/usr/share"
    for page in "$tree"/usr/share/man/man1/*.1; do gzip -9n "$page"; done
    install -d "$tree/lib/systemd/system" "$tree/usr/share/so1-agent"
    service_unit "$root" "$LAUNCHER" >"$tree/lib/systemd/system/so1-agent.service"
    # Not in /etc: the settings are the administrator's, and dpkg would ask about each of its own files
    # there that both sides have changed. postinst copies it where nobody has settings yet.
    install -m 0644 "$here/so1-agent/agent.toml" "$tree/usr/share/so1-agent/agent.toml"
    documentation so1-agent
    control so1-agent
    pack so1-agent
}

build_modules() {
    local version=$project_version architecture=all tree=$work/so1-modules-dkms name
    local place=$tree/usr/src/so1-$modules
    install -d "$place/probe"
    for name in "$root"/kernel/modules/{Kbuild,Makefile,dkms.conf,*.c,*.h}; do
        [[ $name == *.mod.c ]] || install -m 0644 "$name" "$place/"
    done
    install -m 0644 "$root"/kernel/modules/probe/*.c "$place/probe/"
    documentation so1-modules-dkms
    control so1-modules-dkms
    pack so1-modules-dkms
}

suite=$(own_suite) architecture=$(dpkg --print-architecture) output=$root/build/packages
while getopts o:s:a:h option; do
    case $option in
        o) output=$OPTARG ;;
        s) suite=$OPTARG ;;
        a) architecture=$OPTARG ;;
        h)
            usage
            exit 0
            ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
done
shift $((OPTIND - 1))
(($# == 0)) || die "what is $1? See packaging/build.sh -h" 2
python=$(python_of "$suite")
machine=$(machine_of "$architecture")
project_version=$(version_of_project)
modules=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"$/\1/p' "$root/kernel/modules/dkms.conf")
[[ -n $project_version && -n $modules ]] || die "pyproject.toml or dkms.conf names no version"
readonly maintainer=${SO1_MAINTAINER:-so1 agent maintainers <maintainers@so1.invalid>}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date_of_sources)}
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/so1/packages
((EUID)) || cache=/var/cache/so1/packages
cache=${SO1_PACKAGE_CACHE:-$cache}
mkdir -p -- "$output" "$cache"
output=$(cd -- "$output" && pwd) cache=$(cd -- "$cache" && pwd)
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
# One build at a time makes what is kept.
exec {lock}>"$cache/.lock"
flock "$lock"
place=$cache/tools-$(sha256sum "$root/requirements/run.txt" | cut -c 1-16)
install_venv "$place" "$root/requirements/run.txt"
tools=$place/venv/bin/python
say "so1-agent for $suite, $architecture …"
build_agent
build_modules
