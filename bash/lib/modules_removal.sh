# shellcheck shell=bash disable=SC2154 # what is not set here is load_modules.sh's
# Taking a module out of the kernel, and who keeps it in. Uses load_modules.sh's say, fail, setting,
# is_loaded and its $turn.

# How long a removal may take. Both, and the wait for another run, fit into the agent's 60 seconds.
readonly REMOVAL_S=20 REMOVAL_TRIES=6

# named PID: «name (pid)»; fails where it has ended.
named() {
    local comm
    comm=$(tr -d '[:cntrl:]' 2>/dev/null <"/proc/$1/comm") || return 1
    printf '%s (%s)' "${comm:-?}" "$1"
}

# users PATH...: «name (pid), name (pid)» of the processes, apart from us, that have one of the files
# open, at most five; nothing where there is none. With -l only those that hold a lock on it.
users() (
    local path fd pid named found="" locked=""
    local -a wanted=()
    local -i count=0
    [[ $1 != -l ]] || { locked=1 && shift; }
    for path in "$@"; do
        wanted+=(-o -lname "$path" -o -lname "$path (deleted)")
    done
    # Ours, and not to be inherited by what looks for others'.
    [[ -z $turn ]] || exec {turn}>&-
    while read -r fd; do
        pid=${fd#/proc/} pid=${pid%%/*}
        [[ $pid != "$$" && $found != *"($pid)"* ]] || continue
        [[ -z $locked ]] || grep -qs '^lock:' "/proc/$pid/fdinfo/${fd##*/}" || continue
        named=$(named "$pid") || continue
        count+=1
        ((count > 5)) || found+="${found:+, }$named"
    done < <(find /proc/[0-9]*/fd -maxdepth 1 "(" "${wanted[@]:1}" ")" -print 2>/dev/null)
    ((count <= 5)) || found+=" and $((count - 5)) more"
    printf '%s' "$found"
)

files_of() { # files_of MODULE: where it may be read
    printf '%s\n' "/proc/$(setting entry "$1")" "/proc/$1_so1_202300539" | sort -u
}

# held MODULE: the sentence on a module whose removal waits for a reader. The kernel waits for each
# read that has begun; one whose buffer is never filled, as on a dead network file system, lasts.
held() {
    local by pids
    local -a files
    mapfile -t files < <(files_of "$1")
    by=$(users "${files[@]}")
    pids=$(grep -Eo '\([0-9]+\)' <<<"$by" | tr -d '()' | tr '\n' ' ') || true
    printf '%s' "The module $1 is being removed and waits for a read of its file that has not ended"
    if [[ $by ]]; then
        printf '%s' ", by $by: end it with: sudo kill -9 ${pids% }; the removal then ends by itself."
    else
        printf '%s' ", by no process that could be found: see: sudo dmesg; it may take a reboot."
    fi
}

# is_going MODULE: somebody's rmmod of it has begun and not ended.
is_going() { [[ $(cat "/sys/module/$1/initstate" 2>/dev/null) == going ]]; }

# await_removal MODULE: an rmmod that another run left behind may be about to end.
await_removal() {
    local -i tries=$((REMOVAL_S * 10))
    while is_going "$1"; do
        ((tries-- > 0)) || return 1
        sleep 0.1
    done
}

# holders MODULE: «name (pid), …» of the readers that keep it loaded at this moment, as it says itself.
holders() {
    local pid found=
    local -a pids=()
    read -ra pids 2>/dev/null <"/sys/module/$1/parameters/holders" || true
    for pid in "${pids[@]}"; do
        [[ $pid =~ ^[0-9]+$ ]] || continue
        found+="${found:+, }$(named "$pid" || printf '? (%s)' "$pid")"
    done
    printf '%s' "$found"
}

# try_unload MODULE: unloads it, or leaves why not in `why`. An rmmod that waits for a reader cannot
# be ended by anybody: after a while it is left to itself, without our lock or our output.
try_unload() {
    local said by status=
    local -i attempt
    why=
    is_loaded "$1" || return 0
    if is_going "$1"; then
        await_removal "$1" || { why=$(held "$1"); return 1; }
        return 0
    fi
    # An ordinary reader keeps it for moments: what is in use is tried again for a while.
    for ((attempt = 0; attempt < REMOVAL_TRIES; attempt++)); do
        ((attempt == 0)) || sleep 0.5
        exec {answer}< <(
            exec 2>&1 {turn}>&-
            rmmod "$1" || echo "status $?"
            echo end
        )
        said=
        while read -r -t "$REMOVAL_S" -u "$answer" status; do
            [[ $status != end ]] || break
            said+="$status "
        done
        exec {answer}<&-
        [[ $said == *"in use"* ]] || break
    done
    if is_going "$1"; then
        why=$(held "$1")
        return 1
    fi
    if [[ $status != end || $said == *"status "* ]]; then
        by=$(holders "$1")
        if [[ -n $by ]]; then
            why="The module $1 stays loaded: a read of $by keeps it. End that, then run: sudo rmmod $1."
            return 1
        fi
        said=${said%%status *} said=${said##*: }
        why="The module $1 cannot be unloaded (${said:-no answer}): see what uses it with lsmod, then run: sudo rmmod $1."
        why=${why/ ):/):}
        return 1
    fi
    say "unloaded $1"
}

unload() { # unload MODULE
    try_unload "$1" || fail "$E_UNLOAD" "$why"
}
