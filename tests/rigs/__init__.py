"""Real servers for tests and for people: one Consul or etcd, or a whole cluster of either that faults can be put on.

Standard library only: ``scripts/services cluster`` runs it without any environment set up.
"""
