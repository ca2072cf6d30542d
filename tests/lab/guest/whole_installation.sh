#!/bin/bash
# In a fresh guest with a network: a user with sudo clones the project and calls start.sh. Tells
# what came of it in lines `fact:NAME=VALUE`, which the test outside looks at.
set -u

user=newcomer
home=/home/$user
database=/var/lib/so1/metrics.db

fact() { printf 'fact:%s=%s\n' "$1" "$2"; }

query() {
    /usr/bin/python3 - "$1" <<'PYTHON'
import sqlite3, sys
connection = sqlite3.connect("file:/var/lib/so1/metrics.db?mode=ro", uri=True, timeout=10)
print(connection.execute(sys.argv[1]).fetchone()[0])
PYTHON
}

agent_pid() { pgrep -o -f '/opt/so1/venv/bin/python -I -m agent start'; }

# wait_for SECONDS COMMAND...: 0 as soon as the command succeeds.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 2
    done
}

started() { [[ -e $database ]] && (($(query 'SELECT count(*) FROM metrics') >= 2)) && mapped; }
mapped() { (($(query 'SELECT count(*) FROM container_stats') > 0)); }

useradd --create-home --shell /bin/bash "$user" || exit 90
echo "$user ALL=(ALL) NOPASSWD:ALL" >/etc/sudoers.d/"$user"
cp -r /root/so1 "$home/so1"
chown -R "$user:" "$home/so1"

begun=$SECONDS
su - "$user" -c 'cd so1 && exec ./bash/start.sh' >/results/start.log 2>&1 </dev/null &
start=$!
if ! wait_for 2400 started; then
    echo "no containers in the database after $((SECONDS - begun)) s"
    tail -n 30 /results/start.log
    exit 91
fi
fact seconds_to_two_ticks "$((SECONDS - begun))"
fact ticks "$(query 'SELECT count(*) FROM metrics')"
fact source "$(query 'SELECT source FROM metrics ORDER BY id DESC LIMIT 1')"
fact container_rows "$(query 'SELECT count(*) FROM container_stats')"
fact wrong_names "$(query "SELECT count(*) FROM container_stats WHERE container_name NOT LIKE 'so1_contenedor_%'")"
fact modules_while_running "$(grep -cE '^(sysinfo|continfo) ' /proc/modules)"
docker ps --format '{{.Names}} {{.Image}}'

kill -INT "$(agent_pid)"
wait "$start"
fact start_status "$?"
left=$(grep -oE '^(sysinfo|continfo) ' /proc/modules)
left+=$(docker ps -aq --filter name=so1_contenedor_)
left+=$(find /etc/cron.d -name '*so1*')
left+=$(pgrep -f 'agent start')
fact left "${left//$'\n'/ }"
fact roots_files_in_checkout "$(find "$home/so1" ! -user "$user" | head -n 3 | tr '\n' ' ')"

su - "$user" -c 'cd / && sudo agent start --once --no-cron' >/results/once.log 2>&1 </dev/null
fact once_status "$?"
