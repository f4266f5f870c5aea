# The store of scheduler.sh: Consul's HTTP API. Each function fails where there was no answer that means something.

case ${SKED_BACKEND%%://*}-${CONSUL_HTTP_SSL-} in consul+https-* | *-1 | *-true) scheme=https ;; *) scheme=http ;; esac
api=$scheme://${SKED_BACKEND#*://}/v1
certificates "${CONSUL_CACERT-}" "${CONSUL_CLIENT_CERT-}" "${CONSUL_CLIENT_KEY-}"
authorize "X-Consul-Token: ${CONSUL_HTTP_TOKEN-}"

# call METHOD PATH [BODY]: prints the status; the answer goes to $tmp/body, its headers to $tmp/head.
call() {
    curl -sS -m 15 -K "$tmp/curl" -X "$1" -o "$tmp/body" -D "$tmp/head" -w '%{http_code}' ${3+--data-binary @-} "$api/$2" <<<"${3-}"
}

# All keys below PREFIXES: {"key": {"value": "…", "revision": 7}}.
read_items() {
    local one
    for one in $PREFIXES; do
        case $(call GET "kv/$PREFIX$one?recurse&consistent") in
        200) cat "$tmp/body" ;;
        404) grep -qi '^x-consul-index:' "$tmp/head" && echo '[]' || return 1 ;; # Consul's own: nothing is there
        *) return 1 ;;
        esac
    done | jq -cs --arg prefix "$PREFIX" 'add | map({key: .Key | ltrimstr($prefix),
        value: {value: (.Value // "" | @base64d), revision: .ModifyIndex}}) | from_entries'
}

# commit OPS: all of it or nothing. 1: refused. OPS is a list of ["check", key, revision; 0: not there], ["fence", key]:
# bound to our lease, ["put", key, value], ["bind", key, value]: gone with our lease, ["delete", key].
commit() {
    local verbs
    verbs=$(jq -c --arg prefix "$PREFIX" --arg lease "$(cat "$tmp/lease")" 'map(. as [$kind, $key, $more] | {KV: ({Key: ($prefix + $key)} + {
        check: (if $more == 0 then {Verb: "check-not-exists"} else {Verb: "check-index", Index: $more} end),
        fence: {Verb: "check-session", Session: $lease},
        put: {Verb: "set", Value: ($more | @base64)},
        bind: {Verb: "lock", Value: ($more | @base64), Session: $lease},
        delete: {Verb: "delete"}}[$kind])})' <<<"$1") || exit 1
    case $(call PUT txn "$verbs") in 200) ;; 409) return 1 ;; *) exit 1 ;; esac
}

take_lease() {
    local wanted='{"Name": "outside", "TTL": "30s", "Behavior": "delete", "LockDelay": "0s", "Checks": []}'
    [ "$(call PUT session/create "$wanted")" = 200 ]
    jq -r .ID "$tmp/body" >"$tmp/lease"
}

# Whether the lease lives on.
renew() { [ "$(call PUT "session/renew/$(cat "$tmp/lease")")" = 200 ]; }

# healthy SERVICE CLUSTER…: ids of healthy tasks. Consul keeps their checks itself, below the name of the service.
healthy() {
    local service=$1 cluster
    shift
    for cluster; do
        [ "$(call GET "health/service/$cluster-$service?passing")" = 200 ] && cat "$tmp/body" || return 1
    done | jq -cs 'add // [] | map(.Service.ID)'
}
