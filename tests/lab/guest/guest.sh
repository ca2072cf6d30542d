#!/bin/bash
# Runs in the guest as root, from the lab's read-only share: prepares the host as the agent's
# installation would have it, runs the command, and brings what came of it out.
#
# Share /lab:     guest.sh, settings (shell variables), command (one NUL-terminated word each),
#                 checkout.tar, build/ (modules built outside), engine/ (another dockerd).
# Share /results: what is brought out; it is the command's to write to.
# Ports:          so1.output (what the command says), so1.status (phases, then `exit N`).
set -u

ports=/dev/virtio-ports
checkout=/root/so1

status() { printf '%s\n' "$*" >&3; }

wait_for_port() {
    local tries=0
    until [ -e "$ports/$1" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { echo "lab: no port $1" >/dev/ttyS0; poweroff -ff; }
        sleep 0.1
    done
}

prepare() {
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 results /results || return
    mkdir -p "$checkout" && tar -C "$checkout" -xf /lab/checkout.tar || return
    if [ -d /lab/build ]; then
        mkdir -p /var/lib/so1/build && cp -r /lab/build/. /var/lib/so1/build/ || return
    fi
    if [ -n "${LAB_DOCKER_OPT:-}" ]; then
        mkdir -p /etc/docker
        printf '{"exec-opts": ["%s"]}\n' "$LAB_DOCKER_OPT" >/etc/docker/daemon.json
    fi
    if [ -d /lab/engine ]; then
        cp /lab/engine/dockerd /usr/local/sbin/ || return
        cp -n /lab/engine/*.so* "/usr/lib/$(uname -m)-linux-gnu/" # only what is not there
        mkdir -p /etc/systemd/system/docker.service.d
        printf '[Service]\nExecStart=\nExecStart=%s\n' \
            '/usr/local/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock' \
            >/etc/systemd/system/docker.service.d/engine.conf
        systemctl daemon-reload || return
    fi
    if [ -n "${LAB_DOCKER_OPT:-}" ] || [ -d /lab/engine ]; then
        systemctl restart docker || return
    fi
    if [ "${LAB_INSTALL:-1}" = 1 ] && [ -e "$checkout/bash/lib/install.sh" ]; then
        # shellcheck source=/dev/null
        (set -e; . "$checkout/bash/lib/install.sh"; install_tree "$checkout" /opt/so1) || return
    fi
    if [ "${LAB_NET:-0}" = 1 ]; then
        # shellcheck source=/dev/null
        . /lab/network.sh || return
    fi
}

run_command() {
    local -a words
    mapfile -d '' words </lab/command
    cd "$checkout" || return
    export PATH="/opt/so1/venv/bin:$PATH" PYTHONUNBUFFERED=1
    export SO1_LAB_RESULTS=/results
    if [ "${LAB_INTERACTIVE:-0}" = 1 ]; then
        export TERM="${LAB_TERM:-linux}"
        stty rows "${LAB_ROWS:-24}" cols "${LAB_COLUMNS:-80}" </dev/hvc0
        setsid --ctty "${words[@]}" </dev/hvc0 >/dev/hvc0 2>&1
    else
        "${words[@]}" </dev/null
    fi
}

# What the command leaves behind must neither hold the output open for ever nor lose its end.
drain() {
    exec >/dev/null 2>&1
    local tries=0
    while kill -0 "$relay" 2>/dev/null && [ "$tries" -lt 20 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
}

wait_for_port so1.status
wait_for_port so1.output
exec 3>"$ports/so1.status"
status "phase up $(cut -d ' ' -f 1 /proc/uptime)"
exec > >(exec cat >"$ports/so1.output" 3>&-) 2>&1
relay=$!
# shellcheck source=/dev/null
. /lab/settings

result=125
if prepare; then
    status "phase ready $(cut -d ' ' -f 1 /proc/uptime)"
    run_command 3>&-
    result=$?
else
    echo "lab: the guest could not be prepared"
fi
drain
dmesg --raw >/results/kernel.log
if [ "$result" != 0 ]; then
    journalctl --no-pager --boot >/results/journal.log 2>/dev/null
fi
sync -f /results
status "exit $result"
# The lab ends the guest; this is for when nobody listens any more.
sleep 10
systemctl poweroff -ff
