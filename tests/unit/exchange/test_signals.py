"""Security events end live sessions, and hostile ones change nothing (attack cases 2, 3, 5, 14, 17)."""

import asyncio
import dataclasses
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.exchange.conftest import Agent, World
from tests.unit.exchange.signalling import ADA, BOB, Transmitter, laptop_of, outcomes, rule, want
from tests.unit.identity.tokens.minting import ec, jwks, rsa

from cloister.exchange.errors import Refusal
from cloister.exchange.signals import receiver as bounds
from cloister.exchange.signals.replay import SeenEvents
from cloister.exchange.state import load_state
from cloister.identity.signals.events import SSF
from cloister.identity.signals.types import EventRefused
from cloister.model.messages.from_exchange import EndSession, Refused, Session
from cloister.model.reasons import Code
from cloister.store.evidence import list_evidence
from cloister.store.signals import SeenEvent

SERIAL = {"format": "opaque", "id": "S-1"}
HIGH = {"principal": "USER", "current_level": "HIGH"}


async def _open(lab: World, rest: str = "") -> tuple[Agent, Session]:
    await lab.connector()
    ada = await lab.client("ada")
    await rule(lab, rest)
    session = await want(ada)
    assert isinstance(session, Session)
    return ada, session


async def _ended(client: Agent, session: Session) -> EndSession:
    end = await client.receive(EndSession)
    assert end.sessions == [session.session]
    return end


async def test_session_revoked_ends_sessions_and_asks_for_a_new_sign_in(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    ada, session = await _open(lab)
    await transmitter.say("session-revoked")
    end = await _ended(ada, session)
    assert end.code == Code.SIGNAL_RECEIVED
    refused = await want(ada, 2)
    assert refused.code == Code.STEP_UP_REQUIRED
    lab.clock.offset += 2
    again = await lab.client("ada")
    assert isinstance(await want(again), Session)
    assert (await want(ada, 3)).code == Code.STEP_UP_REQUIRED  # the old sign-in stays void
    assert await outcomes(lab) == ["acted"]


async def test_session_revoked_ends_api_tokens_of_the_user(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    answer = await lab.api.http.post("/api/v1/sign-in", json={"user": "ada", "password": "correct horse"})
    headers = {"authorization": f"Bearer {answer.json()['token']}"}
    await transmitter.say("session-revoked", subject=BOB)
    assert (await lab.api.http.get("/api/v1/me", headers=headers)).status_code == 200
    await transmitter.say("session-revoked")
    assert (await lab.api.http.get("/api/v1/me", headers=headers)).status_code == 401


async def test_negative_control_an_event_about_somebody_else_ends_nothing(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    ada, session = await _open(lab)
    await transmitter.say("session-revoked", subject=BOB)
    assert lab.running.book.get(session.session) is not None
    await transmitter.say("session-revoked", {"event_timestamp": int(lab.clock()) - 3000})  # before this sign-in
    assert lab.running.book.get(session.session) is not None
    assert ada.take(EndSession) == []


async def test_session_revoked_for_one_device_leaves_the_other(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    ada, session = await _open(lab)
    other = await lab.client("ada")
    await laptop_of(lab, ada)
    kept = await want(other)
    await transmitter.say("session-revoked", subject={"format": "complex", "user": ADA, "device": SERIAL})
    await _ended(ada, session)
    assert lab.running.book.get(kept.session) is not None
    assert isinstance(await want(other, 2), Session)
    await transmitter.say("session-revoked", subject={"format": "complex", "device": SERIAL})
    assert lab.running.book.get(kept.session) is not None


async def test_session_revoked_for_one_session_of_the_provider_leaves_the_other(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    ada, session = await _open(lab)
    other = await lab.client("ada")
    agents = lab.running.state.agents
    agents[ada.id] = dataclasses.replace(agents[ada.id], sign_in_session="sid-1")
    kept = await want(other)
    subject = {"format": "complex", "user": ADA, "session": {"format": "opaque", "id": "sid-1"}}
    await transmitter.say("session-revoked", subject={**subject, "user": BOB})
    assert lab.running.book.get(session.session) is not None
    await transmitter.say("session-revoked", subject=subject)
    await _ended(ada, session)
    assert lab.running.book.get(kept.session) is not None
    assert await outcomes(lab) == ["unknown_subject", "acted"]


async def test_credential_change_voids_the_strength_of_older_sign_ins(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    await lab.connector()
    ada = await lab.client("ada")
    agents = lab.running.state.agents
    agents[ada.id] = dataclasses.replace(agents[ada.id], sign_in_strength="hardware")
    await rule(lab, "when: {strength: mfa}\n")
    session = await want(ada)
    await transmitter.say("credential-change", {"credential_type": "fido2-platform", "change_type": "revoke"})
    assert (await _ended(ada, session)).code == Code.SIGNAL_RECEIVED
    assert (await want(ada, 2)).code == Code.STEP_UP_REQUIRED
    await rule(lab)
    assert isinstance(await want(ada, 3), Session)  # what asks for no strength goes on
    lab.clock.offset += 2
    agents[ada.id] = dataclasses.replace(agents[ada.id], sign_in_strength="mfa", signed_in_at=int(lab.clock()))
    await rule(lab, "when: {strength: mfa}\n")
    assert isinstance(await want(ada, 4), Session)


async def test_device_compliance_counts_until_it_is_lost(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up(devices={"label": "serial", "lasts": "1h"})
    await lab.connector()
    ada = await lab.client("ada")
    await laptop_of(lab, ada)
    await rule(lab, "when: {posture: {signals/corp/compliance: compliant}}\n")
    assert (await want(ada)).code == Code.CONDITION_FAILED
    await transmitter.say("device-compliance-change", {"current_status": "compliant"}, SERIAL)
    session = await want(ada, 2)
    assert isinstance(session, Session)
    lab.clock.offset += 2
    await transmitter.say("device-compliance-change", {"current_status": "not-compliant"}, SERIAL)
    end = await _ended(ada, session)
    assert end.code == Code.SIGNAL_RECEIVED
    assert "`signals/corp/compliance`" in end.message
    lab.clock.offset += 2
    await transmitter.say("device-compliance-change", {"current_status": "compliant"}, SERIAL)
    assert isinstance(await want(ada, 3), Session)
    lab.clock.offset += 3600
    assert isinstance(await want(ada, 4), Refused)  # its word does not count for ever


async def test_assurance_level_lowers_what_is_known_and_raises_it_only_if_the_document_says_so(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    ada, _ = await _open(lab)
    agents = lab.running.state.agents
    agents[ada.id] = dataclasses.replace(agents[ada.id], sign_in_strength="hardware")
    await rule(lab, "when: {strength: hardware}\n")
    session = await want(ada, 2)
    lower = {"namespace": "NIST-AAL", "current_level": "nist-aal2", "change_direction": "decrease"}
    await transmitter.say("assurance-level-change", {**lower, "namespace": "other"})
    assert lab.running.book.get(session.session) is not None
    await transmitter.say("assurance-level-change", lower)
    await _ended(ada, session)
    await rule(lab, "when: {strength: mfa}\n")
    assert isinstance(await want(ada, 3), Session)
    higher = {"namespace": "NIST-AAL", "current_level": "nist-aal3", "change_direction": "increase"}
    await rule(lab, "when: {strength: hardware}\n")
    agents[ada.id] = dataclasses.replace(agents[ada.id], sign_in_strength="password")
    await transmitter.say("assurance-level-change", higher)
    assert (await want(ada, 4)).code == Code.STEP_UP_REQUIRED
    await transmitter.set_up(assurance={"raises": True})
    await transmitter.say("assurance-level-change", higher)
    assert isinstance(await want(ada, 5), Session)


async def test_changed_claims_that_a_sign_in_brought_need_a_new_one(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    ada, session = await _open(lab)
    await transmitter.say("token-claims-change", {"claims": {"locale": "de"}})
    assert lab.running.book.get(session.session) is not None
    await transmitter.say("token-claims-change", {"claims": {"groups": ["nobody"]}})
    assert (await _ended(ada, session)).code == Code.SIGNAL_RECEIVED
    assert await outcomes(lab) == ["without_meaning", "acted"]


async def test_raised_risk_ends_sessions_at_once_and_what_fades_lets_them_through_again(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up(risk={"half_life": "10m"})
    ada, session = await _open(lab, "when: {risk: {user: 50}}\n")
    await transmitter.say("risk-level-change", {"principal": "USER", "current_level": "LOW"})
    assert lab.running.book.get(session.session) is not None
    await transmitter.say("risk-level-change", HIGH)
    end = await _ended(ada, session)
    assert (end.code, "risk score" in end.message) == (Code.RISK_TOO_HIGH, True)
    assert (await want(ada, 2)).code == Code.CONDITION_FAILED
    lab.clock.offset += 450
    assert (await want(ada, 3)).code == Code.CONDITION_FAILED
    lab.clock.offset += 100  # 90 points after 9 minutes are 48
    assert isinstance(await want(ada, 4), Session)


async def test_risk_of_a_device_is_its_own(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    ada, session = await _open(lab, "when: {risk: {device: 50}}\n")
    await laptop_of(lab, ada)
    await transmitter.say("risk-level-change", HIGH)
    assert lab.running.book.get(session.session) is not None
    await transmitter.say("risk-level-change", {"principal": "DEVICE", "current_level": "HIGH"}, SERIAL)
    assert (await _ended(ada, session)).code == Code.RISK_TOO_HIGH
    await transmitter.say("risk-level-change", {"principal": "TENANT", "current_level": "HIGH"})
    assert (await outcomes(lab))[-1] == "without_meaning"


async def test_what_a_transmitter_said_ends_with_its_document(lab: World) -> None:
    """Attack case 96: vouched for, then gone. And the other way round: its risk goes too."""
    transmitter = await Transmitter(lab).set_up()
    await lab.connector()
    ada = await lab.client("ada")
    await laptop_of(lab, ada)
    await rule(lab, "when: {posture: {signals/corp/compliance: compliant}}\n")
    await transmitter.say("device-compliance-change", {"current_status": "compliant"}, SERIAL)
    await transmitter.say("risk-level-change", HIGH)
    session = await want(ada)
    assert "signal:" in await _stored_sources(lab)
    await lab.api.ok("DELETE", "/signal-transmitters/corp")
    await _ended(ada, session)
    assert (await lab.api.ok("GET", "/users/ada/risk"))["score"] == 0
    async with asyncio.timeout(10):
        while "signal:" in await _stored_sources(lab):
            await asyncio.sleep(0.05)
    await transmitter.set_up()  # made again under the old name: nothing of the old one counts
    assert (await want(ada, 2)).code == Code.CONDITION_FAILED


async def _stored_sources(lab: World) -> str:
    def read() -> str:
        with lab.running.store.read() as connection:
            return " ".join(row.source for row in list_evidence(connection))

    return await asyncio.to_thread(read)


async def test_stream_events_and_unknown_ones_are_acknowledged_and_change_nothing(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up(events=["risk-level-change"])
    _, session = await _open(lab)
    stream = {"format": "opaque", "id": "stream-1"}
    await transmitter.say(SSF + "verification", {"state": "abc"}, stream)
    await transmitter.say(SSF + "stream-updated", {"status": "paused", "reason": "maintenance"}, stream)
    await transmitter.say("https://schemas.openid.net/secevent/risc/event-type/account-purged")
    await transmitter.say("session-revoked")  # not among `events`
    assert await outcomes(lab) == ["stream", "stream", "unknown_type", "not_taken"]
    status = await lab.api.ok("GET", "/signal-transmitters/corp/status")
    assert (status["status"], status["taken"], status["verified_at"] is not None) == ("paused", 4, True)
    assert lab.running.book.get(session.session) is not None


# ------------------------------------------------------------------ hostile events


async def test_case_14_hostile_events_neither_end_nor_keep_a_session(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    _, session = await _open(lab, "when: {risk: {user: 50}}\n")
    now, good = int(lab.clock()), transmitter.token("session-revoked")
    head, claims, signature = good.split(".")
    hostile: list[tuple[str, str]] = [
        ("invalid_request", ""),
        ("invalid_request", f"{head}.{claims}."),
        ("invalid_key", f"{head}.{claims}.{signature[:-4]}AAAA"),
        ("invalid_key", transmitter.token("session-revoked", header={"alg": "none"})),
        ("invalid_key", Transmitter(lab, key=rsa("foreign")).token("session-revoked")),
        ("invalid_key", Transmitter(lab, key=ec()).token("session-revoked", algorithm="ES256")),
        ("invalid_audience", transmitter.token("session-revoked", aud="https://another.example")),
        ("invalid_audience", transmitter.token("session-revoked", aud=...)),
        ("invalid_issuer", transmitter.token("session-revoked", iss="https://another.example")),
        ("invalid_request", transmitter.token("session-revoked", iat=now - 3601)),
        ("invalid_request", transmitter.token("session-revoked", iat=now + 60)),
        ("invalid_request", transmitter.token("session-revoked", jti=...)),
        ("invalid_request", transmitter.token("session-revoked", header={"typ": "JWT"})),
        ("invalid_request", transmitter.token("session-revoked", header={"jku": "https://evil.example/jwks"})),
        ("invalid_request", transmitter.token("session-revoked", subject={"format": "did", "url": "did:x"})),
        ("invalid_request", transmitter.token("session-revoked", events={})),
    ]
    for error, token in hostile:
        answer = await transmitter.push(token)
        assert (answer.status_code, answer.json()["err"]) == (400, error), (token[:60], answer.text)
    for subject in (
        {"format": "iss_sub", "iss": "https://other-tenant.example", "sub": "ada"},
        {"format": "email", "email": "ada@corp.example"},
        {"format": "opaque", "id": "ada"},
        {"format": "complex", "user": ADA, "tenant": {"format": "opaque", "id": "other"}},
        {"format": "complex", "user": ADA, "application": {"format": "opaque", "id": "mail"}},
    ):
        await transmitter.say("session-revoked", subject=subject)
    assert set((await outcomes(lab))[-5:]) == {"unknown_subject"}
    assert lab.running.book.get(session.session) is not None
    assert (await transmitter.push(good)).status_code == 202  # negative control: the one that is in order
    assert lab.running.book.get(session.session) is None


async def test_case_14_a_replayed_event_is_acknowledged_and_does_nothing(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    raised, lowered = (
        transmitter.token("risk-level-change", HIGH),
        transmitter.token("risk-level-change", {**HIGH, "current_level": "LOW"}),
    )
    for token in (raised, lowered, raised, raised):
        assert (await transmitter.push(token)).status_code == 202
    assert (await lab.api.ok("GET", "/users/ada/risk"))["score"] == 0
    assert await outcomes(lab) == ["acted", "acted", "duplicate", "duplicate"]
    await lab.running.signals.receiver.forget({one.id for one in lab.running.signals.receiver.transmitters()})
    with lab.running.store.read() as connection:
        from cloister.store.signals import list_seen_events

        seen = SeenEvents(list_seen_events(connection))
    [one] = lab.running.signals.receiver.transmitters()
    assert seen.knows(one.id, _id_of(raised))  # also after a restart


def _id_of(token: str) -> str:
    import base64
    import json

    part = token.split(".")[1]
    id: str = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["jti"]
    return id


async def test_an_older_event_that_comes_late_does_not_undo_a_newer_one(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    now = int(lab.clock())
    await transmitter.say("risk-level-change", {**HIGH, "event_timestamp": now - 10})
    await transmitter.say("risk-level-change", {**HIGH, "current_level": "LOW", "event_timestamp": now - 60})
    assert (await lab.api.ok("GET", "/users/ada/risk"))["score"] > 80
    assert await outcomes(lab) == ["acted", "superseded"]


async def test_case_14_another_transmitter_cannot_speak_of_these_subjects(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    other = await Transmitter(lab, name="other", key=rsa("other")).set_up(
        users={"issuer": "https://idp.other.example"},
        keys=jwks(rsa("other"))["keys"],
        devices={"label": "serial", "labels": {"of": "other"}},
    )
    ada, session = await _open(lab)
    await laptop_of(lab, ada)
    await other.say("session-revoked")
    await other.say("session-revoked", subject={"format": "iss_sub", "iss": "https://idp.other.example", "sub": "ada"})
    await other.say("session-revoked", subject={"format": "complex", "device": SERIAL})
    assert set(await outcomes(lab)) == {"unknown_subject"}
    assert (await other.push(transmitter.token("session-revoked"))).status_code == 400
    assert (await other.push(other.token("session-revoked"), transmitter.secret)).status_code == 401
    assert lab.running.book.get(session.session) is not None


async def test_case_17_secrets_of_one_kind_are_not_taken_as_another(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    token = transmitter.token("session-revoked")
    for secret in ("x", lab.api.token, "cl-signal-", token):
        answer = await transmitter.push(token, secret)
        assert (answer.status_code, answer.json()["err"]) == (401, "authentication_failed")
    old, transmitter.secret = transmitter.secret, (await lab.api.ok("POST", "/signal-transmitters/corp/secret"))["secret"]
    assert (await transmitter.push(token, old)).status_code == 401
    unknown = await lab.api.http.post("/api/v1/signals/nobody", headers={"authorization": f"Bearer {old}"}, content=token)
    assert (unknown.status_code, unknown.json()["err"]) == (401, "authentication_failed")
    answer = await lab.api.http.get("/api/v1/me", headers={"authorization": f"Bearer {transmitter.secret}"})
    assert answer.status_code == 401
    assert (await transmitter.push(token, **{"content-type": "application/json"})).status_code == 400
    assert (await transmitter.push("x" * 70_000)).status_code == 400
    assert (await transmitter.push(token)).status_code == 202


async def test_the_secret_is_kept_as_a_hash_only(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    database = b"".join(path.read_bytes() for path in lab.running.settings.data.glob("exchange.db*"))
    assert hashlib.sha256(transmitter.secret.encode()).hexdigest().encode() in database
    assert transmitter.secret.encode() not in database


async def test_case_14_a_valid_event_amid_a_flood_acts_within_a_second(lab: World) -> None:
    """Ten thousand hostile tokens as fast as they go, from four sources that know the secret but not the key."""
    transmitter = await Transmitter(lab).set_up()
    _, session = await _open(lab)
    receiver = lab.running.signals.receiver
    [known] = receiver.transmitters()
    forger = Transmitter(lab, key=rsa("foreign"))
    hostile = [forger.token("session-revoked", header={"kid": rsa().kid}) for _ in range(8)]
    hostile += [transmitter.token("session-revoked", aud="https://else.example") for _ in range(8)]
    refused: dict[str, int] = {}

    async def attack(source: str) -> None:
        for number in range(50):
            try:
                await receiver.receive(known, hostile[number % len(hostile)], source)
            except (EventRefused, Refusal) as error:
                refused[error.code] = refused.get(error.code, 0) + 1
            await asyncio.sleep(0)

    attackers = [asyncio.create_task(attack(f"192.0.2.{number % 4}")) for number in range(200)]
    while not refused:
        await asyncio.sleep(0)
    started = time.monotonic()
    assert await receiver.receive(known, transmitter.token("session-revoked"), "198.51.100.7") == "acted"
    took = time.monotonic() - started
    assert lab.running.book.get(session.session) is None
    assert sum(refused.values()) < 10_000  # the flood goes on
    assert took < 1.0, took
    await asyncio.gather(*attackers)
    assert sum(refused.values()) == 10_000
    assert refused.keys() == {Code.TOKEN_SIGNATURE, Code.TOKEN_AUDIENCE, Code.TOO_MANY_ATTEMPTS}
    rows = (await lab.api.ok("GET", "/audit", params={"action": "signal.receive", "limit": 1000}))["entries"]
    assert len(rows) <= bounds.AUDITED_PER_MINUTE + 1


@pytest.mark.parametrize("bound", ["MAX_WAITING", "MAX_WAITING_OF_SOURCE"])
async def test_more_than_may_wait_is_asked_to_come_again(lab: World, bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    transmitter = await Transmitter(lab).set_up()
    monkeypatch.setattr(bounds, bound, 2)
    receiver = lab.running.signals.receiver
    [known] = receiver.transmitters()
    tokens = [transmitter.token("session-revoked", subject=BOB) for _ in range(3)]
    results = await asyncio.gather(*(receiver.receive(known, token, "") for token in tokens), return_exceptions=True)
    assert results[:2] == ["acted", "acted"]
    assert isinstance(results[2], Refusal)
    assert results[2].code is Code.TOO_MANY_ATTEMPTS


def test_events_that_were_forgotten_are_not_taken_again() -> None:
    seen = SeenEvents(bound=3)
    rows = [SeenEvent("t", f"{n:064x}", at) for n, at in enumerate((10, 30, 20, 40, 5))]
    kept: dict[str, SeenEvent] = {}
    for row in rows:
        dropped = seen.room_for(row)
        seen.add(row)
        kept[row.id] = row
        for id in dropped:
            del kept[id]
    assert sorted(row.issued_at for row in kept.values()) == [20, 30, 40]
    for machine in (seen, SeenEvents(kept.values(), bound=3)):
        assert [machine.is_forgotten("t", at) for at in (5, 10, 21, 41)] == [True, True, False, False]
    assert not seen.is_forgotten("other", 5)


async def test_what_was_said_survives_a_restart(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up()
    await transmitter.say("risk-level-change", HIGH)
    state = await asyncio.to_thread(load_state, lab.running.store, lab.running.state.keyring)
    from cloister.store.types import Subject

    user = lab.running.state.find("user", "ada")
    assert user is not None
    assert [row.name for row in state.evidence.of(Subject("user", user.id)).values()] == ["risk"]


async def _keys_cannot_be_asked(transmitter: Transmitter) -> httpx.Response:
    return await transmitter.push(transmitter.token("session-revoked"))


async def test_while_keys_cannot_be_found_the_transmitter_is_asked_to_come_again(lab: World) -> None:
    transmitter = await Transmitter(lab).set_up(keys=[], issuer="https://127.0.0.1:1")
    answer = await _keys_cannot_be_asked(transmitter)
    assert (answer.status_code, answer.json()["code"]) == (503, Code.URL_FORBIDDEN)


@pytest.mark.parametrize(
    "fields",
    [
        {"users": None, "devices": None},
        {"delivery": "poll"},
        {"poll": {"url": "https://x.example/"}},
        {"keys": [{"kty": "RSA", "n": "x", "e": "AQAB", "d": "secret"}]},
        {"name": "x" * 41},
        {"risk": {"low": 50, "medium": 20}},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"events": []},
        {"keys": [], "issuer": "corp"},
    ],
)
async def test_a_document_that_is_not_whole_is_refused(lab: World, fields: dict[str, Any]) -> None:
    from tests.unit.exchange.signalling import document

    answer = await lab.api.call("POST", "/documents", content=document(**fields))
    assert answer.status_code == 422, answer.text


EXAMPLES = re.findall(r"```sh\n(curl .*?)```", Path("docs/identity/signals.md").read_text(), re.DOTALL)


async def test_the_example_of_the_page_delivers_an_event(lab: World, tmp_path: Path) -> None:
    """The `curl` of docs/identity/signals.md, with the address of this exchange."""
    transmitter = await Transmitter(lab).set_up()
    _, session = await _open(lab)
    [example] = EXAMPLES
    (tmp_path / "root.pem").write_text(lab.running.state.keyring.roots_pem())
    (tmp_path / "header.txt").write_text(f"authorization: Bearer {transmitter.secret}\n")
    (tmp_path / "event.jwt").write_text(transmitter.token("session-revoked") + "\n")
    command = example.replace("exchange.corp.example", lab.running.address)
    process = await asyncio.create_subprocess_shell(command, cwd=tmp_path, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors
    assert lab.running.book.get(session.session) is None


async def test_a_changed_groups_claim_takes_out_of_groups_at_once_and_puts_into_none(lab: World) -> None:
    idp = "https://idp.corp.example"
    transmitter = await Transmitter(lab).set_up(users={"issuer": idp, "opaque": "subject"})
    provider = {
        "kind": "identity-provider",
        "name": "idp",
        "issuer": idp,
        "client_id": "x",
        "groups": {"map": {"sci": "science", "adm": "admins"}},
    }
    ada = lab.running.state.find("user", "ada")
    assert ada is not None
    await lab.apply(
        json.dumps(provider)
        + f"\n---\n{{kind: group, name: admins}}\n---\n{{kind: user, name: ada, issuer: '{idp}', subject: a-1}}"
    )
    agent, session = await _open(lab)
    subject = {"format": "opaque", "id": "a-1"}
    await transmitter.say("token-claims-change", {"claims": {"groups": ["sci", "adm"]}}, subject)
    assert lab.running.book.get(session.session) is not None
    assert (await lab.api.ok("GET", "/users/ada"))["groups"] == ["science"]
    answer = await transmitter.push(transmitter.token("token-claims-change", {"claims": {"groups": {"adm": True}}}, subject))
    assert answer.json()["err"] == "invalid_request"
    await transmitter.say("token-claims-change", {"claims": {"groups": ["adm"]}}, subject)
    end = await _ended(agent, session)
    assert end.code == Code.GROUP_CHANGED
    assert (await lab.api.ok("GET", "/users/ada"))["groups"] == []
