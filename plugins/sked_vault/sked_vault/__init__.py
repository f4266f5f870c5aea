"""Secrets out of the key-value engine, version 2, of Vault or OpenBao."""
