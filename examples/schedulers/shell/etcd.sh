# The store of scheduler.sh: etcd's JSON gateway. Each function is what it is in consul.sh.

case ${SKED_BACKEND%%:*}-${ETCDCTL_CACERT-}${ETCDCTL_CERT-} in etcd-) scheme=http ;; *) scheme=https ;; esac

call() { curl -fsS -m 15 -K "$tmp/curl" -d @- "$scheme://${SKED_BACKEND#*://}/v3/$1" <<<"$2"; }

take_lease() {
    local files=(cacert "${ETCDCTL_CACERT-}" cert "${ETCDCTL_CERT-}" key "${ETCDCTL_KEY-}") token
    tell_curl "${files[@]}"
    if [ -n "${ETCDCTL_USER-}" ]; then
        token=$(call auth/authenticate "$(jq -n 'env.ETCDCTL_USER / ":" | {name: .[0],
            password: (.[1:] | if . == [] then env.ETCDCTL_PASSWORD else join(":") end)}')" | jq -r .token)
        tell_curl "${files[@]}" header "Authorization: $token"
    fi
    lease=$(call lease/grant '{"TTL": 30}' | jq -r .ID)
}

renew() { call lease/keepalive "{\"ID\": \"$lease\"}" | jq -e .result.TTL >/dev/null; }

# All of one revision; "0" follows "/".
read_items() {
    local txn
    txn=$(jq -nc --arg prefix "$PREFIX" '{success: ($ARGS.positional | map($prefix + . |
        {request_range: {key: @base64, range_end: (.[:-1] + "0" | @base64)}}))}' --args "$@")
    call kv/txn "$txn" | jq -c --arg prefix "$PREFIX" '[.responses[].response_range.kvs // [] | .[] | {key: (.key | @base64d
        | ltrimstr($prefix)), value: {value: (.value // "" | @base64d), revision: .mod_revision}}] | from_entries'
}

commit() {
    local txn
    txn=$(jq -c --arg prefix "$PREFIX" --arg lease "$lease" 'map(. as [$kind, $name, $more] |
        {key: ($prefix + $name | @base64)} as $key | ($more | tostring | @base64) as $value | {
        check: {compare: ($key + {target: "MOD", mod_revision: $more})},
        fence: {compare: ($key + {target: "LEASE", $lease})},
        put: {success: {request_put: ($key + {$value})}},
        bind: {success: {request_put: ($key + {$value, $lease})}},
        delete: {success: {request_delete_range: (if $name | endswith("/")
            then $key + {range_end: ($prefix + $name[:-1] + "0" | @base64)} else $key end)}}}[$kind])
        | {compare: map(.compare // empty), success: map(.success // empty)}' <<<"$1") || exit 1
    call kv/txn "$txn" >"$tmp/body" || exit 1
    jq -e .succeeded "$tmp/body" >/dev/null
}

# With etcd the agents' own probes stand in the store, below each host.
healthy() {
    read_items health/ | jq -c 'to_entries | map(select(.value.value | fromjson | .healthy) | .key / "/" | .[2])'
}
