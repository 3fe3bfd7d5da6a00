"""The process beside the services: takes orders from the exchange, enforces in the core, opens the last hop.

Owns: health checks, the order of assignments, snapshots and revocations, draining.
Never does: decide who may reach what; listen; load a database, a web framework or policy.
Called by: cli.
"""
