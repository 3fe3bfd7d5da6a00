from typing import Any

import pytest
from joserfc.jwk import RSAKey
from tests.unit.identity.tokens.minting import ec, jwks, okp, rsa

from cloister.identity.tokens.keys import ALGORITHMS, MAX_KEYS, KeySet, KeysUnusable

ALL = frozenset(ALGORITHMS)


def reasons(document: dict[str, Any], algorithms: frozenset[str] = ALL) -> tuple[int, str]:
    found = KeySet.from_jwks(document, algorithms)
    return len(found.keys), " ".join(found.left_out)


def test_keys_are_bound_to_the_algorithms_that_fit_them() -> None:
    found = KeySet.from_jwks(jwks(rsa(), ec(), okp()), ALL)
    assert [sorted(key.algorithms) for key in found.keys] == [
        ["PS256", "PS384", "PS512", "RS256", "RS384", "RS512"],
        ["ES256"],
        ["EdDSA"],
    ]
    assert KeySet.from_jwks(jwks(rsa(), ec(), okp()), frozenset({"ES256"})).keys[0].kid == "ec"


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"use": "enc"}, "use"),
        ({"use": 1}, "use"),
        ({"key_ops": ["sign"]}, "key_ops"),
        ({"key_ops": "verify"}, "key_ops"),
        ({"key_ops": []}, "key_ops"),
        ({"alg": "ES256"}, "fits none"),
        ({"alg": "HS256"}, "fits none"),
        ({"alg": "none"}, "fits none"),
        ({"alg": ["RS256"]}, "fits none"),
        ({"kty": "EC"}, "fits none"),
        ({"kty": "oct", "k": "AAAA"}, "secret"),
        ({"d": "AAAA"}, "secret"),
        ({"kid": 1}, "kid"),
        ({"kid": "x" * 257}, "kid"),
        ({"n": "AQAB"}, "bits"),
        ({"n": 7}, "read"),
        ({"n": "!" * 400}, "read"),
        ({"n": "A" * 3000}, "read"),
        ({"e": "AQ"}, "read"),
        ({"e": "Aw"}, "weak"),
        ({"e": "AQAA"}, "read"),
        ({"e": "A" * 17}, "read"),
    ],
)
def test_keys_that_are_unfit_are_left_out_with_the_reason(extra: dict[str, Any], why: str) -> None:
    count, said = reasons(jwks(rsa(), **extra))
    assert count == 0
    assert why in said


def test_private_keys_and_doubled_names_are_left_out() -> None:
    assert reasons({"keys": [rsa().as_dict(private=True)]})[0] == 0
    assert reasons({"keys": [*jwks(rsa("one"))["keys"], *jwks(ec("one"), ec("two"))["keys"]]})[0] == 1


def test_small_and_odd_curve_keys_are_left_out() -> None:
    point = ec().as_dict(private=False)
    assert reasons({"keys": [{**point, "x": point["y"]}]}) == (0, "ec: it cannot be read")  # not on the curve
    assert reasons({"keys": [{**point, "crv": "secp256k1"}]})[0] == 0
    assert reasons({"keys": [{**point, "crv": "P-224"}]})[0] == 0
    assert reasons({"keys": [{"kty": "OKP", "crv": "X25519", "x": "A" * 43}]})[0] == 0
    with pytest.warns(Warning, match="2048"):
        small = RSAKey.generate_key(1024)
    assert reasons({"keys": [small.as_dict(private=False)]}) == (0, "-: it has fewer than `2048` bits")


@pytest.mark.parametrize("document", [{}, {"keys": None}, {"keys": {}}, {"keys": "x"}, {"keys": [{}] * (MAX_KEYS + 1)}])
def test_what_is_no_set_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(KeysUnusable):
        KeySet.from_jwks(document, ALL)


def test_entries_that_are_no_keys_are_left_out() -> None:
    assert reasons({"keys": [None, 1, "x", [], {}, *jwks(rsa())["keys"]]})[0] == 1
    assert len(KeySet.from_jwks({"keys": [{}] * MAX_KEYS}, ALL).left_out) == MAX_KEYS
