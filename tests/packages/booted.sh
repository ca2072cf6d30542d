#!/bin/bash
# In a Debian tree that systemd has booted as a container: a clone's service, the package over it, an
# upgrade, a removal, a purge. Docker is an engine outside, by its socket.
set -u

packages=/root/packages results=/root/results image=so1-alpine-standin:local
settings_extra='source = "psutil"'
export DOCKER_HOST=unix:///run/outside/docker.sock
settings_extra+=$'\ndocker_host = "unix:///run/outside/docker.sock"'
# shellcheck source=tests/lab/guest/packages_common.sh
source /root/packages_common.sh

start_clone
install_packages "$packages"/1/*.deb
fact old_unit "$(find /etc/systemd/system -name 'so1-agent.service' -type f)"

# An upgrade of the package.
before=$(ticks)
first=$(systemctl show -p MainPID --value so1-agent)
DEBIAN_FRONTEND=noninteractive apt-get install -y "$packages"/2/*.deb \
    >"$results/upgrade.log" 2>&1 </dev/null
fact upgrade_status "$?"
wait_for 300 systemctl --quiet is-active so1-agent || give_up "it does not run after an upgrade"
wait_for 300 more_ticks_than "$((before + 2))" || give_up "no ticks after an upgrade"
fact keeper_upgraded "$(status_of "$keeper")"
fact another_process "$([[ $(systemctl show -p MainPID --value so1-agent) != "$first" ]] && echo yes)"
fact settings_upgraded "$([[ $(sha256sum </etc/so1/agent.toml) == "$settings" ]] && echo yes)"

# A downgrade is refused and what runs goes on.
before=$(ticks)
DEBIAN_FRONTEND=noninteractive apt-get install -y --allow-downgrades \
    "$packages"/1/*.deb >"$results/downgrade.log" 2>&1 </dev/null
fact downgrade_status "$?"
fact downgrade_says "$(grep -c '^so1-agent: version .* is older' "$results/downgrade.log")"
wait_for 300 more_ticks_than "$((before + 2))" || give_up "no ticks after a refused downgrade"
fact keeper_downgraded "$(status_of "$keeper")"

apt-get remove -y so1-agent >"$results/remove.log" 2>&1 </dev/null
fact removed_keeper "$(docker ps -aq --filter "name=$keeper")"
fact removed_history "$([[ -s $database && -s /var/lib/so1/installation ]] && echo yes)"
fact removed_active "$(systemctl is-active so1-agent)"
fact removed_rows "$(query 'SELECT min(id) FROM metrics')"
purge so1-agent
