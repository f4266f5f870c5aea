"""What people can do: each function is one guarded commit, or several, with the events that tell of it."""
