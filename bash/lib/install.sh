# shellcheck shell=bash
# What start.sh and the test guests share: the agent's files below one root-owned prefix.
# Root and cron run only what lies there, never a user's checkout.

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

# install_tree SRC PREFIX [LAUNCHER]: the run-time files, swapped in whole, and the `agent` command.
install_tree() {
    local src=$1 prefix=$2 launcher=${3:-/usr/local/bin/agent} part site
    install -d -m 0755 "$prefix"
    rm -rf "$prefix/src.new"
    install -d -m 0755 "$prefix/src.new"
    for part in agent kernel bash grafana requirements pyproject.toml; do
        [[ -e $src/$part ]] && cp -R "$src/$part" "$prefix/src.new/"
    done
    find "$prefix/src.new" -name __pycache__ -type d -prune -exec rm -rf {} +
    chown -R 0:0 "$prefix/src.new"
    chmod -R u=rwX,go=rX "$prefix/src.new"
    rm -rf "$prefix/src.old"
    [[ -d $prefix/src ]] && mv "$prefix/src" "$prefix/src.old"
    mv "$prefix/src.new" "$prefix/src"
    rm -rf "$prefix/src.old"
    site=$("$prefix/venv/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n' "$prefix/src" >"$site/so1-agent.pth"
    install -d -m 0755 "$(dirname "$launcher")"
    printf '#!/bin/sh\nexec %s/venv/bin/python -I -m agent "$@"\n' "$prefix" >"$launcher.new"
    chmod 0755 "$launcher.new"
    mv "$launcher.new" "$launcher"
}
