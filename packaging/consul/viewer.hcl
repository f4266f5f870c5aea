# Who only looks: sked status, tasks, explain, events and the like. With --prefix, put that before the key.
key_prefix     "" { policy = "read" }
service_prefix "" { policy = "read" }
node_prefix    "" { policy = "read" }
