# What the agent of one host needs in Consul: put its name in the place of HOST, and the name of the Consul agent beside
# it (mostly the same) in that of NODE: sed "s/HOST/web-1/g; s/NODE/web-1/g". With --prefix, put that before each key.
# What whoever steals such a token can do with it: docs/operations.md. The store's id is made by whoever else comes first,
# a scheduler or an apply: agents wait for that.
key_prefix "config/"             { policy = "read" }
key_prefix "state/"              { policy = "read" }
key_prefix "hosts/"              { policy = "read" }
key_prefix "agents/HOST"         { policy = "read" }
key_prefix "meta/"               { policy = "read" }
key        "config/hosts/HOST"   { policy = "write" }
key        "hosts/live/HOST"     { policy = "write" }
key        "agents/HOST"         { policy = "write" }
key_prefix "state/hosts/HOST/"   { policy = "write" }
key_prefix "state/tasks/"        { policy = "write" } # to reject; nothing is started because of what stands there
key_prefix "scheduling/changed/" { policy = "write" }
key_prefix "failures/"           { policy = "write" }
key_prefix "endings/HOST/"       { policy = "write" }
key_prefix "events/"             { policy = "write" }

# Its lease.
session "NODE" { policy = "write" }

# The services and checks of its tasks on the Consul agent of the same machine. Where the host takes tasks of some
# clusters only (--allow-cluster), a line for each of them is enough: service_prefix "CLUSTER-" { policy = "write" }
service_prefix "" { policy = "write" }
node_prefix    "" { policy = "read" }
