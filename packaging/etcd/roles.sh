#!/usr/bin/env bash
# Makes the roles that Sked's processes need in etcd, by etcdctl and with its settings (ETCDCTL_ENDPOINTS, ETCDCTL_USER,
# …). May be run again, also for further hosts.
#   packaging/etcd/roles.sh [--prefix PREFIX] HOST ...
# sked-agent-HOST for each host, sked-scheduler, sked-report-HOST (tasks that call `sked report`), sked-viewer (who only
# looks), sked-people (who declares), sked-operator (who restarts and stops tasks as well). Then, for each process:
#   etcdctl user add web-1; etcdctl user grant-role web-1 sked-agent-web-1
# The store's id is made by whoever else comes first, a scheduler or an apply: agents wait for that.
# Whoever can write state/hosts/ runs code on your hosts.
set -euo pipefail
export ETCDCTL_API=3
prefix=
if [ "${1-}" = --prefix ]; then
    prefix=${2%/}/
    shift 2
fi

role() {
    etcdctl role get "$1" >/dev/null 2>&1 || etcdctl role add "$1"
}

# grant ROLE read|readwrite PREFIX …: what is watched or listed has to be covered by one grant as a whole.
grant() {
    local name=$1 kind=$2 key
    shift 2
    for key in "$@"; do etcdctl role grant-permission "$name" --prefix=true "$kind" "$prefix$key" >/dev/null; done
}

# exactly ROLE KEY …: written, and no other key that begins alike.
exactly() {
    local name=$1 key
    shift
    for key in "$@"; do etcdctl role grant-permission "$name" readwrite "$prefix$key" >/dev/null; done
}

for host in "$@"; do
    role "sked-agent-$host"
    grant "sked-agent-$host" read config/ state/ hosts/ reports/ health/ meta/ "agents/$host"
    exactly "sked-agent-$host" "config/hosts/$host" "hosts/live/$host" "agents/$host"
    grant "sked-agent-$host" readwrite "state/hosts/$host/" state/tasks/ "health/$host/" "reports/$host/" \
        scheduling/changed/ failures/ "endings/$host/" events/
    role "sked-report-$host"
    grant "sked-report-$host" read meta/
    grant "sked-report-$host" readwrite "reports/$host/"
done

role sked-scheduler
grant sked-scheduler read config/ hosts/ health/ agents/ failures/
grant sked-scheduler readwrite state/ locks/ status/ scheduling/ rollouts/ decisions/ events/ meta/
grant sked-scheduler readwrite config/services/ # to roll back

role sked-viewer
grant sked-viewer read ""
for name in sked-people sked-operator; do
    role "$name"
    grant "$name" read ""
    grant "$name" readwrite config/ hosts/marks/ scheduling/rollouts/ scheduling/moves/ rollouts/ events/ meta/
done
grant sked-operator readwrite state/ scheduling/changed/ failures/
