"""Owns: what reports of devices are worth, whether a posture profile holds, which named networks and places an address is in. Pure.
Never does: read a clock, collect a fact, keep one. Called by the exchange; the CLI shows with it what would pass.
"""
