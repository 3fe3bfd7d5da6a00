"""JSON Web Keys (RFC 7517), as far as all who read one agree."""

SECRET_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members of a private or symmetric key (RFC 7518 §6): a key that has one was given away by whoever showed it."""
