"""Real servers for tests and for people: one Consul or etcd, or a whole cluster of either that faults can be put on.

What ``scripts/services cluster`` runs, ``clusters`` and all that it imports, needs the standard library only: no
environment is set up for it. ``sked`` and ``clients`` are for tests alone.
"""
