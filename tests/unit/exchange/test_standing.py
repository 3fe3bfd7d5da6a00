"""Which events a sign-in is older than, where its time is known and where its provider does not tell."""

from typing import Any

import pytest

from cloister.exchange.signals.standing import ASSURANCE, SIGN_INS_BEFORE, STRENGTH_BEFORE, sign_in_of
from cloister.store.types import Agent, EvidenceRow, Subject

EVENT = 1_000
UNKNOWN = {"signed_in_at": 0, "sign_in_strength": "mfa"}


def client(**fields: Any) -> Agent:
    return Agent("a" * 16, "client", "laptop", "key", "thumb", 2_000, "user:ada", principal="u" * 16, **fields)


def row(name: str, value: str = "") -> EvidenceRow:
    return EvidenceRow(Subject("user", "u" * 16), "signal:t", name, value, EVENT, None)


@pytest.mark.parametrize(
    ("fields", "voided"),
    [
        ({"signed_in_at": 999}, True),
        ({"signed_in_at": 1_000}, True),
        ({"signed_in_at": 1_001}, False),
        ({"signed_in_at": 0}, True),  # written before it was kept when a provider vouched
        ({"signed_in_at": 0, "sign_in_vouched_at": 999}, True),
        ({"signed_in_at": 0, "sign_in_vouched_at": 1_000}, True),
        ({"signed_in_at": 0, "sign_in_vouched_at": 1_001}, False),
        ({"signed_in_at": 999, "sign_in_vouched_at": 1_001}, True),  # a new token of a sign-in that is known to be older
        ({"signed_in_at": None}, False),  # by its enrolment
        ({"signed_in_at": None, "sign_in_vouched_at": 999}, True),  # a program with a person's token
        ({"signed_in_at": None, "sign_in_vouched_at": 1_001}, False),
    ],
)
def test_case_12_sign_ins_of_before_an_event_are_void(fields: dict[str, Any], voided: bool) -> None:
    assert sign_in_of(client(**fields), [row(SIGN_INS_BEFORE)])[1] is voided
    assert sign_in_of(client(**fields), [])[1] is False


def test_case_12_new_token_makes_no_sign_in_look_fresh() -> None:
    sign_in, _ = sign_in_of(client(**UNKNOWN, sign_in_vouched_at=1_001), [row(SIGN_INS_BEFORE)])
    assert sign_in is not None
    assert sign_in.at == 0


@pytest.mark.parametrize(
    "said", [row(STRENGTH_BEFORE, "fido2 revoke"), row(ASSURANCE, "password"), row(ASSURANCE, "password raises")]
)
def test_case_12_new_token_may_speak_of_a_sign_in_with_a_credential_that_is_gone(said: EvidenceRow) -> None:
    for fields, strength in (
        (UNKNOWN | {"sign_in_vouched_at": 1_001}, "password"),
        ({"signed_in_at": 1_001, "sign_in_strength": "mfa"}, "mfa"),
        ({"signed_in_at": 999, "sign_in_strength": "mfa"}, "password"),
    ):
        sign_in, _ = sign_in_of(client(**fields), [said])
        assert sign_in is not None
        assert sign_in.strength == strength


@pytest.mark.parametrize(
    ("fields", "strength"),
    [
        ({"signed_in_at": 999}, "hardware"),
        ({"signed_in_at": 1_001}, "password"),
        ({"signed_in_at": 0, "sign_in_vouched_at": 999}, "hardware"),
        ({"signed_in_at": 0, "sign_in_vouched_at": 1_001}, "password"),
        ({"signed_in_at": 0}, "password"),
    ],
)
def test_case_12_what_raises_a_strength_never_raises_a_sign_in_that_may_be_newer(fields: dict[str, Any], strength: str) -> None:
    sign_in, _ = sign_in_of(client(**fields), [row(ASSURANCE, "hardware raises")])
    assert sign_in is not None
    assert sign_in.strength == strength
