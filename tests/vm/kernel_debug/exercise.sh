#!/usr/bin/env bash
# Runs in a guest with a planted mistake: loads, reads, unloads, and has leaks looked for.
set -u

leaks=/sys/kernel/debug/kmemleak
echo clear >"$leaks"
bash bash/load_modules.sh
for _ in 1 2 3; do
    cat /proc/sysinfo_so1_202300539 /proc/continfo_so1_202300539 | wc -c
done
echo scan >"$leaks"
sleep 6 # kmemleak reports only what is older than 5 s
echo scan >"$leaks"
head -n 20 "$leaks"
bash bash/load_modules.sh --unload
exit 0
