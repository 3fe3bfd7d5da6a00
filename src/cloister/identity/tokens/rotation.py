"""Keys of a cluster as its own connectors report them: what a report may change of what is known. Pure.

A rotation publishes the next key beside the one in use. So a report that shares no key with what is known is about another cluster, a name that
stands for another key is no rotation, and a key that is no longer published verifies for a while yet (`OVERLAP`): its last tokens are still about.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cloister.identity.tokens.keys import KeySet, KeysUnusable, VerificationKey
from cloister.model.messages.common import MAX_CLUSTER_KEYS

MAX_KEPT = 32
OVERLAP = 3600
"""Seconds that a key verifies after the cluster stopped to publish it: as long as the tokens that pods are given (Kubernetes, "Managing Service Accounts")."""

FORGOTTEN_AFTER = 31 * 86400
"""Seconds after which no enrolment can stand on a key that is gone: longer than any proof lasts."""


@dataclass(frozen=True, slots=True)
class ClusterKey:
    """One key, by its thumbprint (RFC 7638). `retired_at`: when a report first left it out, in Unix seconds."""

    thumbprint: str
    jwk: Mapping[str, Any]
    retired_at: int | None = None


def read_keys(listed: Iterable[Mapping[str, Any]], algorithms: frozenset[str]) -> dict[str, ClusterKey]:
    """Those that can verify, by thumbprint. Raises KeysUnusable."""
    listed = [dict(jwk) for jwk in listed]
    found: dict[str, ClusterKey] = {}
    for jwk, key in _usable(listed, algorithms):
        thumbprint = key.key.thumbprint()
        found[thumbprint] = ClusterKey(thumbprint, jwk)
    return found


def rotate(
    known: Mapping[str, ClusterKey], reported: Sequence[Mapping[str, Any]], algorithms: frozenset[str], now: int
) -> dict[str, ClusterKey]:
    """What is known after a report. Raises KeysUnusable with the reason why the report changes nothing."""
    if len(reported) > MAX_CLUSTER_KEYS:
        raise KeysUnusable(f"the report lists more than `{MAX_CLUSTER_KEYS}` keys")
    fresh = read_keys(reported, algorithms)
    if len(fresh) != len(reported):
        raise KeysUnusable("a key of the report is weak, has no name of its own, or fits none of the configured algorithms")
    if not any(key.retired_at is None and thumbprint in fresh for thumbprint, key in known.items()):
        raise KeysUnusable(
            "the report shares no key with those that are known: it is about another cluster, or one that was made anew"
        )
    named = {key.jwk.get("kid"): thumbprint for thumbprint, key in known.items()}
    for thumbprint, key in fresh.items():
        if named.get(key.jwk.get("kid"), thumbprint) != thumbprint:
            raise KeysUnusable("the report gives the name of a known key to another one")
    kept = {
        thumbprint: replace(key, retired_at=None if thumbprint in fresh else key.retired_at or now)
        for thumbprint, key in known.items()
        if thumbprint in fresh or key.retired_at is None or now - key.retired_at < FORGOTTEN_AFTER
    }
    after = kept | {thumbprint: key for thumbprint, key in fresh.items() if thumbprint not in kept}
    if len(after) > MAX_KEPT:
        raise KeysUnusable(f"more than `{MAX_KEPT}` keys came in a month: this is no rotation")
    return after


def verifying(keys: Iterable[ClusterKey], now: int) -> list[ClusterKey]:
    """Those that verify a token now."""
    return [key for key in keys if key.retired_at is None or now - key.retired_at < OVERLAP]


def _usable(listed: Sequence[Mapping[str, Any]], algorithms: frozenset[str]) -> list[tuple[Mapping[str, Any], VerificationKey]]:
    """Each with its text. A key without a `kid` is none that a rotation could tell apart."""
    usable = KeySet.from_jwks({"keys": list(listed)}, algorithms)
    texts = {jwk["kid"]: jwk for jwk in listed if isinstance(jwk.get("kid"), str)}
    return [(texts[key.kid], key) for key in usable.keys if key.kid is not None]
