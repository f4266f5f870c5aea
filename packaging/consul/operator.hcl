# Who restarts and stops tasks and holds roll-outs as well, and the page, if it is to do so for others. Whoever can write
# state/hosts/ runs code on your hosts. With --prefix, put that before each key.
key_prefix     ""                     { policy = "read" }
key_prefix     "config/"              { policy = "write" }
key_prefix     "hosts/marks/"         { policy = "write" }
key_prefix     "scheduling/rollouts/" { policy = "write" }
key_prefix     "scheduling/moves/"    { policy = "write" }
key_prefix     "scheduling/changed/"  { policy = "write" }
key_prefix     "rollouts/"            { policy = "write" }
key_prefix     "state/"               { policy = "write" }
key_prefix     "failures/"            { policy = "write" }
key_prefix     "events/"              { policy = "write" }
key_prefix     "meta/"                { policy = "write" }
service_prefix ""                     { policy = "read" }
node_prefix    ""                     { policy = "read" }
