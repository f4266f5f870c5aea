"""Webhooks on what happens in Sked."""
