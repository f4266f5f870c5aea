# What the agent of one host needs in Consul: put its name in the place of HOST (sed s/HOST/web-1/g). With --prefix, put
# that before each key. Whoever can write state/hosts/ runs code on that host.
key_prefix "config/"             { policy = "read" }
key_prefix "state/"              { policy = "read" }
key_prefix "hosts/"              { policy = "read" }
key_prefix "agents/HOST"         { policy = "read" }
key_prefix "meta/"               { policy = "write" }
key        "config/hosts/HOST"   { policy = "write" }
key        "hosts/live/HOST"     { policy = "write" }
key        "agents/HOST"         { policy = "write" }
key_prefix "state/hosts/HOST/"   { policy = "write" }
key_prefix "state/tasks/"        { policy = "write" }
key_prefix "scheduling/changed/" { policy = "write" }
key_prefix "failures/"           { policy = "write" }
key_prefix "endings/HOST/"       { policy = "write" }
key_prefix "events/"             { policy = "write" }

# Its lease, and the services and checks of its tasks on the Consul agent of the same machine.
session_prefix "" { policy = "write" }
service_prefix "" { policy = "write" }
node_prefix    "" { policy = "read" }
