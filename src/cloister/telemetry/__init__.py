"""Access records on the exchange: the journal that the core writes, the decisions that the exchange adds, and queries over both.

Owns: the files of the exchange's own decisions, reading. Never: decides, blocks a flow. Called by `exchange`.
"""
