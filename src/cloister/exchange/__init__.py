"""The exchange: the broker.

Owns: links of agents, enrolment, sessions and their continuous verification, placement, the set of relays, the REST API. Never: touches
a byte of a flow, decides outside of `policy`, signs outside of `trust`. Called by `cli`, which gives `main.run` its settings.

Everything that decides runs on one event loop, on state in memory that is replaced only after its change is committed. Waiting (disk,
Argon2, large documents) happens in worker threads.
"""
