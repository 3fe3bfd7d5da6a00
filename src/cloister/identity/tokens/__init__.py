"""Tokens that others signed (JWS, RFC 7515; JWT, RFC 7519): keys, verification, and the claims that only a verification yields.

Owns what is accepted as proof from another issuer. Never fetches anything. Called by sign-in, workloads and signals.
"""
