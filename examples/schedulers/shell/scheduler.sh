#!/usr/bin/env bash
# A scheduler for Sked that shares nothing with it but the store: bash, curl and jq, and no line of Sked.
#
#     SKED_BACKEND=consul://127.0.0.1:8500 ./scheduler.sh NAME        (or etcd://127.0.0.1:2379)
#
# places every service that says `scheduler: NAME`. Run as many of it as you like, and kill any of them at any time.
# docs/outside-schedulers.md says why each write looks as it does; scheduler.jq decides, consul.sh and etcd.sh speak to
# the stores. LOST_AFTER: seconds without a living agent after which a host's tasks are replaced; SKED_PREFIX: of all keys.
set -uo pipefail

export NAME=$1
PREFIX=${SKED_PREFIX:+${SKED_PREFIX%/}/} LOST_AFTER=${LOST_AFTER-60}
# What is read, and in which order: the markers before the tasks, so that a guard on them speaks of those tasks.
PREFIXES="scheduling/ state/tasks/ config/ hosts/ status/services/ rollouts/"
BATCH=14 # changes in one commit, of up to 4 operations each: Consul takes 64 in a transaction, etcd 128
here=$(dirname "${BASH_SOURCE[0]}")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# What each curl is told by a file, as other people of the machine see what a command line says.
certificates() { # CA CERT KEY: of files, as far as they were given
    printf '%s = "%s"\n' ${1:+cacert "$1"} ${2:+cert "$2"} ${3:+key "$3"} >"$tmp/certificates"
    [ -n "$1$2$3" ] || : >"$tmp/certificates"
    cp "$tmp/certificates" "$tmp/curl"
}
authorize() { # HEADER, if any: from now on
    { cat "$tmp/certificates" && if [ -n "$1" ]; then printf 'header = "%s"\n' "$1"; fi; } >"$tmp/curl"
}
kind=${SKED_BACKEND%%://*}
. "$here/${kind%+*}.sh"

decide() {
    local what=$1
    shift
    jq -c -L "$here" "include \"scheduler\"; $what" "$@"
}

# Read what stands in the store into $tmp/items, and take note of hosts and rejections in $tmp/memory.
look() {
    read_items >"$tmp/items"
    decide 'look($memory[0]; now)' --slurpfile memory "$tmp/memory" "$tmp/items" >"$tmp/memory.new"
    mv "$tmp/memory.new" "$tmp/memory"
}

# todo SERVICE: the operations that there are for it.
todo() {
    local clusters
    clusters=$(decide 'world as $w | listing($w; $name) + placed_in($w; $name) | unique[]' -r --arg name "$1" "$tmp/items")
    healthy "$1" $clusters >"$tmp/healthy"
    decide 'work($name; $memory[0]; $healthy[0]; now; $lost_after; $batch; $seed)' --arg name "$1" \
        --slurpfile memory "$tmp/memory" --slurpfile healthy "$tmp/healthy" --argjson lost_after "$LOST_AFTER" \
        --argjson batch "$BATCH" --argjson seed "$RANDOM" "$tmp/items"
}

# Do what there is to do for one service, under its lock. Leaves $tmp/done if anything was done.
evaluate() {
    local ops lock="locks/services/$1"
    ops=$(todo "$1")
    [ "$ops" != "[]" ] || return 0
    renew # a round may take longer than the lease where the machine is busy
    commit "[[\"check\", \"$lock\", 0], [\"bind\", \"$lock\", \"$NAME\"]]" || return 0
    look # as it is now that no other scheduler changes it
    ops=$(todo "$1")
    if [ "$ops" != "[]" ] && commit "[[\"fence\", \"$lock\"], ${ops:1:-1}, [\"delete\", \"$lock\"]]"; then
        touch "$tmp/done"
    else
        commit "[[\"fence\", \"$lock\"], [\"delete\", \"$lock\"]]" || true # an agent was faster: the next round sees
    fi
}

round() {
    if [ ! -s "$tmp/lease" ] || ! renew; then
        take_lease
        # For `sked status` to know that somebody is there.
        commit "[[\"bind\", \"scheduling/schedulers/$NAME-$(hostname)-$$-$RANDOM\", $(jq -cn '{schedulers: [$ENV.NAME]} | tojson')]]"
    fi
    look
    local service
    for service in $(decide 'mine($ENV.NAME)' -r "$tmp/items"); do evaluate "$service"; done
}

echo '{"away": {}, "noted": [], "rejections": {}}' >"$tmp/memory"
while true; do
    rm -f "$tmp/done"
    (set -e; round)
    if [ $? != 0 ]; then
        # The store is away, or a record can't be read: what runs goes on meanwhile.
        echo "no luck in this round; retrying" >&2
        rm -f "$tmp/lease"                                                                        # what a commit without an answer has locked goes with the lease
        jq -c '.away = {}' "$tmp/memory" >"$tmp/memory.new" && mv "$tmp/memory.new" "$tmp/memory" # nobody could know
    fi
    [ -e "$tmp/done" ] || sleep 1
done
