# shellcheck shell=bash disable=SC2154 # what is not set here is the caller's
# What tests of the packages on a booted system share: facts, waiting, an agent of 1.0 from a clone
# that runs as a service, and the packages coming over it. The caller sets:
#   packages  the directory with the .deb files    results  where logs go
#   image     a local image with `sleep` in it     settings_extra  more lines of settings

database=/var/lib/so1/metrics.db
keeper=so1_contenedor_keeper

fact() { printf 'fact:%s=%s\n' "$1" "${2//$'\n'/ }"; }

query() {
    /usr/bin/python3 - "$database" "$1" <<'PYTHON'
import sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=10)
print(connection.execute(sys.argv[2]).fetchone()[0])
PYTHON
}

# wait_for SECONDS COMMAND...: 0 as soon as the command succeeds.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 1
    done
}

ticks() { query 'SELECT count(*) FROM metrics' 2>/dev/null || echo 0; }
more_ticks_than() { (($(ticks) > $1)); }
source_now() { query 'SELECT source FROM metrics ORDER BY id DESC LIMIT 1'; }
reads() { [[ $(source_now) == "$1" ]]; }
status_of() { docker inspect -f '{{.State.Running}} {{.State.StartedAt}}' "$1" 2>&1; }
exec_of_unit() { systemctl show -p ExecStart --value so1-agent | grep -o 'path=[^ ]*'; }
keep_one() {
    docker run -d --name "$1" --network none --label "so1.installation=$installation" "$image" \
        sleep infinity >/dev/null || exit 93
}

give_up() {
    echo "$1"
    journalctl --no-pager -u so1-agent -n 60
    exit 91
}

# A clone's service, with settings and a container of its installation.
start_clone() {
    # 1.0 knows no `agent stop --keep`, and says nothing of it in its lock.
    sed -i '/"keeps": True/d' /opt/so1/src/agent/daemon/lock.py
    mkdir -p /etc/so1
    cat >/etc/so1/agent.toml <<TOML
# of the administrator
interval_s = 2
$settings_extra
[policy]
max_containers = 50
keep_low = 25
keep_high = 25
[cron]
enabled = false
[grafana]
enabled = false
TOML
    settings=$(sha256sum </etc/so1/agent.toml)
    wait_for 300 docker version || give_up "no Docker"
    /opt/so1/src/bash/service.sh install || give_up "the clone's service does not start"
    installation=$(cat /var/lib/so1/installation)
    keep_one "$keeper"
    wait_for 300 more_ticks_than 3 || give_up "no ticks of the clone's agent"
    before=$(ticks) kept_before=$(status_of "$keeper")
    fact clone_exec "$(exec_of_unit)"
}

# install_packages FILE...: over the clone, and what is there afterwards.
install_packages() {
    local begun=$SECONDS
    DEBIAN_FRONTEND=noninteractive apt-get install -y "$@" \
        >"$results/install.log" 2>&1 </dev/null
    fact install_status "$?"
    fact install_seconds "$((SECONDS - begun))"
    fact took_over "$(grep -c 'takes over the installation in /opt/so1' "$results/install.log")"
    wait_for 900 systemctl --quiet is-active so1-agent || give_up "the package's service does not run"
    wait_for 300 more_ticks_than "$((before + 2))" || give_up "no more ticks"
    fact keeper_before "$kept_before"
    fact keeper_now "$(status_of "$keeper")"
    fact installation_same "$([[ $(cat /var/lib/so1/installation) == "$installation" ]] && echo yes)"
    fact settings_same "$([[ $(sha256sum </etc/so1/agent.toml) == "$settings" ]] && echo yes)"
    fact first_row "$(query 'SELECT min(id) FROM metrics')"
    fact command "$(bash -lc 'command -v agent')"
    fact package_exec "$(exec_of_unit)"
    fact enabled "$(systemctl is-enabled so1-agent)"
}

# purge PACKAGE...: with a container of this installation where there is an agent, and what is left.
purge() {
    [[ ! -e /usr/bin/agent ]] || keep_one "$keeper-2"
    DEBIAN_FRONTEND=noninteractive apt-get purge -y "$@" >"$results/purge.log" 2>&1 </dev/null
    fact purge_status "$?"
    local left
    left=$(ls -d /var/lib/so1 /var/log/so1 /run/so1 /etc/so1 /usr/lib/so1-agent /usr/bin/agent \
        /usr/src/so1-* /lib/systemd/system/so1-agent.service /etc/cron.d/so1-agent \
        /etc/systemd/system/*/so1-agent.service 2>/dev/null)
    left+=$(grep -oE '^(sysinfo|continfo) ' /proc/modules 2>/dev/null)
    left+=$(find /lib/modules -name 'sysinfo.ko*' -o -name 'continfo.ko*')
    left+=$(docker ps -aq --filter "label=so1.installation=$installation")
    left+=$(dkms status so1 2>/dev/null)
    left+=$(pgrep -f 'agent start')
    fact left "$left"
}
