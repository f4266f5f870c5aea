"""Tasks as transient units of systemd."""
