"""Owns: what clients report of their devices and others push about them, where clients are, and at how many places a principal is.
Never does: decide (policy), judge a fact (identity.posture). Called by the exchange's service, its API, and `facts`.
"""
