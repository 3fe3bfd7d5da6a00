"""Laws of programs that enrol by token: everything comes from the proof, and a proof is good once, for one key, for a while."""

import asyncio
import base64
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.unit.exchange.programs.conftest import CLUSTER, GITHUB, Issuers
from tests.unit.identity.tokens.minting import as_json, ec, encode, jwks, rsa

from cloister import _core
from cloister.exchange.errors import Refusal
from cloister.model.messages.from_agent import Bye, EnrolByToken, Prove, WantSession
from cloister.model.messages.from_exchange import Catalogue, Enrolled, Proved, Refused
from cloister.model.messages.from_exchange import Session as Ticket
from cloister.store.types import Actor


async def _agent(issuers: Issuers, id: str) -> dict[str, Any]:
    row: dict[str, Any] = await issuers.world.api.ok("GET", f"/agents/{id}")
    return row


@pytest.mark.parametrize(
    ("kind", "workload"), [("pod", "trainer"), ("github", "builder"), ("gitlab", "deployer"), ("svid", "scheduler")]
)
async def test_program_of_each_kind_of_issuer_is_the_workload_that_its_claims_say(
    issuers: Issuers, kind: str, workload: str
) -> None:
    agent = await issuers.enrol(getattr(issuers, kind)())
    row = await _agent(issuers, agent.id)
    assert (row["role"], row["principal"], row["actor"], row["group"]) == ("client", workload, "", "")
    catalogue = await agent.receive(Catalogue)
    assert [segment.name for segment in catalogue.segments] == ["jupyter"]


async def test_case_23_the_verifying_key_selects_the_connector_group(issuers: Issuers) -> None:
    """Both clusters bear one name; the service accounts are called alike."""
    for cluster, group in (("east", "lab"), ("west", "far")):
        agent = await issuers.enrol(issuers.pod("cloister", "connector", cluster), role="connector")
        row = await _agent(issuers, agent.id)
        assert (row["role"], row["group"], row["principal"]) == ("connector", group, "")


async def test_case_23_role_comes_from_the_proof(issuers: Issuers) -> None:
    """Who asks as a connector with a job's token is enrolled as that job's client, and as nothing else."""
    agent = issuers.world.agent("connector")
    with pytest.raises(_core.CoreError, match="no identity of role `connector`"):
        await issuers.ask(issuers.pod(), agent=agent)
    assert (await _agent(issuers, agent.id))["role"] == "client"


@pytest.mark.parametrize("token", ["x", "a.b.c", "..", "cloister-key-1.x"])
async def test_case_23_no_token_no_certificate(issuers: Issuers, token: str) -> None:
    assert (await issuers.refused(token)).startswith("token_")


async def test_case_3_wrong_audience(issuers: Issuers) -> None:
    for audience in ("https://kubernetes.default.svc", [], ["https://other.cloister"], "cloister", ..., issuers.audience + "/"):
        assert await issuers.refused(issuers.pod(aud=audience)) == "token_audience"


async def test_case_3_key_of_the_other_cluster(issuers: Issuers) -> None:
    """The same namespace and account elsewhere is another program: its key says so, whatever it claims."""
    assert await issuers.refused(issuers.pod(key="west")) == "workload_unknown"
    assert await issuers.refused(issuers.pod(key="stranger")) in ("token_key_unknown", "token_signature")


async def test_case_3_other_namespace_and_contradicting_claims(issuers: Issuers) -> None:
    assert await issuers.refused(issuers.pod(namespace="web")) == "workload_unknown"
    assert await issuers.refused(issuers.pod(sub="system:serviceaccount:web:trainer")) == "token_claim"
    assert await issuers.refused(issuers.pod(**{"kubernetes.io": ...})) == "token_claim"
    for claims in ({"repository": "evil/models"}, {"ref": "refs/tags/v1"}, {"ref": ["refs/heads/main"]}, {"repository": ...}):
        assert await issuers.refused(issuers.github(**claims)) == "workload_unknown"
    assert await issuers.refused(issuers.gitlab(ref="main2")) == "workload_unknown"


async def test_case_3_svid_of_another_trust_domain_or_path(issuers: Issuers) -> None:
    assert await issuers.refused(issuers.svid("/ns/batch/sa/other")) == "workload_unknown"
    assert (
        await issuers.refused(issuers.svid("/ns/batch/sa/scheduler", sub="spiffe://evil.example.org/ns/batch/sa/scheduler"))
        == "token_issuer"
    )
    assert await issuers.refused(issuers.svid("/ns/batch/sa/scheduler", sub="spiffe://prod.example.org.evil/x")) == "token_issuer"


async def test_expired_and_too_old_tokens(issuers: Issuers) -> None:
    now = int(issuers.world.clock())
    assert await issuers.refused(issuers.pod(exp=now - 60)) == "token_expired"
    assert await issuers.refused(issuers.pod(exp=...)) == "token_claim"
    assert await issuers.refused(issuers.pod(iat=now - 3601)) == "token_expired"
    assert await issuers.refused(issuers.pod(exp=now + 500 * 86400)) == "token_claim"


async def test_case_2_algorithm_confusion(issuers: Issuers) -> None:
    pem = rsa("east").public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _, payload, _ = issuers.pod().split(".")
    forged = []
    for header, mac in (({"alg": "HS256", "kid": "east"}, True), ({"alg": "none"}, False), ({"alg": "RS256", "kid": "east"}, True)):
        text = f"{encode(as_json(header))}.{payload}"
        forged.append(f"{text}.{encode(hmac.digest(pem, text.encode(), 'sha256')) if mac else ''}")
    codes = {await issuers.refused(token) for token in forged}
    assert codes <= {"token_algorithm", "token_signature", "token_malformed"}


async def test_case_5_key_named_by_the_token_is_not_looked_at(issuers: Issuers) -> None:
    stranger = rsa("stranger")
    for header in ({"jwk": stranger.as_dict(private=False)}, {"jku": "http://127.0.0.1/"}, {"kid": "../../etc/passwd"}):
        claims = json.loads(base64.urlsafe_b64decode(issuers.pod().split(".")[1] + "=="))
        token = issuers.mint(CLUSTER, stranger, claims, **header)
        assert (await issuers.refused(token)) in ("token_malformed", "token_key_unknown")


async def test_replay_by_another_key_is_refused_and_by_the_same_key_is_the_same_agent(issuers: Issuers) -> None:
    for token in (issuers.pod(), issuers.github()):  # without and with `jti`
        agent, first = await issuers.ask(token)
        assert isinstance(first, Enrolled)
        assert await issuers.refused(token) == "token_replayed"
        agent.inbox.clear()
        _, again = await issuers.ask(token, agent=agent)
        assert isinstance(again, Enrolled)
        assert again.agent == first.agent


async def test_replay_with_the_other_signature_of_the_same_token_is_refused(issuers: Issuers) -> None:
    """Of an ECDSA signature (r, s) anybody makes (r, n - s), which is as good: it is no second token."""
    key = ec("mesh")
    await issuers.world.apply(
        json.dumps({"kind": "token-issuer", "name": "mesh", "issuer": "https://mesh.example", "keys": jwks(key)})
        + "\n---\n{kind: workload, name: meshed, issuer: mesh, subject: m-1}"
    )
    token = issuers.mint("https://mesh.example", key, {"sub": "m-1"}, "ES256")
    await issuers.enrol(token)
    signed, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    other = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)
    assert await issuers.refused(f"{signed}.{encode(other)}") == "token_replayed"


async def test_program_that_is_revoked_while_it_enrols_again_stays_revoked(issuers: Issuers) -> None:
    token, running = issuers.pod(), issuers.world.running
    agent, first = await issuers.ask(token)
    assert isinstance(first, Enrolled)
    request = EnrolByToken(token=token, csr=agent.csr(), hostname="job")
    _, again = await asyncio.gather(
        running.administration.revoke_agent(Actor("admin"), first.agent),
        running.exchange._programs.enrol(request, "192.0.2.1"),
        return_exceptions=True,
    )
    assert isinstance(again, Refusal)
    assert again.code == "proof_ended"
    assert running.state.agents[first.agent].revoked_at is not None


async def test_replay_is_remembered_by_jti_whatever_else_the_token_says(issuers: Issuers) -> None:
    await issuers.enrol(issuers.github(jti="one"))
    assert await issuers.refused(issuers.github(jti="one", run_id="2")) == "token_replayed"
    await issuers.enrol(issuers.github(jti="two"))


async def test_what_no_workload_asks_for_and_what_two_ask_for_is_refused(issuers: Issuers) -> None:
    await issuers.world.apply(f"""
kind: workload
name: also-builder
issuer: {GITHUB}
claims: {{repository: lab/*, ref: refs/heads/main}}
""")
    assert await issuers.refused(issuers.github()) == "workload_ambiguous"
    await issuers.enrol(issuers.github(ref="refs/heads/topic"))


async def test_one_key_registered_for_two_issuers_is_nobodys(issuers: Issuers) -> None:
    east = json.dumps({"keys": [rsa("east").as_dict(private=False)]})
    await issuers.world.apply(f"{{kind: token-issuer, name: copy, type: kubernetes, issuer: '{CLUSTER}', keys: {east}}}")
    assert await issuers.refused(issuers.pod()) == "workload_ambiguous"


async def test_case_10_bounds(issuers: Issuers) -> None:
    limits = issuers.world.running.settings.limits
    object.__setattr__(limits, "presented_tokens", 1)
    await issuers.enrol(issuers.pod())
    assert await issuers.refused(issuers.github()) == "limit_reached"
    object.__setattr__(limits, "presented_tokens", 500_000)
    await issuers.enrol(issuers.github())


async def test_case_17_token_of_a_program_opens_nothing_else(issuers: Issuers) -> None:
    """It is no provisioning key and no API token; and a provisioning key is no token."""
    api = issuers.world.api
    answer = await api.http.get("/api/v1/me", headers={"authorization": f"Bearer {issuers.pod()}"})
    assert answer.status_code == 401
    refused = await issuers.world.agent("client").enrol_by_key(issuers.pod()[:256])
    assert isinstance(refused, Refused)
    key = await api.ok("POST", "/keys", json={"role": "connector", "group": "lab"})
    assert await issuers.refused(key["key"]) == "token_malformed"


async def test_case_96_program_ends_when_nobody_vouches_anew(issuers: Issuers) -> None:
    lab = issuers.world
    connector = await lab.connector()
    agent = await issuers.enrol(issuers.pod())
    agent.send(WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp"))
    ticket = await agent.receive(Ticket)
    assert connector.id in ticket.connectors
    lab.clock.offset += 3601
    assert (await agent.receive(Refused)).code == "proof_ended"
    assert lab.running.book.of_client(agent.id) == []
    assert (await _agent(issuers, agent.id))["revoked_at"] is not None


async def test_fresh_token_prolongs_and_only_of_the_same_program(issuers: Issuers) -> None:
    agent = await issuers.enrol(issuers.pod())
    before = (await _agent(issuers, agent.id))["vouched_until"]
    issuers.world.clock.offset += 1800
    agent.send(Prove(token=issuers.github()))
    assert (await agent.receive(Refused)).code == "proof_ended"
    agent.send(Prove(token=issuers.pod(aud="other")))
    assert (await agent.receive(Refused)).code == "token_audience"
    agent.send(Prove(token=issuers.pod()))
    assert (await agent.receive(Proved)).until >= before + 1800
    issuers.world.clock.offset += 1900
    issuers.world.running.exchange.on_tick(issuers.world.clock())
    assert agent.id in {link.agent for link in issuers.world.running.switchboard.of_role("client")}


async def test_same_token_again_prolongs_nothing(issuers: Issuers) -> None:
    token = issuers.pod()
    agent = await issuers.enrol(token)
    before = (await _agent(issuers, agent.id))["vouched_until"]
    issuers.world.clock.offset += 500
    agent.send(Prove(token=token))
    assert (await agent.receive(Proved)).until == before


async def test_agent_of_another_kind_has_nothing_to_prove(issuers: Issuers) -> None:
    ada = await issuers.world.client("ada")
    ada.send(Prove(token=issuers.pod()))
    assert (await ada.receive(Refused)).code == "message_unexpected"
    assert (await _agent(issuers, ada.id))["principal"] == "ada"


@pytest.mark.parametrize(
    "change",
    [
        "{kind: workload, name: trainer, issuer: east, claims: {namespace: ml, serviceaccount: other}}",
        "{kind: workload, name: trainer, issuer: east, subject: x, disabled: true}",
        f"{{kind: token-issuer, name: east, type: kubernetes, issuer: '{CLUSTER}', keys: {{keys: [{{kty: RSA, n: x, e: AQAB}}]}}}}",
    ],
    ids=["claims", "disabled", "key"],
)
async def test_case_96_program_ends_with_the_document_that_vouched(issuers: Issuers, change: str) -> None:
    agent = await issuers.enrol(issuers.pod())
    await issuers.world.apply(change)
    assert (await agent.receive(Refused)).code in ("proof_ended", "user_disabled")


async def test_rotation_of_keys_ends_nobody_whose_key_is_still_there(issuers: Issuers) -> None:
    agent = await issuers.enrol(issuers.pod())
    keys = json.dumps({"keys": [rsa(name).as_dict(private=False) for name in ("east-2", "east")]})
    connectors = '{group: lab, subjects: ["system:serviceaccount:cloister:connector", "system:serviceaccount:cloister:second"]}'
    await issuers.world.apply(
        f"{{kind: token-issuer, name: east, type: kubernetes, issuer: '{CLUSTER}', keys: {keys}, connectors: {connectors}}}"
    )
    await issuers.enrol(issuers.pod(key="east-2"))
    assert (await _agent(issuers, agent.id))["revoked_at"] is None


async def test_program_that_leaves_is_gone(issuers: Issuers) -> None:
    agent = await issuers.enrol(issuers.pod())
    agent.send(Bye())
    await agent.until(lambda: agent.down)
    assert (await _agent(issuers, agent.id))["revoked_at"] is not None
