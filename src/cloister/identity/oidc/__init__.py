"""OpenID Connect Core 1.0 as a relying party: what is asked, what an answer must say, what a logout token must say. Pure.

Owns the rules of the protocol. Never asks anybody, never remembers anything: `exchange/signin` does.
"""
