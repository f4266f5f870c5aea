#!/usr/bin/env bash
# A scheduler for Sked that shares nothing with it but the store: bash, curl and jq, and no line of Sked.
#
#     SKED_BACKEND=consul://127.0.0.1:8500 ./scheduler.sh NAME        (or etcd://127.0.0.1:2379)
#
# places every service that says `scheduler: NAME`. Run as many of it as you like, and kill any of them at any time.
# docs/outside-schedulers.md says why each write looks as it does; scheduler.jq decides, consul.sh and etcd.sh speak to
# the stores. LOST_AFTER: seconds without a living agent after which a host's tasks are replaced; SKED_PREFIX: of all keys.
set -euo pipefail

export NAME=$1 LOST_AFTER=${LOST_AFTER-60}
PREFIX=${SKED_PREFIX:+${SKED_PREFIX%/}/}
here=$(dirname "${BASH_SOURCE[0]}")
tmp=$(mktemp -d)

# Whatever fails ends it, and it begins anew: the store is away, the lease gone, or a record can't be read. What runs goes
# on meanwhile, and what a commit without an answer has locked goes with the former lease.
again() {
    local status=$?
    rm -rf "$tmp"
    [ $status != 0 ] || exit 0
    echo "no luck in this round; retrying" >&2
    sleep 2
    exec "$0" "$NAME"
}
trap again EXIT
trap 'exit 0' TERM INT HUP

# tell_curl OPTION VALUE…, as far as there is one: by a file, as other people of the machine see what a command line says.
tell_curl() { printf '%s = "%s"\n' "$@" | sed '/= ""$/d' >"$tmp/curl"; }
case $SKED_BACKEND in consul*) . "$here/consul.sh" ;; *) . "$here/etcd.sh" ;; esac

# decide WHAT [SERVICE]: by a function of scheduler.jq.
decide() {
    jq -rcs -L "$here" --arg service "${2-}" --argjson seed $RANDOM "include \"scheduler\"; $1" "$tmp"/{items,memory,healthy}
}

# Read what stands in the store, and take note of hosts and rejections. The markers come before the tasks, so that a guard
# on them speaks of those tasks.
look() {
    read_items meta/ scheduling/ state/tasks/ config/ hosts/ status/services/ >"$tmp/items"
    decide remembered >"$tmp/memory.new"
    mv "$tmp/memory.new" "$tmp/memory"
    decide 'names($service)' "${1-}" >"$tmp/names"
    healthy $(cat "$tmp/names") >"$tmp/healthy"
}

# Do what there is to do for one service, under its lock; `busy` if there was anything.
evaluate() {
    local ops lock="locks/services/$1"
    ops=$(decide 'work($service; $seed)' "$1")
    [ "$ops" != "[]" ] || return 0
    renew # a round may take longer than the lease where the machine is busy
    commit "[[\"check\", \"$lock\", 0], [\"bind\", \"$lock\", \"$NAME\"]]" || return 0
    busy=yes
    look "$1" # as it is now that no other scheduler changes it
    ops=$(decide "[[\"fence\", \"$lock\"], work(\$service; \$seed)[], [\"delete\", \"$lock\"]]" "$1")
    commit "$ops" || commit "[[\"fence\", \"$lock\"], [\"delete\", \"$lock\"]]" || true # an agent, or who declares, was faster
}

echo '{"away": {}, "rejected": {}}' >"$tmp/memory"
echo '[]' >"$tmp/healthy"
take_lease
# For `sked status` to know that somebody is there.
commit "[[\"bind\", \"scheduling/schedulers/$NAME-$lease\", \"{\\\"schedulers\\\": [\\\"$NAME\\\"]}\"]]"
while true; do
    renew
    look
    busy=
    for service in $(decide mine | shuf); do [ -n "$busy" ] || evaluate "$service"; done
    [ -n "$busy" ] || sleep 1
done
