"""Laws of the keys that a cluster's connectors report: what is a rotation, and how long a key that is gone still verifies."""

import pytest
from tests.unit.identity.tokens.minting import ec, jwks, rsa

from cloister.identity.tokens.keys import KeysUnusable
from cloister.identity.tokens.rotation import (
    FORGOTTEN_AFTER,
    MAX_KEPT,
    OVERLAP,
    ClusterKey,
    read_keys,
    rotate,
    verifying,
)
from cloister.model.messages.common import MAX_CLUSTER_KEYS

RS = frozenset({"RS256"})
BOTH = frozenset({"RS256", "ES256"})


def known(*names: str) -> dict[str, ClusterKey]:
    return read_keys(jwks(*(rsa(name) for name in names))["keys"], RS)


def kids(keys: object) -> list[str]:
    return sorted(key.jwk["kid"] for key in keys)  # type: ignore[attr-defined]


def test_a_new_key_beside_a_known_one_is_taken() -> None:
    after = rotate(known("a"), jwks(rsa("a"), rsa("b"))["keys"], RS, 100)
    assert kids(after.values()) == ["a", "b"]
    assert all(key.retired_at is None for key in after.values())


def test_the_same_report_again_changes_nothing() -> None:
    after = rotate(known("a"), jwks(rsa("a"), rsa("b"))["keys"], RS, 100)
    assert rotate(after, jwks(rsa("b"), rsa("a"))["keys"], RS, 200) == after


def test_a_key_that_is_gone_verifies_for_the_overlap_and_no_longer() -> None:
    first = rotate(known("a"), jwks(rsa("a"), rsa("b"))["keys"], RS, 100)
    after = rotate(first, jwks(rsa("b"))["keys"], RS, 200)
    assert kids(verifying(after.values(), 200 + OVERLAP - 1)) == ["a", "b"]
    assert kids(verifying(after.values(), 200 + OVERLAP)) == ["b"]
    assert rotate(after, jwks(rsa("b"))["keys"], RS, 900) == after  # a second report does not begin the overlap anew
    assert kids(rotate(after, jwks(rsa("b"))["keys"], RS, 200 + FORGOTTEN_AFTER).values()) == ["b"]


def test_a_key_that_comes_back_is_as_it_was() -> None:
    first = rotate(known("a"), jwks(rsa("a"), rsa("b"))["keys"], RS, 100)
    gone = rotate(first, jwks(rsa("b"))["keys"], RS, 200)
    assert rotate(gone, jwks(rsa("a"), rsa("b"))["keys"], RS, 300) == first


def test_a_report_that_shares_no_living_key_is_about_another_cluster() -> None:
    with pytest.raises(KeysUnusable, match="another cluster"):
        rotate(known("a"), jwks(rsa("b"))["keys"], RS, 100)
    gone = rotate(rotate(known("a"), jwks(rsa("a"), rsa("b"))["keys"], RS, 100), jwks(rsa("b"))["keys"], RS, 200)
    with pytest.raises(KeysUnusable, match="another cluster"):
        rotate(gone, jwks(rsa("a"))["keys"], RS, 300)


def test_a_known_name_never_comes_to_mean_another_key() -> None:
    swapped = jwks(rsa("a"))["keys"] + [{**jwks(rsa("evil"))["keys"][0], "kid": "b"}]
    with pytest.raises(KeysUnusable, match="the name of a known key"):
        rotate(known("a", "b"), swapped, RS, 100)


@pytest.mark.parametrize(
    "odd",
    [
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "weak"},
        {"kty": "oct", "kid": "symmetric"},
        {**jwks(ec("other"))["keys"][0]},
        {name: value for name, value in jwks(rsa("nameless"))["keys"][0].items() if name != "kid"},
        {**jwks(rsa("twice"))["keys"][0], "kid": "a"},
        {**jwks(rsa("for-encryption"))["keys"][0], "use": "enc"},
        rsa("private").as_dict(private=True),
    ],
    ids=["weak", "symmetric", "other algorithm", "no name", "a name twice", "for encryption", "private"],
)
def test_one_odd_key_refuses_the_whole_report(odd: dict[str, str]) -> None:
    with pytest.raises(KeysUnusable):
        rotate(known("a"), [*jwks(rsa("a"))["keys"], odd], RS, 100)


def test_keys_are_bounded_in_a_report_and_in_all() -> None:
    def report(first: int, count: int) -> list[dict[str, str]]:
        keys: list[dict[str, str]] = jwks(*(ec(f"k{n}") for n in range(first, first + count)))["keys"]
        return keys

    keys = read_keys(report(0, 1), BOTH)
    with pytest.raises(KeysUnusable, match=f"more than `{MAX_CLUSTER_KEYS}`"):
        rotate(keys, report(0, MAX_CLUSTER_KEYS + 1), BOTH, 0)
    at = 0
    while len(keys) < MAX_KEPT:
        keys = rotate(keys, report(at, 2), BOTH, 0)
        at += 1
    assert len(keys) == MAX_KEPT
    with pytest.raises(KeysUnusable, match="this is no rotation"):
        rotate(keys, report(at, 2), BOTH, 0)
