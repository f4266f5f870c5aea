# The store of scheduler.sh: etcd's JSON gateway. Each function is what it is in consul.sh.

case ${SKED_BACKEND%%://*} in etcd+https) scheme=https ;; *) scheme=http ;; esac
api=$scheme://${SKED_BACKEND#*://}/v3
certificates "${ETCDCTL_CACERT-}" "${ETCDCTL_CERT-}" "${ETCDCTL_KEY-}"

call() { curl -fsS -m 15 -K "$tmp/curl" --data-binary @- "$api/$1" <<<"$2"; }

# ranges PREFIX…: of one revision; "0" follows "/".
ranges() {
    local asked
    asked=$(jq -nc --arg prefix "$PREFIX" '{success: ($ARGS.positional | map($prefix + . |
        {request_range: {key: @base64, range_end: (.[:-1] + "0" | @base64)}}))}' --args "$@")
    call kv/txn "$asked" | jq -c --arg prefix "$PREFIX" '[.responses[].response_range.kvs // [] | .[] |
        {key: (.key | @base64d | ltrimstr($prefix)),
         value: {value: (.value // "" | @base64d), revision: .mod_revision}}] | from_entries'
}

read_items() { ranges $PREFIXES; }

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

take_lease() {
    if [ -n "${ETCDCTL_USER-}" ]; then # logs in anew with each lease: etcd forgets who was idle
        authorize ""
        call auth/authenticate "$(jq -n '(env.ETCDCTL_USER | split(":")) as [$name] |
            {$name, password: (env.ETCDCTL_USER[($name | length) + 1:] | if . == "" then env.ETCDCTL_PASSWORD else . end)}')" \
            >"$tmp/body"
        authorize "Authorization: $(jq -r .token "$tmp/body")"
    fi
    call lease/grant '{"TTL": 30}' | jq -r .ID >"$tmp/lease"
}

renew() { call lease/keepalive '{"ID": "'"$(cat "$tmp/lease")"'"}' | jq -e '.result.TTL // 0 | tonumber > 0' >/dev/null; }

# With etcd the agents' own probes stand in the store, below each host.
healthy() {
    ranges health/ | jq -c 'to_entries | map(select(.value.value | fromjson | .healthy) | .key | split("/")[2])'
}
