"""Secrets that people and machines present: passwords (Argon2id, RFC 9106) and random tokens (SHA-256: 256 random bits need no stretching).

Argon2 is slow on purpose: call `hash_password` and `verify_password` in a worker thread only.
"""

import hashlib
import hmac
import secrets

import argon2

MIN_PASSWORD_CHARS = 10
MAX_PASSWORD_CHARS = 1024

_hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)  # the OWASP minimum; ~25 ms
_nobody = _hasher.hash(secrets.token_hex(16))


def hash_password(password: str) -> str:
    return _hasher.hash(password)


def verify_password(stored: str | None, password: str) -> bool:
    """Whether the password fits. Without a stored hash it takes the same time and is False, so that no account can be guessed by timing."""
    try:
        return _hasher.verify(stored or _nobody, password) and stored is not None
    except (argon2.exceptions.VerifyMismatchError, argon2.exceptions.InvalidHashError, argon2.exceptions.VerificationError):
        return False


def make_secret() -> str:
    """256 random bits, base64url."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def secret_fits(stored_hash: str, secret: str) -> bool:
    """Constant time."""
    return hmac.compare_digest(stored_hash, hash_secret(secret))
