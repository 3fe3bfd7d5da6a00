"""Security events and risk: who sent what about whom, and what it does to sessions.

Owns the receiver, the poller, the events that were taken, and risk scores. Never ends a session by itself: it changes evidence, and evidence has the
sessions of its subject decided again. Called by the API, by the composition root, and (`standing`) by whoever makes facts.
"""
