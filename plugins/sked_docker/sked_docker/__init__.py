"""The ``docker`` executor: runs the containers of tasks on a Docker engine."""
