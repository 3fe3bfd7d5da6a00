"""Laws of enrolment and renewal: identity comes from the proof alone."""

import asyncio
import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from tests.unit.exchange.conftest import Agent, World, eventually

from cloister import _core
from cloister.model.first_contact import make_provisioning_key
from cloister.model.messages.from_agent import EnrolByKey, EnrolByPassword, Hello, Renew, WantSession
from cloister.model.messages.from_exchange import Enrolled, Refused, Renewed
from cloister.trust.certificates import key_to_pem

HOUR = 3600


def _leaf(chain: str) -> x509.Certificate:
    return x509.load_pem_x509_certificates(chain.encode())[0]


def _uris(chain: str) -> list[str]:
    names = _leaf(chain).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


async def _key(world: World, **form: object) -> dict[str, str]:
    answer: dict[str, str] = await world.api.ok("POST", "/keys", json={"role": "connector", "group": "lab"} | form)
    return answer


async def test_case_22_one_use_has_one_winner_over_links(lab: World) -> None:
    key = (await _key(lab))["key"]
    answers = await asyncio.gather(*(lab.agent("connector").enrol_by_key(key) for _ in range(12)))
    assert sum(isinstance(answer, Enrolled) for answer in answers) == 1
    assert {answer.code for answer in answers if isinstance(answer, Refused)} <= {"key_used_up", "too_many_attempts"}
    assert [row["uses"] for row in await lab.api.ok("GET", "/keys")] == [1]


async def test_case_23_role_and_group_come_from_the_key(lab: World) -> None:
    agent = lab.agent("connector")
    enrolled = await agent.enrol_by_key((await _key(lab))["key"])
    assert isinstance(enrolled, Enrolled)
    assert _uris(enrolled.chain) == [f"spiffe://{enrolled.exchange}/connector/{enrolled.agent}"]
    row = await lab.api.ok("GET", f"/agents/{enrolled.agent}")
    assert (row["role"], row["group"]) == ("connector", "lab")
    log = await lab.api.ok("GET", f"/agents/{enrolled.agent}/certificates")
    assert [entry["fingerprint"] for entry in log] == [_leaf(enrolled.chain).fingerprint(SHA256()).hex()]


@pytest.mark.parametrize("text", ["", "x", "cloister-key-1.00.x.y", "a" * 256])
async def test_case_23_no_key_no_certificate(lab: World, text: str) -> None:
    answer = await lab.agent("connector").enrol_by_key(text)
    assert isinstance(answer, Refused)
    assert answer.code == "key_invalid"


async def test_unknown_key_and_wrong_secret_answer_alike(lab: World) -> None:
    real = (await _key(lab))["key"]
    foreign = make_provisioning_key(lab.running.root_sha256)
    parts = real.split(".")
    wrong = ".".join([*parts[:2], foreign.secret, parts[3]])
    answers = [await lab.agent("connector").enrol_by_key(text) for text in (foreign.text, wrong)]
    assert answers[0] == answers[1]
    assert isinstance(answers[0], Refused)


async def test_key_ends_by_time_and_by_revocation_and_the_holder_is_told_which(lab: World) -> None:
    first, second = await _key(lab, seconds=60), await _key(lab)
    await lab.api.ok("DELETE", f"/keys/{second['id']}")
    answer = await lab.agent("connector").enrol_by_key(second["key"])
    assert isinstance(answer, Refused)
    assert answer.code == "key_revoked"
    lab.clock.offset += 61
    answer = await lab.agent("connector").enrol_by_key(first["key"])
    assert isinstance(answer, Refused)
    assert answer.code == "key_expired"


async def test_key_is_shown_once_and_stored_as_a_hash(lab: World) -> None:
    created = await _key(lab)
    secret = created["key"].split(".")[2]
    assert secret not in (await lab.api.http.get("/api/v1/keys", headers={"authorization": f"Bearer {lab.api.token}"})).text
    for path in lab.running.settings.data.glob("exchange.db*"):
        assert secret.encode() not in path.read_bytes()


async def test_case_24_weak_request_takes_no_use(lab: World) -> None:
    key = (await _key(lab))["key"]
    weak = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(weak, SHA256())
    csr = base64.b64encode(request.public_bytes(serialization.Encoding.DER)).decode()
    agent = lab.agent("connector")
    answer = await agent.ask_enrolment(EnrolByKey(key=key, csr=csr))
    assert isinstance(answer, Refused)
    assert answer.code == "csr_invalid"
    assert [row["uses"] for row in await lab.api.ok("GET", "/keys")] == [0]
    assert isinstance(await agent.enrol_by_key(key), Enrolled)


async def test_case_16_password_guessing_is_capped_and_never_for_good(lab: World) -> None:
    codes = []
    for _ in range(12):
        answer = await lab.agent("client").enrol_by_password("ada", "wrong horse")
        assert isinstance(answer, Refused)
        codes.append(answer.code)
    assert codes == ["sign_in_failed"] * 10 + ["too_many_attempts"] * 2
    answer = await lab.agent("client").enrol_by_password("ada", "correct horse")
    assert isinstance(answer, Refused)
    lab.clock.offset += 61
    assert isinstance(await lab.agent("client").enrol_by_password("ada", "correct horse"), Enrolled)


async def test_case_68_wrong_unknown_and_disabled_sign_ins_answer_alike(lab: World) -> None:
    await lab.api.ok("POST", "/users/bob/disable")
    answers = [
        await lab.agent("client").enrol_by_password(user, password)
        for user, password in (("ada", "wrong horse"), ("nobody", "correct horse"), ("bob", "correct horse"))
    ]
    assert len({answer.model_dump_json() for answer in answers}) == 1


async def test_refused_enrolments_are_in_the_audit(lab: World) -> None:
    await lab.agent("client").enrol_by_password("ada", "wrong horse")
    await lab.agent("connector").enrol_by_key("x")
    entries = (await lab.api.ok("GET", "/audit"))["entries"]
    assert {entry["code"] for entry in entries} >= {"sign_in_failed", "key_invalid"}
    assert all(entry["source"] == "127.0.0.1" for entry in entries if entry["code"] in ("sign_in_failed", "key_invalid"))


async def test_renewal_keeps_key_and_identity(lab: World) -> None:
    client = await lab.client("ada")
    assert client.enrolled is not None
    client.send(Renew())
    renewed = await client.receive(Renewed)
    assert _uris(renewed.chain) == _uris(client.enrolled.chain)
    assert _leaf(renewed.chain).public_key() == client.key.public_key()
    assert _leaf(renewed.chain).serial_number != _leaf(client.enrolled.chain).serial_number
    client.core.set_identity("client", renewed.chain, key_to_pem(client.key))


async def _enrolled_long_ago(lab: World, hours: int) -> Agent:
    """An agent whose leaf was made while the exchange's clock stood `hours` back; then the clock is right again."""
    agent = lab.agent("client")
    lab.clock.offset = -hours * HOUR
    assert isinstance(await agent.enrol_by_password("ada", "correct horse"), Enrolled)
    lab.clock.offset = 0
    return agent


async def test_fleet_returns_after_the_exchange_was_off_for_48_hours(old_lab: World) -> None:
    agent = await _enrolled_long_ago(old_lab, 49)
    agent.dial()
    await agent.until(lambda: agent.up or None)
    agent.send(Hello(version=1, software="test", boot=agent.boot))
    assert (await agent.receive(Refused)).code == "certificate_expired"
    agent.send(Renew())
    renewed = await agent.receive(Renewed)
    agent.core.set_identity("client", renewed.chain, key_to_pem(agent.key))
    agent.core.redial(agent.link, "replaced")
    await agent.until(lambda: None if agent.up else True)
    await agent.until(lambda: agent.up or None)
    agent.greet()
    await agent.until(lambda: next((m for m in agent.inbox if m.type == "welcome"), None))


async def test_expired_leaf_buys_nothing_but_a_renewal(old_lab: World) -> None:
    agent = await _enrolled_long_ago(old_lab, 49)
    agent.dial()
    await agent.until(lambda: agent.up or None)
    agent.send(WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp"))
    assert (await agent.receive(Refused)).code == "message_unexpected"
    await agent.until(lambda: agent.down)


async def test_leaf_expired_for_more_than_30_days_is_not_renewed(old_lab: World) -> None:
    agent = await _enrolled_long_ago(old_lab, 24 * 32)
    agent.dial()
    await agent.until(lambda: agent.down)
    assert not agent.up


async def test_revoked_agent_is_not_renewed(old_lab: World) -> None:
    agent = await _enrolled_long_ago(old_lab, 49)
    await old_lab.api.ok("POST", f"/agents/{agent.id}/revoke")
    agent.dial()
    await agent.until(lambda: agent.down or (True if agent.up else None))
    if agent.up:
        agent.send(Renew())
        assert (await agent.receive(Refused)).code == "agent_revoked"


async def test_case_26_copied_certificate_without_its_key_is_no_identity(lab: World) -> None:
    """Another key under the victim's chain does not even become an identity; the leaf's key must be proved."""
    victim, thief = await lab.client("ada"), lab.agent("client")
    assert victim.enrolled is not None
    with pytest.raises(_core.CoreError):
        thief.use(victim.enrolled)


async def test_password_enrolment_makes_a_client_of_that_user(lab: World) -> None:
    agent = lab.agent("client")
    answer = await agent.ask_enrolment(
        EnrolByPassword(user="ada", password="correct horse", csr=agent.csr(), hostname="a\nb\x1b[0m")
    )
    assert isinstance(answer, Enrolled)
    row = await lab.api.ok("GET", f"/agents/{answer.agent}")
    assert (row["role"], row["principal"], row["hostname"]) == ("client", "ada", "ab[0m")


async def test_second_question_on_an_enrolment_link_ends_it(lab: World) -> None:
    agent = lab.agent("client")
    agent.link = agent.core.dial_link(agent.address, role=None, root_sha256=agent.root_sha256)
    await agent.until(lambda: agent.up or None)
    for _ in range(2):
        agent.send(EnrolByPassword(user="ada", password="wrong horse", csr=agent.csr()))
    await agent.until(lambda: agent.down)
    await eventually(lambda: not lab.running.switchboard.unready())
