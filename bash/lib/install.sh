# shellcheck shell=bash
# The one way in which the agent's files come below a root-owned prefix: start.sh, the packages
# (packaging/build.sh) and the test guests share it. Root and cron run only what lies there, never a
# user's checkout. A STAGE is the directory of a package's tree, empty on a living host.

# What of a checkout runs.
readonly RUNTIME_PARTS=(agent kernel bash grafana requirements pyproject.toml)

# install_venv PREFIX REQUIREMENTS: a virtual environment that sees the distribution's bcc.
install_venv() {
    local prefix=$1 requirements=$2 stamp
    stamp=$(sha256sum "$requirements" | cut -d' ' -f1)
    if [[ -x $prefix/venv/bin/python && $(cat "$prefix/venv/.requirements" 2>/dev/null) == "$stamp" ]] \
        && "$prefix/venv/bin/python" -c 'import docker, msgspec, peewee, prometheus_client, psutil, rich, typer' 2>/dev/null; then
        return 0
    fi
    install -d -m 0755 "$prefix"
    rm -rf "$prefix/venv"
    # /usr/bin/python3 and no other: python3-bpfcc is built for the distribution's interpreter.
    /usr/bin/python3 -m venv --system-site-packages "$prefix/venv"
    "$prefix/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes -r "$requirements"
    printf '%s\n' "$stamp" >"$prefix/venv/.requirements"
    chmod -R go-w "$prefix/venv"
}

# link_source ENVIRONMENT SRC: the environment's Python finds the agent in SRC, with -I too.
link_source() {
    local site
    for site in "$1"/lib/python3*/site-packages; do
        printf '%s\n' "$2" >"$site/so1-agent.pth"
    done
}

# install_side_environment SRC PREFIX NAME: PREFIX/NAME with what SRC/requirements/NAME.txt lists, for a
# program beside the agent installed in PREFIX. Built aside: one that runs meanwhile keeps its own.
install_side_environment() {
    local source=$1 place=$2/$3
    rm -rf -- "$place.new"
    /usr/bin/python3 -m venv "$place.new"
    "$place.new/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes -r "$source/requirements/$3.txt"
    link_source "$place.new" "$2/src"
    chmod -R go-w "$place.new"
    rm -rf -- "$place"
    mv "$place.new" "$place"
}

# install_tree SRC PREFIX [LAUNCHER [STAGE]]: the run-time files, swapped in whole, and the `agent`
# command.
install_tree() {
    local src=$1 prefix=$2 launcher=${3:-/usr/local/bin/agent} stage=${4:-} part place
    place=$stage$prefix
    install -d -m 0755 "$place"
    rm -rf "$place/src.new"
    install -d -m 0755 "$place/src.new"
    for part in "${RUNTIME_PARTS[@]}"; do
        [[ -e $src/$part ]] && cp -R "$src/$part" "$place/src.new/"
    done
    find "$place/src.new" -name __pycache__ -type d -prune -exec rm -rf {} +
    ((EUID)) || chown -R 0:0 "$place/src.new"
    chmod -R u=rwX,go=rX "$place/src.new"
    rm -rf "$place/src.old"
    [[ -d $place/src ]] && mv "$place/src" "$place/src.old"
    mv "$place/src.new" "$place/src"
    rm -rf "$place/src.old"
    link_source "$place/venv" "$prefix/src"
    install -d -m 0755 "$(dirname "$stage$launcher")"
    printf '#!/bin/sh\nexec %s/venv/bin/python -I -m agent "$@"\n' "$prefix" >"$stage$launcher.new"
    chmod 0755 "$stage$launcher.new"
    mv "$stage$launcher.new" "$stage$launcher"
}

# install_documents PYTHON SRC SHARE: man pages and completions, written by the commands in SRC.
install_documents() {
    install -d -m 0755 "$3"
    (cd "$2" && umask 022 && PYTHONDONTWRITEBYTECODE=1 "$1" -m agent.cli.documents "$3")
}

# service_unit SRC LAUNCHER: the systemd unit that starts LAUNCHER, on standard output.
service_unit() {
    sed "s|/usr/local/bin/agent|$2|" "$1/bash/systemd/so1-agent.service"
}
