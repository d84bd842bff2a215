"""A suite with real services, in several forms; ``python -m benchmarks.suite`` runs it, README.rst tells how."""
