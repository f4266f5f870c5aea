"""A cluster in one thread: the code of real schedulers and agents over a simulated store, engines, health and clock,
under faults at every step, judged by invariants. Everything follows from one seed (``pip install sked-core[testing]``).
"""
