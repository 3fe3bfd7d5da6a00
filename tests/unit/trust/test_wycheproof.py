"""Project Wycheproof (tests/data/wycheproof): JSON Web Signatures and Ed25519. No invalid one is accepted."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cloister import _core
from cloister.trust.certificates import base64url

DATA = Path(__file__).parents[2] / "data" / "wycheproof"


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DATA / name).read_text())
    return loaded


def test_no_invalid_signature_is_accepted_and_none_of_another_algorithm() -> None:
    """The vectors hold no EdDSA, so every one of them is a case of algorithm confusion here: refused whatever the key bytes are."""
    seen: Counter[str] = Counter()
    document = load("json_web_signature_test.json")
    keys = [bytes(32), bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")]
    for group in document["testGroups"]:
        for test in group["tests"]:
            token = test["jws"] if isinstance(test["jws"], str) else json.dumps(test["jws"])
            for key in keys:
                with pytest.raises(_core.CoreError) as refused:
                    _core.verify_jws(token, key, "EdDSA")
                assert refused.value.code in ("ticket_malformed", "ticket_signature"), test["tcId"]
            seen[test["result"]] += 1
    assert sum(seen.values()) == document["numberOfTests"]


def test_ed25519_vectors_as_web_signatures() -> None:
    """Valid and invalid signatures over the vectors' own messages, put where a JWS has its signature: nothing verifies, since what is
    signed is never the JWS signing input. (The vectors proper run against the same primitive in `crates/core`.)"""
    document = load("ed25519_test.json")
    header, payload = base64url(b'{"alg":"EdDSA"}'), base64url(b"{}")
    seen = 0
    for group in document["testGroups"]:
        key = bytes.fromhex(group["publicKey"]["pk"])
        for test in group["tests"]:
            token = f"{header}.{payload}.{base64url(bytes.fromhex(test['sig']))}"
            with pytest.raises(_core.CoreError):
                _core.verify_jws(token, key, "EdDSA")
            seen += 1
    assert seen == document["numberOfTests"]


def test_the_guard_has_a_valid_counterpart() -> None:
    """RFC 8037, appendix A.4: the one JWS here that does verify."""
    key = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    token = (
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )
    assert _core.verify_jws(token, key, "EdDSA") == b"Example of Ed25519 signing"
    for algorithm in ("none", "HS256", "ES256"):
        with pytest.raises(_core.CoreError) as refused:
            _core.verify_jws(token, key, algorithm)  # type: ignore[arg-type]
        assert refused.value.code == "argument_invalid"
