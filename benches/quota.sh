#!/usr/bin/env bash
# Runs a command with at most so many per cent of one core, itself and what it starts:
# mailbell bench --under 'benches/quota.sh 20'. Needs root, and cgroups with a cpu controller; with
# systemd, `systemd-run --scope --quiet -p CPUQuota=20%` does the same.
set -euo pipefail
percent=${1:?per cent of one core}
shift
cgroups=/sys/fs/cgroup
period=100000
if [[ -e $cgroups/cpu/cpu.cfs_quota_us ]]; then
    cgroups=$cgroups/cpu # version 1
else
    echo +cpu >"$cgroups/cgroup.subtree_control"
fi
rmdir "$cgroups"/mailbell-bench-* 2>/dev/null || true # of runs that are over
group=$cgroups/mailbell-bench-$$
mkdir "$group"
if [[ -e $group/cpu.cfs_quota_us ]]; then
    echo "$period" >"$group/cpu.cfs_period_us"
    echo $((percent * period / 100)) >"$group/cpu.cfs_quota_us"
else
    echo "$((percent * period / 100)) $period" >"$group/cpu.max"
fi
echo $$ >"$group/cgroup.procs"
exec "$@"
