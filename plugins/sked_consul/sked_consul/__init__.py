"""Consul as Sked's store and health provider."""
