"""The parts of ExecutorContract: see sked_core.testing.executors."""
