"""The standalone relay: carries ciphertext at its own advertised address, told by the exchange whom to cut.

Owns: the composition of the process and the exchange's orders to a relay.
Never does: read what it carries; decide; keep state beyond its identity.
Called by: cli.
"""
