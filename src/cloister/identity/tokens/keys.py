"""Public keys of an issuer (JWK, RFC 7517): what is weak, private, ambiguous or meant for something else is left out.

Each key is bound to the algorithms that it may verify before any token is seen, so a token's `alg` chooses nothing (case 2).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from cloister.model.jwk import SECRET_MEMBERS

MAX_KEYS = 100
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
MAX_KID = 256

Key = RSAKey | ECKey | OKPKey

ALGORITHMS: Mapping[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""Every algorithm that can be configured, with the one key type and curve it takes. Symmetric ones are not among them."""

_ROCA_PRIMES = tuple(
    number for number in range(3, 168) if all(number % divisor for divisor in range(2, 13)) or number in (3, 5, 7, 11)
)


class KeysUnusable(ValueError):
    """This is not a set of keys at all."""


class _Unfit(Exception):
    """Why one key of a set is left out."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    kid: str | None
    algorithms: frozenset[str]
    key: Key


@dataclass(frozen=True, slots=True)
class KeySet:
    """`left_out` says for each key of the document that is not used why: `<kid>: <reason>`."""

    keys: tuple[VerificationKey, ...]
    left_out: tuple[str, ...] = ()

    @staticmethod
    def from_jwks(document: Mapping[str, Any], algorithms: frozenset[str]) -> "KeySet":
        """The keys of a JWK Set that can verify one of `algorithms`. Raises KeysUnusable if it is no JWK Set."""
        listed = document.get("keys")
        if not isinstance(listed, list):
            raise KeysUnusable("the document has no list `keys`")
        if len(listed) > MAX_KEYS:
            raise KeysUnusable(f"the document lists more than `{MAX_KEYS}` keys")
        known = algorithms & ALGORITHMS.keys()
        named = Counter(kid for key in listed if isinstance(key, dict) and isinstance(kid := key.get("kid"), str))
        keys: list[VerificationKey] = []
        left_out: list[str] = []
        for item in listed:
            try:
                keys.append(_read_key(item, known, named))
            except _Unfit as unfit:
                kid = item.get("kid") if isinstance(item, dict) else None
                left_out.append(f"{str(kid)[:MAX_KID] if isinstance(kid, str) and kid.isprintable() else '-'}: {unfit}")
        return KeySet(tuple(keys), tuple(left_out))

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """The one key for this name and algorithm. A token that names none gets the only key there is, never a choice."""
        fit = [key for key in self.keys if algorithm in key.algorithms and (kid is None or key.kid == kid)]
        return fit[0] if len(fit) == 1 else None

    def has(self, kid: str | None) -> bool:
        return kid is None or any(key.kid == kid for key in self.keys)


def _read_key(item: Any, algorithms: frozenset[str], named: Counter[str]) -> VerificationKey:
    if not isinstance(item, dict):
        raise _Unfit("not an object")
    kid, kty, use, operations, alg = (item.get(name) for name in ("kid", "kty", "use", "key_ops", "alg"))
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID):
        raise _Unfit("`kid` is not a short text")
    if kid is not None and named[kid] > 1:
        raise _Unfit("another key has the same `kid`")
    if not SECRET_MEMBERS.isdisjoint(item):
        raise _Unfit("it holds secret parts, which everybody has read by now")
    if use is not None and use != "sig":
        raise _Unfit("`use` is not `sig`")
    if operations is not None and (not isinstance(operations, list) or "verify" not in operations):
        raise _Unfit("`key_ops` does not list `verify`")
    curve = item.get("crv")
    fit = frozenset(
        name
        for name in algorithms
        if (kty, curve if kty in ("EC", "OKP") else None) == ALGORITHMS[name] and (alg is None or alg == name)
    )
    if not fit:
        raise _Unfit("it fits none of the configured algorithms")
    return VerificationKey(kid, fit, _import(str(kty), item))


def _import(kty: str, item: dict[str, Any]) -> Key:
    try:
        match kty:
            case "RSA":
                return _checked_rsa(item)
            case "EC":
                return ECKey.import_key({name: item[name] for name in ("kty", "crv", "x", "y")})
            case _:
                return OKPKey.import_key({name: item[name] for name in ("kty", "crv", "x")})
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise _Unfit("it cannot be read") from None


def _checked_rsa(item: dict[str, Any]) -> RSAKey:
    modulus, exponent = item["n"], item["e"]
    if not isinstance(modulus, str) or not isinstance(exponent, str) or len(modulus) > MAX_RSA_BITS // 4 or len(exponent) > 16:
        raise _Unfit("it cannot be read")
    if len(modulus) * 6 < MIN_RSA_BITS - 8:  # before the library warns about it
        raise _Unfit(f"it has fewer than `{MIN_RSA_BITS}` bits")
    key = RSAKey.import_key({"kty": "RSA", "n": modulus, "e": exponent})
    numbers = key.public_key.public_numbers()
    if not MIN_RSA_BITS <= numbers.n.bit_length() <= MAX_RSA_BITS:
        raise _Unfit(f"it has not between `{MIN_RSA_BITS}` and `{MAX_RSA_BITS}` bits")
    if numbers.e < 65537 or numbers.e % 2 == 0:
        raise _Unfit("its exponent is weak")
    if _is_roca(numbers.n):
        raise _Unfit("it was made by a faulty generator (CVE-2017-15361)")
    return key


def _is_roca(modulus: int) -> bool:
    """Nemec et al., "The Return of Coppersmith's Attack" (2017), §2.4: such moduli lie in the subgroup of 65537 modulo every small prime."""
    return all(modulus % prime in {pow(65537, power, prime) for power in range(prime)} for prime in _ROCA_PRIMES)
