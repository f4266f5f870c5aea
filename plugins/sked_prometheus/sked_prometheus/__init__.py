"""Has Prometheus find the tasks that Sked runs."""
