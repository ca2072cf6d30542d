#!/usr/bin/env bash
# Installs the agent as a systemd service, or takes that back; see usage().
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly here name=so1-agent.service directory=/etc/systemd/system launcher=/usr/local/bin/agent
# shellcheck source=bash/lib/install.sh
source "$here/lib/install.sh"

usage() {
    cat <<'TEXT'
Usage: service.sh install | remove | -h

  install   put so1-agent.service in place, enable it and start it; a second call updates it
  remove    stop it, which takes down what the agent brought, and take it away

The agent has to be installed (start.sh). Its lines are in the journal: journalctl -u so1-agent.
Exit status: 0 done; 1 it could not be done, with one sentence on stderr; 2 wrong usage.
TEXT
}

say() { printf 'service.sh: %s\n' "$*" >&2; }

die() {
    say "$1"
    exit "${2:-1}"
}

aside=
trap '[[ -z $aside ]] || rm -f -- "$aside"' EXIT

require() {
    ((EUID == 0)) || die "this needs root: run sudo $0 $1"
    [[ -d /run/systemd/system ]] || die "systemd does not run here: use sudo agent start"
}

# Whether an agent runs that is not the service's: the two would exclude each other.
other_agent() {
    ! systemctl --quiet is-active "$name" && "$launcher" status >/dev/null 2>&1
}

install_service() {
    [[ $here != /usr/lib/so1-agent/* ]] || die "the package so1-agent has its own unit: systemctl enable --now $name"
    [[ -x $launcher ]] || die "the agent is not installed: run ./bash/start.sh --install-only"
    ! other_agent || die "an agent runs in a terminal: stop it with sudo agent stop, then try again"
    aside=$(mktemp "$directory/.so1-agent.XXXXXX")
    service_unit "${here%/bash}" "$launcher" >"$aside"
    chmod 0644 "$aside"
    mv -f "$aside" "$directory/$name"
    aside=
    systemctl daemon-reload
    systemctl enable --quiet "$name"
    say "starting $name (the first start on a kernel builds the modules) …"
    systemctl restart "$name" || die "it did not start: see journalctl -u so1-agent -n 50"
    say "running: journalctl -fu so1-agent shows its lines, sudo agent status how it is"
}

remove_service() {
    [[ -e $directory/$name ]] || {
        say "not installed"
        return 0
    }
    systemctl disable --quiet --now "$name" || say "it did not stop cleanly: run sudo agent cleanup"
    rm -f "$directory/$name"
    systemctl daemon-reload
    systemctl reset-failed "$name" 2>/dev/null || true
    say "removed"
}

case ${1:-} in
    install)
        require install
        install_service
        ;;
    remove)
        require remove
        remove_service
        ;;
    -h | --help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
