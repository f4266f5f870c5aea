"""Runs tasks as plain processes: started by bash, found again by a marker in their environment."""
