#!/usr/bin/env bash
# Fills the host up to ten running so1_contenedor_* containers, each of a kind at random; see usage().
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
umask 077

readonly E_FAILED=1 E_USAGE=2 E_ROOT=3
readonly PREFIX=so1_contenedor_
readonly LOW_STANDIN=so1-alpine-standin:local HIGH_STANDIN=so1-stress-standin:local
readonly MAX_LOG_BYTES=$((1024 * 1024)) KEPT_LOGS=3
readonly NAME_TRIES=5 MAX_FAILURES_IN_A_ROW=3 SETTLE_S=1

readonly IMAGE_LOW=${SO1_IMAGE_LOW:-alpine:latest} IMAGE_HIGH=${SO1_IMAGE_HIGH:-polinux/stress}
readonly MAX=${SO1_MAX_CONTAINERS:-10}
readonly RUN_DIR=${SO1_RUN_DIR:-/run/so1} LOG_DIR=${SO1_LOG_DIR:-/var/log/so1}
readonly INSTALLATION_FILE=${SO1_INSTALLATION_FILE:-/var/lib/so1/installation}
readonly CALL_S=${SO1_DOCKER_TIMEOUT:-60} PULL_S=${SO1_PULL_TIMEOUT:-300}
readonly LOG=$LOG_DIR/execution.log
export DOCKER_HOST=${DOCKER_HOST:-unix:///var/run/docker.sock}
unset DOCKER_CONTEXT

force=0
stopping=0
pull_pid=
lock_fd=
work=
installation=
last_words=

usage() {
    cat <<END
Usage: generar_contenedores.sh [--force] [-h]

Starts containers until ten called ${PREFIX}<number> run, each of one of three kinds at random:
sleeping (alpine), filling memory (stress --vm 1 --vm-bytes 128M), using a CPU (stress --cpu 1).
They carry this installation's label, so that \`agent stop\` takes them away. With ten or more
running, with another generator at work, or while no agent runs it starts none. An image's own
ENTRYPOINT is not used; a container that ends at once is reported.

  --force     also while no agent runs; and try again to pull what could not be pulled
  -h, --help  this text

Environment, with its defaults (the agent passes its configuration's):
  SO1_IMAGE_LOW=alpine:latest  SO1_IMAGE_HIGH=polinux/stress   pulled where absent
  SO1_MAX_CONTAINERS=10        fill up to so many
  SO1_RUN_DIR=/run/so1         the agent's and the generator's lock
  SO1_LOG_DIR=/var/log/so1     where execution.log is, rotated at 1 MiB, $KEPT_LOGS old ones kept
  SO1_INSTALLATION_FILE=/var/lib/so1/installation
  SO1_DOCKER_TIMEOUT=60        seconds for one call of Docker; SO1_PULL_TIMEOUT=300 for a pull
  DOCKER_HOST=unix:///var/run/docker.sock

An image that is neither present nor can be pulled is replaced by a small local one, made of this
host's busybox and stress ($LOW_STANDIN, $HIGH_STANDIN).

Exit status: 0 done, or nothing to do; 1 not all could be started; 2 wrong usage or setting; 3 not
root. The last line on stderr then says why.
END
}

say() { printf 'generar_contenedores: %s\n' "$*" >&2; }

# fail STATUS SENTENCE: the sentence is printed last, when everything is undone.
fail() {
    last_words=$2
    exit "$1"
}

finish() {
    local status=$?
    trap - EXIT
    [[ -z $work ]] || rm -rf -- "$work"
    [[ -z $last_words ]] || say "$last_words"
    exit "$status"
}

# The container that is being started is finished: bash runs this after it. A pull is given up.
on_signal() {
    stopping=1
    [[ -z $pull_pid ]] || kill "$pull_pid" 2>/dev/null || true
}

# log WORDS: one line as the original wrote them. A full disk is said and stops nothing.
log() {
    local now
    now=$(date '+%a %d %b %Y %H:%M:%S %Z')
    printf '%s: %s\n' "$now" "$*" 2>/dev/null >>"$LOG" || say "cannot write to $LOG: $*"
}

# only_ours PATH: whether nobody but our user can put something in its place or into it.
only_ours() {
    local about
    [[ ! -L $1 ]] && about=$(stat -c '%u %a' -- "$1" 2>/dev/null) || return 1
    [[ ${about% *} == "$EUID" ]] && (((8#${about#* } & 8#022) == 0))
}

# own_directory PATH: it is there, and only ours.
own_directory() {
    [[ -e $1 || -L $1 ]] || install -d -m 0755 -- "$1" || fail "$E_FAILED" "$1 cannot be made."
    if [[ ! -d $1 ]] || ! only_ours "$1"; then
        fail "$E_FAILED" "$1 is not a directory that only root can write. Remove it."
    fi
}

check_settings() {
    local name
    for name in IMAGE_LOW IMAGE_HIGH; do
        [[ ${!name} =~ ^[a-z0-9][a-zA-Z0-9._/:@-]*$ ]] \
            || fail "$E_USAGE" "SO1_$name is not the name of an image."
    done
    [[ $MAX =~ ^[1-9][0-9]{0,4}$ ]] || fail "$E_USAGE" "SO1_MAX_CONTAINERS is not a number from 1."
    for name in CALL_S PULL_S; do
        [[ ${!name} =~ ^[1-9][0-9]{0,4}$ ]] || fail "$E_USAGE" "A time limit is not in seconds."
    done
    for name in RUN_DIR LOG_DIR INSTALLATION_FILE; do
        [[ ${!name} == /* ]] || fail "$E_USAGE" "SO1_$name is not an absolute path."
    done
    for name in docker flock timeout; do
        type -P "$name" >/dev/null || fail "$E_FAILED" "$name is not installed."
    done
}

read_installation() {
    if only_ours "$INSTALLATION_FILE"; then
        read -r -n 65 installation <"$INSTALLATION_FILE" || true
    fi
    [[ $installation =~ ^[0-9a-f]{32}$ ]] \
        || fail "$E_FAILED" "$INSTALLATION_FILE holds no installation's id. Start the agent once."
}

# agent_runs: whether an agent holds its lock, asked with a shared one that is let go at once. A
# starting agent waits a second for it.
agent_runs() {
    local fd file=$RUN_DIR/agent.lock status=0
    [[ -f $file && ! -L $file ]] || return 1
    exec {fd}<"$file" || return 1
    flock --nonblock --shared --conflict-exit-code 75 "$fd" || status=$?
    exec {fd}<&-
    ((status == 75))
}

# take_lock: never two at once. `docker run` inherits the lock on purpose: should this script be
# killed, its last container is still being made, and a stopping agent waits for just that. timeout
# bounds the wait. Nothing else that may take long inherits it.
take_lock() {
    exec {lock_fd}<>"$RUN_DIR/generator.lock"
    flock --nonblock "$lock_fd" || {
        say "another one is at work"
        exit 0
    }
    printf '{"pid": %d, "started_wall_ns": %s}\n' "$$" "$(date +%s%N)" >"$RUN_DIR/generator.lock"
}

rotate_log() {
    local size=0 number
    [[ ! -L $LOG ]] || fail "$E_FAILED" "$LOG is a symbolic link. Remove it."
    [[ ! -e $LOG ]] || size=$(stat -c %s -- "$LOG")
    ((size >= MAX_LOG_BYTES)) || return 0
    for ((number = KEPT_LOGS; number > 1; number--)); do
        [[ ! -e $LOG.$((number - 1)) ]] || mv -fT -- "$LOG.$((number - 1))" "$LOG.$number"
    done
    mv -fT -- "$LOG" "$LOG.1"
}

open_log() {
    own_directory "$LOG_DIR"
    rotate_log
    (umask 022 && : >>"$LOG") || say "cannot write to $LOG"
}

# engine WORDS…: docker, within its time, in our process group so that a kill of that reaches it.
engine() { timeout --foreground -k 5 "$CALL_S" docker "$@"; }

# running: how many of ours run; Docker's name filter is a regular expression.
running() {
    local ids
    ids=$(engine ps --filter "name=^/?$PREFIX" --format '{{.ID}}' </dev/null) || return 1
    grep -c . <<<"$ids" || true
}

has_image() { engine image inspect --format '{{.Id}}' "$1" </dev/null >/dev/null 2>&1; }

# pull IMAGE: a failure is remembered for an hour, or a host without a registry would try each minute.
pull() {
    local mark
    mark=$RUN_DIR/unpullable-$(cksum <<<"$1" | cut -d' ' -f1)
    ((force)) || [[ -z $(find "$mark" -mmin -60 2>/dev/null) ]] || return 1
    timeout --foreground -k 5 "$PULL_S" docker pull --quiet "$1" \
        </dev/null >/dev/null 2>&1 {lock_fd}>&- &
    pull_pid=$!
    if wait "$pull_pid"; then
        pull_pid=
        rm -f -- "$mark"
        return 0
    fi
    pull_pid=
    ((stopping)) || : >"$mark"
    return 1
}

# provide IMAGE STANDIN PROGRAM…: puts the image to use into $image, "" where there is none.
provide() {
    local wanted=$1 standin=$2 status
    shift 2
    image=$wanted
    if has_image "$wanted" || pull "$wanted"; then
        return
    fi
    ((!stopping)) || return 0
    image=$standin
    if has_image "$standin"; then
        log "Imagen $wanted no disponible: se usa $standin."
        return
    fi
    set +e
    build_standin "$standin" "$@"
    status=$?
    set -e
    if ((status == 0)); then
        log "Imagen $wanted no disponible: se construyó $standin con busybox${1:+ y $*} del sistema."
    else
        image=
        log "Imagen $wanted no disponible, y sin busybox${1:+ y $*} no se puede sustituir."
    fi
}

# number: so many that a name hardly ever exists already.
number() { echo "${SRANDOM:-$((RANDOM << 15 | RANDOM))}"; }

# start_one IMAGE COMMAND…: one container, its id into $started. Why it could not be started is then
# in $said. An image's ENTRYPOINT would take the command for its arguments: an empty one replaces it.
start_one() {
    local attempt status id
    for ((attempt = 0; attempt < NAME_TRIES; attempt++)); do
        rm -f -- "$work/id"
        status=0
        engine run -d --pull never --cidfile "$work/id" --name "$PREFIX$(number)" \
            --label "so1.installation=$installation" --entrypoint '' "$@" \
            </dev/null >/dev/null 2>"$work/said" || status=$?
        ((status)) || {
            started+=("$(cat "$work/id")")
            return 0
        }
        # The cause comes first; the last line is advice.
        said=$(grep -v -m 1 -e '^WARNING' -e '^$' "$work/said" | tr -cd '[:print:]' | cut -c -200)
        id=$(cat "$work/id" 2>/dev/null || true)
        if [[ $id =~ ^[0-9a-f]{64}$ ]]; then
            # It was made and did not start. By id: the name may be another's.
            engine rm -f -v "$id" </dev/null >/dev/null 2>&1 || say "$id could not be removed"
        elif grep -q 'is already in use' "$work/said"; then
            continue
        fi
        ((status != 124 && status != 137)) || said="Docker did not answer within $CALL_S s"
        return "$status"
    done
    return "$E_FAILED"
}

# start_kind: one of three at random, of those that there is an image for.
start_kind() {
    local -a kinds=()
    [[ -z $low ]] || kinds+=("$low sleep infinity")
    [[ -z $high ]] || kinds+=("$high stress --vm 1 --vm-bytes 128M" "$high stress --cpu 1")
    local -a words
    read -ra words <<<"${kinds[RANDOM % ${#kinds[@]}]}"
    start_one "${words[@]}"
}

# start_containers COUNT: stops early on a signal, without an agent, and when Docker keeps failing.
start_containers() {
    local left in_a_row=0 status
    for ((left = $1; left > 0; left--)); do
        ((!stopping)) || return 0
        ((force)) || agent_runs || {
            stopping=1
            return 0
        }
        status=0
        start_kind || status=$?
        if ((status == 0)); then
            in_a_row=0
            continue
        fi
        ((failed += 1, in_a_row += 1))
        if ((status == 124 || status == 137 || in_a_row == MAX_FAILURES_IN_A_ROW)); then
            ((failed += left - 1)) || true
            return 0
        fi
    done
}

# note_ended: how many of $started ended by themselves into $ended, and what one of them said.
# One that is gone, or was ended by a signal, was taken away: an agent may well do that meanwhile.
note_ended() {
    local id about status image
    ((${#started[@]})) || return 0
    sleep "$SETTLE_S"
    for id in "${started[@]}"; do
        about=$(engine inspect --type container \
            --format '{{.State.Status}} {{.State.ExitCode}} {{.Config.Image}}' "$id" \
            </dev/null 2>/dev/null) || continue
        read -r about status image <<<"$about"
        [[ $about == exited && ! $status =~ ^(130|137|143)$ ]] || continue
        ((ended += 1))
        said="$image ended at once with status $status"
    done
}

main() {
    local count final wanted failed=0 ended=0 said='' image='' low high
    local -a started=()
    while (($#)); do
        case $1 in
        --force) force=1 ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            usage >&2
            fail "$E_USAGE" "$1 is no option of this program."
            ;;
        esac
        shift
    done
    ((EUID == 0)) || fail "$E_ROOT" "Only root may do this: run it with sudo."
    # shellcheck source=bash/lib/standin_image.sh
    source "$(dirname -- "${BASH_SOURCE[0]}")/lib/standin_image.sh"
    check_settings
    if ((!force)) && ! agent_runs; then
        say "no agent runs, so there is nothing to do (--force starts containers all the same)"
        exit 0
    fi
    own_directory "$RUN_DIR"
    take_lock
    # Again, now that no stopping agent can hold the lock: one that stopped meanwhile has cleaned up.
    ((force)) || agent_runs || exit 0
    read_installation
    open_log
    work=$(mktemp -d)

    count=$(running) || {
        log "Docker no responde en $DOCKER_HOST."
        fail "$E_FAILED" "Docker does not answer at $DOCKER_HOST."
    }
    log "Contenedores actuales: $count"
    if ((count >= MAX)); then
        log "LÍMITE ALCANZADO ($count contenedores). NO se crean nuevos."
        exit 0
    fi
    wanted=$((MAX - count))
    log "Creando $wanted contenedores nuevos..."
    provide "$IMAGE_LOW" "$LOW_STANDIN"
    low=$image
    provide "$IMAGE_HIGH" "$HIGH_STANDIN" stress
    high=$image
    [[ -n $low$high ]] || fail "$E_FAILED" "There is no image to start and none can be made."
    start_containers "$wanted"
    ((stopping)) || note_ended

    final=$(running) || final='?'
    if ((failed)); then
        log "⚠️ Creación incompleta: fallaron $failed de $wanted ($said). Total actual: $final contenedores."
        fail "$E_FAILED" "$failed of $wanted containers could not be started: $said"
    fi
    if ((ended)); then
        log "⚠️ Creación incompleta: terminaron $ended de $wanted ($said). Total actual: $final contenedores."
        fail "$E_FAILED" "$ended of $wanted containers did not stay up: $said."
    fi
    if ((stopping)); then
        log "⚠️ Creación interrumpida. Total actual: $final contenedores."
        exit 0
    fi
    log "✅ Creación completa. Total actual: $final contenedores."
}

trap finish EXIT
trap on_signal TERM INT HUP
main "$@"
