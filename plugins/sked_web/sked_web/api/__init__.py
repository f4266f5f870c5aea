"""The API: one table of routes, from which what is served, what is documented and who may do what all come."""
