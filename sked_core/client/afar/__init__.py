"""What the agents of other hosts offer: the logs of tasks, and commands run in them."""
