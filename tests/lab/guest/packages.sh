#!/bin/bash
# In a guest without a network, with an agent installed as a clone's (start.sh): the packages come
# over it, a kernel is added, signatures are enforced, and all of it is purged. Tells what came of it
# in lines `fact:NAME=VALUE`, which the test outside looks at.
set -u

keeper=so1_contenedor_keeper
packages=/root/so1/build/packages

fact() { printf 'fact:%s=%s\n' "$1" "${2//$'\n'/ }"; }

query() {
    /usr/bin/python3 - "$1" <<'PYTHON'
import sqlite3, sys
connection = sqlite3.connect("file:/var/lib/so1/metrics.db?mode=ro", uri=True, timeout=10)
print(connection.execute(sys.argv[1]).fetchone()[0])
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
keeper_rows() { query "SELECT count(*) FROM container_stats WHERE container_name = '$keeper'"; }
status_of() { docker inspect -f '{{.State.Running}} {{.State.StartedAt}}' "$keeper" 2>&1; }

give_up() {
    echo "$1"
    journalctl --no-pager -u so1-agent -n 60
    exit 91
}

# --- an agent of 1.0, from a clone, as a service ---------------------------------------------------

# 1.0 knows no `agent stop --keep`, and says nothing of it in its lock.
sed -i '/"keeps": True/d' /opt/so1/src/agent/daemon/lock.py
mkdir -p /etc/so1
cat >/etc/so1/agent.toml <<'TOML'
# of the administrator
interval_s = 2
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
docker import -c 'ENV PATH=/bin' /opt/so1-lab/images/alpine.tar so1-alpine-standin:local >/dev/null || exit 92
/opt/so1/src/bash/service.sh install || give_up "the clone's service does not start"
installation=$(cat /var/lib/so1/installation)
docker run -d --name "$keeper" --network none --label "so1.installation=$installation" \
    so1-alpine-standin:local sleep infinity >/dev/null || exit 93
wait_for 300 more_ticks_than 3 || give_up "no ticks of the clone's agent"
before=$(ticks) kept_before=$(status_of)
fact clone_exec "$(systemctl show -p ExecStart --value so1-agent | grep -o 'path=[^ ]*')"

# --- the packages come over it ---------------------------------------------------------------------

begun=$SECONDS
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-download "$packages"/so1-agent_*+deb*_amd64.deb \
    "$packages"/so1-modules-dkms_*_all.deb >/results/install.log 2>&1 </dev/null
fact install_status "$?"
fact install_seconds "$((SECONDS - begun))"
fact says "$(grep -c '^so1-agent: ' /results/install.log)"
fact took_over "$(grep -c 'takes over the installation in /opt/so1' /results/install.log)"
wait_for 900 systemctl --quiet is-active so1-agent || give_up "the package's service does not run"
wait_for 300 more_ticks_than "$((before + 2))" || give_up "no more ticks"
fact keeper_before "$kept_before"
fact keeper_now "$(status_of)"
fact installation_same "$([[ $(cat /var/lib/so1/installation) == "$installation" ]] && echo yes)"
fact settings_same "$([[ $(sha256sum </etc/so1/agent.toml) == "$settings" ]] && echo yes)"
fact first_row "$(query 'SELECT min(id) FROM metrics')"
fact command "$(bash -lc 'command -v agent')"
fact package_exec "$(systemctl show -p ExecStart --value so1-agent | grep -o 'path=[^ ]*')"
fact enabled "$(systemctl is-enabled so1-agent)"
wait_for 600 reads modules || give_up "no modules"
fact wrong_names "$(query "SELECT count(*) FROM container_stats WHERE container_name <> '$keeper'")"
fact keeper_rows "$(($(keeper_rows) > 0))"
fact dkms "$(dkms status so1)"

# What DKMS has built and signed is what is loaded, where nothing was built before.
systemctl stop so1-agent
fact keeper_after_stop "$(docker ps -aq --filter "name=$keeper")"
rm -rf /var/lib/so1/build
systemctl start so1-agent || give_up "it does not start again"
wait_for 600 reads modules || give_up "no modules of DKMS"
fact loaded_signer "$(modinfo -F signer /var/lib/so1/build/*/*/sysinfo.ko)"

# --- a new kernel ----------------------------------------------------------------------------------

next=$(uname -r)-next
mkdir "/lib/modules/$next"
ln -s "$(readlink -f "/lib/modules/$(uname -r)/build")" "/lib/modules/$next/build"
cp "/lib/modules/$(uname -r)"/modules.{order,builtin} "/lib/modules/$next/"
/etc/kernel/postinst.d/dkms "$next" >/results/kernel-hook.log 2>&1
fact next_kernel "$(cd "/lib/modules/$next/updates/dkms" && printf '%s ' * | sed 's/\.ko\(\.[a-z]*\)\?//g')"

# --- signed modules only ---------------------------------------------------------------------------

systemctl stop so1-agent
echo 1 >/sys/module/module/parameters/sig_enforce
fact sig_enforce "$(cat /sys/module/module/parameters/sig_enforce)"
systemctl start so1-agent || give_up "it does not start under sig_enforce"
fact source_enforced "$(source_now)"
fact enforced_says "$(agent status | grep -o 'sudo mokutil --import /var/lib/dkms/mok.pub' | head -n 1)"

# --- purged ----------------------------------------------------------------------------------------

docker run -d --name "$keeper-2" --network none --label "so1.installation=$installation" \
    so1-alpine-standin:local sleep infinity >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get purge -y so1-agent so1-modules-dkms >/results/purge.log 2>&1 </dev/null
fact purge_status "$?"
left=$(ls -d /var/lib/so1 /var/log/so1 /run/so1 /etc/so1 /usr/lib/so1-agent /usr/bin/agent /usr/src/so1-* \
    /lib/systemd/system/so1-agent.service /etc/cron.d/so1-agent 2>/dev/null)
left+=$(grep -oE '^(sysinfo|continfo) ' /proc/modules)
left+=$(find /lib/modules -name 'sysinfo.ko*' -o -name 'continfo.ko*')
left+=$(docker ps -aq --filter "label=so1.installation=$installation")
left+=$(dkms status so1)
left+=$(pgrep -f 'agent start')
fact left "$left"
