# What a scheduler needs in Consul. With --prefix, put that before each key.
key_prefix "config/"          { policy = "read" }
key_prefix "hosts/"           { policy = "read" }
key_prefix "failures/"        { policy = "read" }
key_prefix "config/services/" { policy = "write" } # to roll back
key_prefix "state/"           { policy = "write" }
key_prefix "locks/"           { policy = "write" }
key_prefix "status/"          { policy = "write" }
key_prefix "scheduling/"      { policy = "write" }
key_prefix "rollouts/"        { policy = "write" }
key_prefix "decisions/"       { policy = "write" }
key_prefix "events/"          { policy = "write" }
key_prefix "meta/"            { policy = "write" }

# Its lease, and the health of tasks.
session_prefix "" { policy = "write" }
service_prefix "" { policy = "read" }
node_prefix    "" { policy = "read" }
