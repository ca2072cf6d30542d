#!/bin/bash
# In a guest without a network, with an agent installed as a clone's (start.sh): the packages come
# over it, a kernel is added, signatures are enforced, and all of it is purged. Tells what came of it
# in lines `fact:NAME=VALUE`, which the test outside looks at.
set -u

packages=/root/packages results=/results image=so1-alpine-standin:local settings_extra=
# shellcheck source=tests/lab/guest/packages_common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/packages_common.sh"

# The share has what was built outside.
mkdir -p /mnt/packages "$packages"
mount -t 9p -o trans=virtio,version=9p2000.L,ro packages /mnt/packages || give_up "no share"
cp /mnt/packages/*.deb "$packages" || give_up "no packages"
wait_for 300 docker version || give_up "no Docker"
docker import -c 'ENV PATH=/bin' /opt/so1-lab/images/alpine.tar "$image" >/dev/null || exit 92
start_clone
install_packages "$packages"/so1-agent_*.deb "$packages"/so1-modules-dkms_*_all.deb
wait_for 600 reads modules || give_up "no modules"
fact wrong_names "$(query "SELECT count(*) FROM container_stats WHERE container_name <> '$keeper'")"
fact keeper_rows "$(($(query "SELECT count(*) FROM container_stats WHERE container_name = '$keeper'") > 0))"
fact dkms "$(dkms status so1)"

# What DKMS has built and signed is what is loaded, where nothing was built before.
systemctl stop so1-agent
fact keeper_after_stop "$(docker ps -aq --filter "name=$keeper")"
rm -rf /var/lib/so1/build
systemctl start so1-agent || give_up "it does not start again"
wait_for 600 reads modules || give_up "no modules of DKMS"
fact loaded_signer "$(modinfo -F signer /var/lib/so1/build/*/*/sysinfo.ko)"

# A new kernel: the hook that its package runs. It has this kernel's headers under its own name.
next=$(uname -r)-next
mkdir "/lib/modules/$next"
ln -s "$(readlink -f "/lib/modules/$(uname -r)/build")" "/lib/modules/$next/build"
cp "/lib/modules/$(uname -r)"/modules.{order,builtin} "/lib/modules/$next/"
/etc/kernel/postinst.d/dkms "$next" >/results/kernel-hook.log 2>&1
fact next_kernel "$(cd "/lib/modules/$next/updates/dkms" && printf '%s ' * | sed 's/\.ko\(\.[a-z]*\)\?//g')"

# Signed modules only, and nobody has enrolled DKMS's key.
systemctl stop so1-agent
echo 1 >/sys/module/module/parameters/sig_enforce
fact sig_enforce "$(cat /sys/module/module/parameters/sig_enforce)"
systemctl start so1-agent || give_up "it does not start under sig_enforce"
wait_for 600 reads psutil || give_up "no ticks without modules"
fact source_enforced "$(source_now)"
fact enforced_says "$(agent status | grep -o 'sudo mokutil --import /var/lib/dkms/mok.pub' | head -n 1)"

purge so1-agent so1-modules-dkms
