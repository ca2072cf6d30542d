#!/usr/bin/env bash
# Makes the Python environment of the helper that asks a runtime by CRI: gRPC, which the agent has not.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: cri_environment.sh [-r] [PREFIX]

Makes PREFIX/cri with what requirements/cri.txt lists, beside a clone's agent that is installed in
PREFIX (default: /opt/so1). Run it again after an update of the agent. It needs the network, or pip's
own settings for a host without one (PIP_NO_INDEX, PIP_FIND_LINKS). The package so1-agent has it inside.

  -r  removes it
  -h  this text
TEXT
}

main() {
    local remove=0 prefix=/opt/so1 source
    if [[ ${1:-} == -h || ${1:-} == --help ]]; then
        usage
        return 0
    fi
    if [[ ${1:-} == -r ]]; then
        remove=1
        shift
    fi
    source=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
    [[ $source != /usr/lib/so1-agent/src ]] || prefix=/usr/lib/so1-agent
    prefix=${1:-$prefix}
    if [[ $prefix == /usr/lib/so1-agent ]]; then
        echo "cri_environment.sh: the package brings this environment; if it is not whole: sudo apt-get install --reinstall so1-agent" >&2
        return 1
    fi
    # shellcheck source=bash/lib/install.sh
    source "$source/bash/lib/install.sh"
    if ((remove)); then
        rm -rf -- "$prefix/cri"
        return 0
    fi
    if [[ ! -d $prefix/src/agent ]]; then
        echo "cri_environment.sh: no agent is installed in $prefix; run ./bash/start.sh --install-only" >&2
        return 1
    fi
    install_side_environment "$source" "$prefix" cri
    echo "The environment of CRI's helper is in $prefix/cri." >&2
}

main "$@"
