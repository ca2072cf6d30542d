# shellcheck shell=bash disable=SC2154 # $results is test.sh's
# The Docker engine that test.sh tests with: the one that runs, or one of its own for the time, and
# the two images of the tests. Uses test.sh's as_root, say and $results.
readonly engine_root=/var/lib/so1-test engine_run=/run/so1-test

engine_pid=""

engine_answers() { as_root docker version >/dev/null 2>&1; }

# Uses the engine that answers, else starts one with directories and a socket of its own.
start_engine() {
    local -a network=()
    local try
    engine_answers && return 0
    export DOCKER_HOST=unix://$engine_run/docker.sock
    as_root mkdir -p "$engine_root" "$engine_run"
    for try in plain without-iptables; do
        [[ $try == plain ]] || network=(--iptables=false --ip6tables=false)
        say "starting an engine of our own ($try)"
        # In a session of its own: a Ctrl-C in the terminal is ours to handle.
        as_root setsid dockerd --data-root "$engine_root/data" --exec-root "$engine_run/exec" \
            --pidfile "$engine_run/docker.pid" -H "$DOCKER_HOST" "${network[@]}" \
            >"$results/dockerd-$try.log" 2>&1 </dev/null &
        for _ in $(seq 60); do
            if engine_answers; then
                engine_pid=$(as_root cat "$engine_run/docker.pid")
                return 0
            fi
            jobs %% >/dev/null 2>&1 || break
            sleep 0.5
        done
        stop_engine
    done
    tail -n 5 "$results"/dockerd-*.log >&2
    return 1
}

stop_engine() {
    local pid=$engine_pid
    engine_pid=""
    [[ -n $pid ]] || pid=$(as_root cat "$engine_run/docker.pid" 2>/dev/null) || return 0
    as_root kill "$pid" 2>/dev/null || true
    for _ in $(seq 60); do
        as_root kill -0 "$pid" 2>/dev/null || break
        sleep 0.5
    done
    # An engine that was killed leaves its mounts, and then nothing below them can be removed.
    awk -v root="$engine_root/" -v run="$engine_run/" \
        'index($2, root) == 1 || index($2, run) == 1 {print $2}' /proc/mounts | sort -r \
        | while read -r place; do as_root umount -l -- "$place" || true; done
    as_root rm -rf --one-file-system -- "$engine_root" "$engine_run" \
        || say "$engine_root or $engine_run could not be removed whole"
}

# The stand-ins for alpine and stress: there need not be a registry within reach.
import_images() {
    local work name library
    work=$(mktemp -d)
    for name in alpine stress; do
        as_root docker image inspect "so1-$name-standin:local" >/dev/null 2>&1 && continue
        mkdir -p "$work/$name"/{bin,dev,etc,proc,root,sys,tmp,usr/bin}
        chmod 1777 "$work/$name/tmp"
        cp "$(command -v busybox)" "$work/$name/bin/busybox"
        "$work/$name/bin/busybox" --list | grep -vx busybox \
            | while read -r applet; do ln -s busybox "$work/$name/bin/$applet"; done
        if [[ $name == stress ]]; then
            cp /usr/bin/stress "$work/$name/usr/bin/"
            ldd /usr/bin/stress | grep -o '/[^ ]*' | while read -r library; do
                mkdir -p "$work/$name$(dirname "$library")"
                cp -L "$library" "$work/$name$library"
            done
        fi
        tar -C "$work/$name" --owner=0 --group=0 -c . \
            | as_root docker import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
                - "so1-$name-standin:local" >/dev/null
    done
    rm -rf -- "$work"
}

# Stops what start_engine started, and never an engine that was there before.
stop_own_engine() {
    [[ -n $engine_pid ]] || return 0
    stop_engine
    unset DOCKER_HOST
}
