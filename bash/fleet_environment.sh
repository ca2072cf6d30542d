#!/usr/bin/env bash
# Makes the Python environment of `agent fleet …`: the driver for PostgreSQL, which the agent has not.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: fleet_environment.sh [-r] [PREFIX]

Makes PREFIX/fleet (PREFIX is /opt/so1) with what requirements/fleet.txt lists, beside an agent that
start.sh has installed there. Run it again after an update of the agent.

  -r  removes it
  -h  this text
TEXT
}

main() {
    local remove=0 prefix source
    if [[ ${1:-} == -h || ${1:-} == --help ]]; then
        usage
        return 0
    fi
    if [[ ${1:-} == -r ]]; then
        remove=1
        shift
    fi
    prefix=${1:-/opt/so1}
    source=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
    if [[ $source == /usr/lib/so1-agent/src ]]; then
        echo "fleet_environment.sh: the package so1-agent has it already, in /usr/lib/so1-agent/fleet." >&2
        return 1
    fi
    # shellcheck source=bash/lib/install.sh
    source "$source/bash/lib/install.sh"
    if ((remove)); then
        rm -rf -- "$prefix/fleet"
        return 0
    fi
    if [[ ! -d $prefix/src/agent ]]; then
        echo "fleet_environment.sh: no agent is installed in $prefix; run ./bash/start.sh --install-only" >&2
        return 1
    fi
    install_side_environment "$source" "$prefix" fleet
    echo "The fleet's environment is in $prefix/fleet." >&2
}

main "$@"
