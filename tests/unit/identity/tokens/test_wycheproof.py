"""Project Wycheproof (tests/data/wycheproof): JWS and JWK vectors against the code that verifies tokens of other issuers."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from cloister.identity.tokens.jws import open_jws
from cloister.identity.tokens.keys import ALGORITHMS, KeySet
from cloister.identity.tokens.types import TokenRefused

DATA = Path(__file__).parents[3] / "data" / "wycheproof"
ALL = frozenset(ALGORITHMS)

SYMMETRIC = "there is no symmetric algorithm here"
REFUSED_THOUGH_VALID = {
    351: "its JWK names `ES521`, which is no algorithm of RFC 7518",
}
"""Valid vectors that are refused on purpose, beside those with symmetric keys."""


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DATA / name).read_text())
    return loaded


def accepts(jwks: dict[str, Any], token: Any) -> bool:
    text = token if isinstance(token, str) else json.dumps(token)
    try:
        open_jws(text, KeySet.from_jwks(jwks, ALL), ALL)
    except TokenRefused:
        return False
    return True


def test_no_invalid_signature_is_accepted() -> None:
    document = load("json_web_signature_test.json")
    seen: Counter[str] = Counter()
    for group in document["testGroups"]:
        key = group.get("public", group["private"])
        for test in group["tests"]:
            accepted = accepts({"keys": [key]}, test["jws"])
            seen[test["result"], accepted] += 1
            if test["result"] == "invalid":
                assert not accepted, (test["tcId"], test["comment"])
            elif test["result"] == "valid":
                assert accepted or key["kty"] == "oct" or test["tcId"] in REFUSED_THOUGH_VALID, (test["tcId"], test["comment"])
    assert sum(seen.values()) == document["numberOfTests"]
    assert seen["valid", True] == 19  # the control: the good ones are accepted, so the others are refused for what they are


def test_no_unfit_key_is_accepted() -> None:
    document = load("json_web_key_test.json")
    seen = 0
    for group in document["testGroups"]:
        keys = group.get("public", group["private"])
        for test in group["tests"]:
            seen += 1
            if test["result"] != "valid":
                assert not accepts(keys, test["jws"]), (test["tcId"], test["comment"])
    assert seen == document["numberOfTests"]


def test_set_that_mixes_in_a_private_key_gives_none_of_that_key() -> None:
    document = load("json_web_key_test.json")
    for group in document["testGroups"]:
        for key in KeySet.from_jwks(group["private"], ALL).keys:
            assert not key.key.is_private
