# The store of scheduler.sh: etcd's JSON gateway. Each function is what it is in consul.sh.

api=http://${SKED_BACKEND#etcd://}/v3

call() { curl -fsS -m 15 --data-binary @- "$api/$1" <<<"$2"; }

read_items() {
    local ranges
    ranges=$(jq -nc --arg prefix "$PREFIX" --arg prefixes "$PREFIXES" '{success: ($prefixes | split(" ") | map($prefix + . |
        {request_range: {key: @base64, range_end: (.[:-1] + "0" | @base64)}}))}') # "0" follows "/"
    call kv/txn "$ranges" | jq -c --arg prefix "$PREFIX" '[.responses[].response_range.kvs // [] | .[] |
        {key: (.key | @base64d | ltrimstr($prefix)),
         value: {value: (.value // "" | @base64d), revision: (.mod_revision | tonumber)}}] | from_entries'
}

commit() {
    local txn
    txn=$(jq -c --arg prefix "$PREFIX" --arg lease "$(cat "$tmp/lease")" 'map(. as [$kind, $key, $more] |
        ($prefix + $key | @base64) as $key | {
        check: {compare: {key: $key, target: "MOD", mod_revision: "\($more)"}},
        fence: {compare: {key: $key, target: "LEASE", lease: $lease}},
        put: {success: {request_put: {key: $key, value: ("\($more)" | @base64)}}},
        bind: {success: {request_put: {key: $key, value: ("\($more)" | @base64), lease: $lease}}},
        delete: {success: {request_delete_range: {key: $key}}}}[$kind]) |
        {compare: map(.compare // empty), success: map(.success // empty)}' <<<"$1") || exit 1
    call kv/txn "$txn" >"$tmp/body" || exit 1
    jq -e .succeeded "$tmp/body" >/dev/null
}

take_lease() { call lease/grant '{"TTL": '"$LEASE_TTL"'}' | jq -r .ID >"$tmp/lease"; }

renew() { call lease/keepalive '{"ID": "'"$(cat "$tmp/lease")"'"}' | jq -e '.result.TTL // 0 | tonumber > 0' >/dev/null; }

wait_for_change() { sleep 1; } # `curl -N $api/watch` would tell at once, but a shell can do without

# With etcd the agents' own probes stand in the store.
healthy() {
    jq -c 'to_entries | map(select(.key | startswith("health/")) | select(.value.value | fromjson | .healthy) |
        .key | split("/")[2])' "$tmp/items"
}
