"""The nouns as plain data. Imports nothing of ours; no I/O, no clock."""
