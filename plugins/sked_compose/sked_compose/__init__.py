"""Sked manifests out of docker compose files."""
