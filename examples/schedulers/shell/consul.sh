# The store of scheduler.sh: Consul's HTTP API.

case ${SKED_BACKEND%%:*}-${CONSUL_HTTP_SSL-} in consul+https-* | *-1 | *-true) scheme=https ;; *) scheme=http ;; esac

# call METHOD PATH [BODY]: prints the status; the answer goes to $tmp/body, its headers to $tmp/head.
call() {
    curl -sS -m 15 -K "$tmp/curl" -X "$1" -o "$tmp/body" -D "$tmp/head" -w '%{http_code}' ${3+-d @-} "$scheme://${SKED_BACKEND#*://}/v1/$2" <<<"${3-}"
}

take_lease() {
    tell_curl cacert "${CONSUL_CACERT-}" cert "${CONSUL_CLIENT_CERT-}" key "${CONSUL_CLIENT_KEY-}" \
        header "X-Consul-Token: ${CONSUL_HTTP_TOKEN-}"
    [ "$(call PUT session/create '{"Name": "outside", "TTL": "30s", "Behavior": "delete", "LockDelay": "0s", "Checks": []}')" = 200 ]
    lease=$(jq -r .ID "$tmp/body")
}

renew() { [ "$(call PUT "session/renew/$lease")" = 200 ]; }

# {"key": {"value": "…", "revision": 7}} for all keys below the prefixes.
read_items() {
    local one
    for one; do
        case $(call GET "kv/$PREFIX$one?recurse&consistent") in
        200) cat "$tmp/body" ;;
        404) grep -qi '^x-consul-index:' "$tmp/head" ;; # Consul's own: nothing is there
        *) false ;;
        esac || return 1
    done | jq -cs --arg prefix "$PREFIX" 'add // [] | map({key: .Key | ltrimstr($prefix),
        value: {value: (.Value // "" | @base64d), revision: .ModifyIndex}}) | from_entries'
}

# commit OPS: all of it or nothing; 1 if it was refused. OPS is a list of ["check", key, revision; 0: not there], ["fence",
# key]: bound to our lease, ["put", key, value], ["bind", key, value]: gone with our lease, ["delete", key, or prefix/].
commit() {
    local txn
    txn=$(jq -c --arg prefix "$PREFIX" --arg lease "$lease" 'map(. as [$kind, $key, $more] | {KV: ({Key: ($prefix + $key)} + {
        check: (if $more == 0 then {Verb: "check-not-exists"} else {Verb: "check-index", Index: $more} end),
        fence: {Verb: "check-session", Session: $lease},
        put: {Verb: "set", Value: ($more | @base64)},
        bind: {Verb: "lock", Value: ($more | @base64), Session: $lease},
        delete: {Verb: (if $key | endswith("/") then "delete-tree" else "delete" end)}}[$kind])})' <<<"$1") || exit 1
    case $(call PUT txn "$txn") in 200) ;; 409) return 1 ;; *) exit 1 ;; esac
}

# healthy CLUSTER-SERVICE…: ids of healthy tasks. Consul keeps their checks itself.
healthy() {
    local name
    for name; do
        [ "$(call GET "health/service/$name?passing")" = 200 ] || return 1
        cat "$tmp/body"
    done | jq -cs 'add // [] | map(.Service.ID)'
}
