"""etcd (v3) as Sked's store."""
