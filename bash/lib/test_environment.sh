# shellcheck shell=bash disable=SC2034,SC2154 # $python and $fleet_python are read by test.sh
# The tests' Python environments, each named by a hash of what it is made from. Uses test.sh's $root,
# say and die.

# Whether an environment is whole; the time of its last use is kept.
is_made() { [[ -e $1/.complete ]] && touch -- "$1/.complete"; }

# remove_unused BASE KIND: environments that no run used for two weeks. Another checkout's are not
# this one's to remove: it may be testing with them.
remove_unused() {
    local directory
    for directory in "$1/$2"-*; do
        [[ ! -e $directory/.complete ]] && continue
        [[ -n $(find "$directory/.complete" -mtime +14) ]] || continue
        rm -rf -- "$directory"
    done
}

# Sets $python to an environment with all requirements, made once and kept by what is in it.
make_environment() {
    local base=${XDG_CACHE_HOME:-$HOME/.cache}/so1 key directory
    # Root's home is closed to others, and some tests run the interpreter as another user.
    ((EUID)) || base=/var/cache/so1
    key=$(cat "$root"/requirements/{run,test}.txt <(/usr/bin/python3 -VV) | sha256sum | cut -c 1-16)
    directory=$base/venv-$key
    python=$directory/bin/python
    is_made "$directory" && return 0
    say "making the Python environment $directory"
    /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || die "/usr/bin/python3 is older than 3.11: Debian 12, Ubuntu 24.04 or later is needed"
    remove_unused "$base" venv
    rm -rf -- "$directory"
    # System packages are seen: BCC is the distribution's and there is no other.
    /usr/bin/python3 -m venv --system-site-packages "$directory"
    "$python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r "$root/requirements/run.txt" >&2
    "$python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r "$root/requirements/test.txt" >&2
    touch "$directory/.complete"
}

# Sets $fleet_python to an environment with the driver for PostgreSQL too, which the agent's has not.
make_fleet_environment() {
    local key directory base list
    base=$(dirname "$(dirname "$(dirname "$python")")")
    key=$(cat "$root"/requirements/{run,test,fleet}.txt <(/usr/bin/python3 -VV) | sha256sum | cut -c 1-16)
    directory=$base/fleet-$key
    fleet_python=$directory/bin/python
    is_made "$directory" && return 0
    say "making the Python environment $directory"
    remove_unused "$base" fleet
    rm -rf -- "$directory"
    /usr/bin/python3 -m venv "$directory"
    for list in run test fleet; do
        "$fleet_python" -m pip install --quiet --disable-pip-version-check --require-hashes \
            -r "$root/requirements/$list.txt" >&2 || return
    done
    touch "$directory/.complete"
}
