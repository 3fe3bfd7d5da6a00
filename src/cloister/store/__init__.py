"""The store: what the exchange must remember, in SQLite.

Owns: tables, migrations, transactions; the rule that whatever can change a decision is committed with a new generation and an audit row
in one transaction. Never: decides, waits, knows of links. Called by `exchange` (from its writer thread) and by backup and restore.
"""
