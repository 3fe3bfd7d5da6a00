"""What a verified token says is read once, strictly, or refused (attack case 14)."""

from typing import Any

import pytest
from tests.unit.identity.tokens.minting import CLIENT, ISSUER, NOW, Minted, jwks, rsa

from cloister.identity.signals.events import CAEP, RISC, SSF, expected, read_event
from cloister.identity.signals.polling import poll_request, read_answer
from cloister.identity.signals.subjects import read_subject
from cloister.identity.signals.types import (
    AssuranceChange,
    ComplianceChange,
    Email,
    EventRefused,
    EventSubject,
    IssuerSubject,
    Opaque,
    RiskChange,
    SecurityEvent,
    SessionRevoked,
    Unknown,
    Verification,
)
from cloister.identity.tokens.keys import KeySet
from cloister.identity.tokens.types import TokenRefused
from cloister.identity.tokens.verify import verify
from cloister.model.reasons import Code

ADA = {"format": "iss_sub", "iss": "https://idp", "sub": "ada"}
RS256 = frozenset({"RS256"})


def _read(type: str, body: dict[str, Any] | None = None, **claims: Any) -> SecurityEvent:
    said = {"sub": ..., "exp": ..., "jti": "j1", "sub_id": ADA, "events": {type: body or {}}, **claims}
    token = str(Minted(said, {"typ": "secevent+jwt"}))
    return read_event(verify(token, KeySet.from_jwks(jwks(rsa()), RS256), expected(ISSUER, CLIENT, RS256), NOW), 600, NOW)


def test_each_kind_of_event_is_read() -> None:
    assert _read(CAEP + "session-revoked").what == SessionRevoked()
    assert _read(RISC + "sessions-revoked").what == SessionRevoked()
    assert _read(CAEP + "device-compliance-change", {"current_status": "not-compliant"}).what == ComplianceChange(
        is_compliant=False
    )
    assert _read(CAEP + "risk-level-change", {"principal": "USER", "current_level": "HIGH"}).what == RiskChange("USER", "HIGH")
    level = {"namespace": "NIST-AAL", "current_level": "nist-aal1", "change_direction": "decrease"}
    assert _read(CAEP + "assurance-level-change", level).what == AssuranceChange("NIST-AAL", "nist-aal1")
    assert _read(SSF + "verification", {"state": "x"}, sub_id={"format": "opaque", "id": "s"}).what == Verification("x")
    assert _read("https://example.org/else", sub_id={"format": "news"}).what == Unknown()


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"jti": ...}, Code.TOKEN_CLAIM),
        ({"jti": ""}, Code.TOKEN_CLAIM),
        ({"jti": "x" * 257}, Code.TOKEN_CLAIM),
        ({"events": ...}, Code.TOKEN_CLAIM),
        ({"events": {}}, Code.TOKEN_CLAIM),
        ({"events": []}, Code.TOKEN_CLAIM),
        ({"events": {CAEP + "session-revoked": {}, CAEP + "credential-change": {}}}, Code.TOKEN_CLAIM),
        ({"events": {CAEP + "session-revoked": []}}, Code.TOKEN_CLAIM),
        ({"events": {CAEP + "session-revoked": {"event_timestamp": "now"}}}, Code.TOKEN_CLAIM),
        ({"events": {CAEP + "session-revoked": {"subject": {"format": "opaque", "id": "x"}}}}, Code.TOKEN_CLAIM),
        ({"events": {CAEP + "risk-level-change": {"principal": "USER", "current_level": "low"}}}, Code.TOKEN_CLAIM),
        ({"events": {CAEP + "device-compliance-change": {"current_status": True}}}, Code.TOKEN_CLAIM),
        ({"sub_id": ...}, Code.TOKEN_CLAIM),
        ({"sub_id": {"format": "phone_number", "phone_number": "+1"}}, Code.TOKEN_CLAIM),
        ({"sub_id": {"format": ["opaque"], "id": "x"}}, Code.TOKEN_CLAIM),
        ({"sub_id": {**ADA, "extra": "x"}}, Code.TOKEN_CLAIM),
        ({"sub_id": {"format": "complex", "user": ADA, "weather": ADA}}, Code.TOKEN_CLAIM),
        ({"sub_id": {"format": "complex"}}, Code.TOKEN_CLAIM),
        ({"iat": NOW - 600}, Code.TOKEN_EXPIRED),
        ({"iat": NOW + 31}, Code.TOKEN_EXPIRED),
        ({"iat": ...}, Code.TOKEN_CLAIM),
        ({"iss": "https://other"}, Code.TOKEN_ISSUER),
        ({"aud": "https://other"}, Code.TOKEN_AUDIENCE),
    ],
)
def test_case_14_a_token_that_is_not_whole_says_nothing(claims: dict[str, Any], code: Code) -> None:
    with pytest.raises((EventRefused, TokenRefused)) as refused:
        _read(CAEP + "session-revoked", **claims)
    assert refused.value.code is code


def test_negative_control_the_same_token_unchanged_says_something() -> None:
    assert _read(CAEP + "session-revoked", iat=NOW - 599).subject == EventSubject(IssuerSubject("https://idp", "ada"))


def test_case_17_a_token_of_another_type_is_no_event() -> None:
    claims = {"sub": ..., "exp": ..., "jti": "j1", "sub_id": ADA, "events": {CAEP + "session-revoked": {}}}
    for type in ("JWT", "logout+jwt", "at+jwt", ..., "secevent"):
        with pytest.raises(TokenRefused) as refused:
            token = str(Minted(claims, {"typ": type}))
            verify(token, KeySet.from_jwks(jwks(rsa()), RS256), expected(ISSUER, CLIENT, RS256), NOW)
        assert refused.value.code is Code.TOKEN_TYPE


def test_an_event_happened_when_it_says_but_never_later_than_now() -> None:
    for said, at in ((NOW - 90, NOW - 90), (NOW + 10**6, NOW), (1e300, NOW), (NOW - 1.5, NOW - 2)):
        assert _read(CAEP + "session-revoked", {"event_timestamp": said}).at == at
    assert _read(CAEP + "session-revoked").at == NOW - 5


def test_subjects_are_read_in_every_form() -> None:
    assert read_subject({"format": "email", "email": "a@b.c"}).plain == Email("a@b.c")
    complex_ = read_subject({"format": "complex", "user": ADA, "session": {"format": "opaque", "id": "s"}, "group": ADA})
    assert complex_ == EventSubject(None, IssuerSubject("https://idp", "ada"), None, Opaque("s"), None, ("group",))
    assert read_subject({"user": ADA}).user == IssuerSubject("https://idp", "ada")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"sets": []}',
        b'{"sets": {"a": 1}}',
        b'{"sets": {"": "x"}}',
        b'{"sets": {}, "moreAvailable": 1}',
        ('{"sets": {' + ",".join(f'"{n}": "x"' for n in range(101)) + "}}").encode(),
        b'{"sets": {"a": "x", "a": "y"}}',
    ],
)
def test_an_answer_to_a_poll_is_read_strictly(body: bytes) -> None:
    with pytest.raises(EventRefused):
        read_answer(body)


def test_a_poll_says_what_was_taken_and_what_was_not() -> None:
    request = poll_request(["a"], {"b": ("invalid_key", "unknown")})
    assert b'"ack": ["a"]' in request
    assert b'"setErrs": {"b": {"err": "invalid_key", "description": "unknown"}}' in request
    assert read_answer(b'{"sets": {"a": "x"}, "moreAvailable": true}').has_more
