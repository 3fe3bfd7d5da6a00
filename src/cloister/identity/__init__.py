"""Who is asking: tokens of other issuers, sign-in protocols, facts about devices, signals.

Owns the protocols, as pure as they can be: text in, verified values out. Never touches state, store or network; that is the exchange's part.
Called by `exchange`.
"""
