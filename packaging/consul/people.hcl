# Who declares: sked apply, scale, delete, drain, rollout, rebalance, and whatever only looks. With --prefix, put that
# before each key.
key_prefix     ""                     { policy = "read" }
key_prefix     "config/"              { policy = "write" }
key_prefix     "hosts/marks/"         { policy = "write" }
key_prefix     "scheduling/rollouts/" { policy = "write" }
key_prefix     "scheduling/moves/"    { policy = "write" }
key_prefix     "rollouts/"            { policy = "write" }
key_prefix     "events/"              { policy = "write" }
key_prefix     "meta/"                { policy = "write" }
service_prefix ""                     { policy = "read" }
node_prefix    ""                     { policy = "read" }
