"""Cloister: exactly the private services that policy allows, and nothing else."""
