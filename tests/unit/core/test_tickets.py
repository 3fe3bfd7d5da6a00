"""Tickets made by the exchange's keyring and verified by the core: what one side writes is what the other reads, and nothing else is."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from cloister import _core
from cloister.trust.certificates import base64url, make_key, thumbprint
from cloister.trust.keyring import Keyring, create_keyring
from cloister.trust.tickets import sign_ticket
from cloister.trust.types import Identity, TicketClaims

NOW = 1_800_000_000
CLIENT = Identity("", "client", "00000000000000d1")


@pytest.fixture(scope="module")
def keyring() -> Keyring:
    return create_keyring(NOW)


def claims(keyring: Keyring) -> TicketClaims:
    return TicketClaims(
        issuer=keyring.trust_domain,
        token_id="j1",
        session="0000000000000051",
        principal="user:é\n",
        client=CLIENT.id,
        segment="00000000000000a1",
        connectors=("00000000000000c2", "00000000000000c1"),
        key_thumbprint=thumbprint(make_key().public_key()),
        issued=NOW,
        expires=NOW + 300,
        generation=7,
        continuity=3600,
        rules=("r1", "r2"),
    )


def refused(token: str, keys: dict[str, bytes], now: int = NOW) -> str:
    with pytest.raises(_core.CoreError) as error:
        _core.verify_ticket(token, keys, now)
    return str(error.value.code)


def test_what_the_keyring_signs_the_core_reads(keyring: Keyring) -> None:
    ticket = claims(keyring)
    verified = _core.verify_ticket(keyring.sign_ticket(ticket), keyring.ticket_verification_keys(), NOW)
    assert json.loads(verified) == ticket.payload()


def test_thumbprints_agree(keyring: Keyring) -> None:
    key = make_key().public_key()
    _, chain = keyring.issue(key, replace(CLIENT, trust_domain=keyring.trust_domain), NOW)
    assert _core.thumbprint(chain) == thumbprint(key)


def test_case_18_a_ticket_ends(keyring: Keyring) -> None:
    token, keys = keyring.sign_ticket(claims(keyring)), keyring.ticket_verification_keys()
    assert _core.verify_ticket(token, keys, NOW + 330)
    assert refused(token, keys, NOW + 331) == "ticket_expired"
    assert refused(token, keys, NOW - 31) == "ticket_malformed"


def test_case_5_only_configured_keys_verify(keyring: Keyring) -> None:
    token = keyring.sign_ticket(claims(keyring))
    assert refused(token, {}) == "ticket_key_unknown"
    assert refused(token, create_keyring(NOW).ticket_verification_keys()) == "ticket_key_unknown"
    [kid] = keyring.ticket_verification_keys()
    other = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    assert refused(token, {kid: other}) == "ticket_signature"


def test_case_17_other_signed_things_are_no_tickets(keyring: Keyring) -> None:
    keys = keyring.ticket_verification_keys()
    [kid] = keys
    key = keyring.ticket_key.key
    for kind in ("JWT", "at+jwt", "logout+jwt", "secevent+jwt", None):
        header = {"alg": "EdDSA", "kid": kid} | ({"typ": kind} if kind else {})
        signed = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims(keyring).payload()))
        assert refused(f"{signed}.{base64url(key.sign(signed.encode()))}", keys) == "ticket_malformed"


def test_case_2_no_algorithm_but_ours(keyring: Keyring) -> None:
    keys = keyring.ticket_verification_keys()
    [(kid, public)] = keys.items()
    _, payload, signature = keyring.sign_ticket(claims(keyring)).split(".")
    for alg in ("none", "HS256", "ES256", "RS256"):
        header = base64url(json.dumps({"alg": alg, "typ": "cloister-ticket+jwt", "kid": kid}).encode())
        for forged in (signature, "", base64url(public)):
            assert refused(f"{header}.{payload}.{forged}", keys) in ("ticket_malformed", "ticket_signature")


def test_case_3_a_ticket_of_another_key_is_no_ticket_here(keyring: Keyring) -> None:
    foreign = ed25519.Ed25519PrivateKey.generate()
    [kid] = keyring.ticket_verification_keys()
    token = sign_ticket(foreign, kid, claims(keyring))
    assert refused(token, keyring.ticket_verification_keys()) == "ticket_signature"


def mutations(token: str) -> Iterator[str]:
    for at in range(len(token)):
        yield token[:at] + token[at + 1 :]
        yield token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
    header, payload, signature = token.split(".")
    for part in (header, payload, signature):
        padded = base64.urlsafe_b64encode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))).decode()
        yield token.replace(part, padded + "=")
    yield token + "."
    yield f" {token}"
    yield f"{token}\n"
    yield f"{header}.{payload}"
    yield json.dumps({"payload": payload, "protected": header, "signature": signature})


def test_case_19_no_other_spelling_verifies(keyring: Keyring) -> None:
    token, keys = keyring.sign_ticket(claims(keyring)), keyring.ticket_verification_keys()
    count = 0
    for mutation in mutations(token):
        assert refused(mutation, keys).startswith("ticket_"), mutation
        count += 1
    assert count > 1000
