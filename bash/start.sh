#!/usr/bin/env bash
# Sets up everything the agent needs on a Debian or Ubuntu host and runs it in the foreground.
# A second call installs nothing that is there already.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly here root=$here/..
readonly prefix_dir=/opt/so1 log_dir=/var/log/so1
# shellcheck source=bash/lib/install.sh
source "$here/lib/install.sh"

usage() {
    cat <<'TEXT'
Usage: ./bash/start.sh [--install-only | --service] [-- AGENT OPTIONS]

Installs what is missing (kernel headers, compiler, Docker, cron, BCC, the agent into /opt/so1),
starts Docker and cron where they are not running, and runs `agent start`.
Everything behind -- goes to `agent start`: ./bash/start.sh -- --no-cron --interval 5

  --install-only   stop before `agent start`
  --service        run it as a systemd service instead, from each boot on (so1-agent.service;
                   options are settings then, in /etc/so1/agent.toml)
  -h, --help       this text
TEXT
}

say() { printf '%s\n' "start.sh: $*" >&2; }

die() {
    say "$1"
    exit 1
}

become_root() {
    ((EUID == 0)) && return 0
    command -v sudo >/dev/null || die "this needs root and sudo is not installed. Run it as root: su -c '$0'"
    exec sudo -- "$here/start.sh" "$@"
}

is_installed() { [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == 'install ok installed' ]]; }

is_available() { apt-cache show --no-all-versions "$1" >/dev/null 2>&1; }

has_systemd() { [[ -d /run/systemd/system ]]; }

# What the kernel needs for modules; a kernel that takes none needs no headers.
module_packages() {
    [[ -e /proc/modules ]] || return 0
    [[ -e /lib/modules/$(uname -r)/build/Makefile ]] || echo "linux-headers-$(uname -r)"
    echo gcc make kmod
}

# Packages we want, one a word; those that the host's release does not have are left out and said.
wanted_packages() {
    echo python3-venv python3-bpfcc cron busybox-static stress
    module_packages
    # From Debian 13 on the client is a package of its own, which docker.io only recommends.
    if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
        echo docker.io docker-cli
    fi
    # Grafana is brought up by it.
    if ! docker compose version >/dev/null 2>&1 && ! command -v docker-compose >/dev/null; then
        echo docker-compose
    fi
}

install_packages() {
    local package missing=() absent=()
    for package in $(wanted_packages); do
        is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null \
        || die "this host has no apt-get. Install by hand what these Debian packages hold: ${missing[*]}"
    say "installing ${missing[*]} …"
    apt-get update -qq || say "apt-get update failed; going on with the package lists that are here"
    local found=()
    for package in "${missing[@]}"; do
        if is_available "$package"; then found+=("$package"); else absent+=("$package"); fi
    done
    ((${#found[@]})) && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${found[@]}" >/dev/null
    for package in "${absent[@]+"${absent[@]}"}"; do
        case $package in
            linux-headers-*) say "no $package to be had: the agent will read processes through psutil" ;;
            docker-cli) ;;
            *) say "no package $package to be had: going on without it" ;;
        esac
    done
}

docker_answers() { timeout 10 docker version >/dev/null 2>&1; }

start_docker() {
    command -v dockerd >/dev/null || die "Docker is not installed. Run: apt-get install docker.io"
    docker_answers && return 0
    say "starting Docker …"
    if has_systemd; then
        systemctl start docker || true
    else
        # In a session of its own: a Ctrl-C in this terminal is for the agent.
        setsid dockerd >>"$log_dir/dockerd.log" 2>&1 </dev/null &
    fi
    local try
    for try in $(seq 120); do
        docker_answers && return 0
        sleep 0.5
    done
    say "Docker did not answer within $((try / 2)) s; the agent takes it up when it is there (see $log_dir/dockerd.log)"
}

start_cron() {
    command -v cron >/dev/null || { say "cron is not installed: no load is generated every minute"; return 0; }
    pgrep -x cron >/dev/null 2>&1 && return 0
    say "starting cron …"
    if has_systemd; then systemctl start cron || true; else setsid cron </dev/null; fi
}

main() {
    local install_only=0 service=0 arguments=("$@")
    while (($#)); do
        case $1 in
            --install-only) install_only=1 ;;
            --service) service=1 ;;
            -h | --help)
                usage
                return 0
                ;;
            --)
                shift
                break
                ;;
            *)
                usage >&2
                die "unknown option $1"
                ;;
        esac
        shift
    done
    ((!service || !$#)) || die "--service takes no agent options: set them in /etc/so1/agent.toml"
    become_root "${arguments[@]+"${arguments[@]}"}"
    umask 022
    ! is_installed so1-agent || die "the package so1-agent is installed: use it (sudo agent start), or remove it first: sudo apt-get remove so1-agent"
    install_packages
    [[ -x /usr/bin/python3 ]] || die "no /usr/bin/python3. Run: apt-get install python3"
    install -d -m 0750 "$log_dir"
    say "installing the agent into $prefix_dir …"
    install_venv "$prefix_dir" "$root/requirements/run.txt"
    install_tree "$root" "$prefix_dir"
    install_documents "$prefix_dir/venv/bin/python" "$prefix_dir/src" /usr/local/share
    start_docker
    start_cron
    if ((install_only)); then
        say "installed. Run: sudo agent start"
        return 0
    fi
    ((!service)) || exec "$prefix_dir/src/bash/service.sh" install
    say "running: agent start $*"
    exec /usr/local/bin/agent start "$@"
}

main "$@"
