"""Owns: what this device says of itself: bounded reading, pure parsing, and when to report what. Linux; elsewhere it says little.
Never does: judge (the exchange does), look at a process, file or certificate that no posture profile names. Called by the client's service and the CLI.
"""
