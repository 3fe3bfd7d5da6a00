"""Laws of rotations that connectors report: only a connector of the very group, only public keys, only this cluster's, and everything is written down."""

import asyncio
import json
from typing import Any

import pytest
from tests.unit.exchange.conftest import Agent, World, eventually
from tests.unit.exchange.programs.conftest import CLUSTER, Issuers, text_of
from tests.unit.identity.tokens.minting import rsa

from cloister.identity.tokens.rotation import OVERLAP
from cloister.model.messages.from_agent import ClusterKeys, Prove
from cloister.model.messages.from_exchange import Enrolled, KeysTaken, Proved

CONNECTOR = ("cloister", "connector")


def east(keys: str = text_of("east"), report_keys: str = "true", **changes: str) -> str:
    """The cluster of group `lab`, whose connectors may report."""
    extra = "".join(f"{name}: {value}\n" for name, value in changes.items())
    return (
        f"kind: token-issuer\nname: east\ntype: kubernetes\nissuer: {CLUSTER}\nkeys: {keys}\n{extra}"
        f"connectors: {{group: lab, subjects: ['system:serviceaccount:cloister:connector'], report_keys: {report_keys}}}\n"
    )


@pytest.fixture
async def clusters(issuers: Issuers) -> Issuers:
    await issuers.world.apply(east())
    return issuers


async def report(agent: Agent, *keys: Any) -> KeysTaken:
    agent.send(ClusterKeys(keys=[public(key) for key in keys]))
    return await agent.receive(KeysTaken)


def public(key: Any) -> dict[Any, str]:
    return {name: value for name, value in key.as_dict(private=False).items() if name in ("kty", "kid", "n", "e", "crv", "x", "y")}


async def audited(world: World) -> list[dict[str, Any]]:
    entries = (await world.api.ok("GET", "/audit", params={"limit": 1000}))["entries"]
    return [entry for entry in entries if entry["action"] == "issuer.keys"]


async def test_a_reported_key_verifies_and_the_old_one_does_for_the_overlap(clusters: Issuers) -> None:
    world = clusters.world
    assert await clusters.refused(clusters.pod(key="next")) in ("token_key_unknown", "token_signature")
    connector = await clusters.enrol(clusters.pod(*CONNECTOR), role="connector")
    assert (await report(connector, rsa("east"), rsa("next"))).code == "ok"
    assert (await report(connector, rsa("next"))).code == "ok"
    await clusters.enrol(clusters.pod(key="next"))
    await clusters.enrol(clusters.pod(key="east", jti="overlap"))
    world.clock.offset += OVERLAP
    assert isinstance((await clusters.ask(clusters.pod(key="next", jti="later")))[1], Enrolled)
    assert await clusters.refused(clusters.pod(key="east", jti="too late")) in ("token_key_unknown", "token_signature")
    told = await audited(world)
    assert [entry["actor"] for entry in told] == [f"agent:{connector.id}"] * 2
    assert sorted((entry["detail"]["new"], entry["detail"]["retired"]) for entry in told) == [([], ["east"]), (["next"], [])]


async def test_a_rotation_ends_nobody_who_was_vouched_for_by_the_old_key(clusters: Issuers) -> None:
    connector = await clusters.enrol(clusters.pod(*CONNECTOR), role="connector")
    trainer = await clusters.enrol(clusters.pod())
    await report(connector, rsa("east"), rsa("next"))
    await report(connector, rsa("next"))
    await clusters.world.apply("{kind: group, name: something-else}")  # whatever changes, all proofs are looked at again
    agents = clusters.world.running.state.agents
    assert agents[connector.id].revoked_at is None
    assert agents[trainer.id].revoked_at is None
    connector.send(Prove(token=clusters.pod(*CONNECTOR, key="next", jti="n")))
    await connector.receive(Proved)


async def test_a_connector_of_another_group_reports_nothing(clusters: Issuers) -> None:
    """Of the cluster `west`, whose issuer bears the same name; of its own issuer it may not report either until its document says so."""
    far = await clusters.enrol(clusters.pod(*CONNECTOR, key="west"), role="connector")
    before = dict(clusters.world.running.state.cluster_keys)
    assert (await report(far, rsa("east"), rsa("evil"))).code == "not_authorised"
    assert clusters.world.running.state.cluster_keys == before
    assert await clusters.refused(clusters.pod(key="evil")) in ("token_key_unknown", "token_signature")
    assert [entry["code"] for entry in await audited(clusters.world)] == ["not_authorised"]


async def test_the_group_of_the_enrolment_chooses_the_issuer(clusters: Issuers) -> None:
    """Once `west` may report, its report is about `west` only: with keys of `east` it is about another cluster."""
    await clusters.world.apply(east(text_of("west")).replace("name: east", "name: west").replace("group: lab", "group: far"))
    far = await clusters.enrol(clusters.pod(*CONNECTOR, key="west"), role="connector")
    answer = await report(far, rsa("east"), rsa("evil"))
    assert (answer.code, "another cluster" in answer.message) == ("argument_invalid", True)


async def test_a_key_that_another_cluster_has_is_refused(clusters: Issuers) -> None:
    """Else its tokens would be good as those of this cluster's service accounts, or as nobody's."""
    connector = await clusters.enrol(clusters.pod(*CONNECTOR), role="connector")
    answer = await report(connector, rsa("east"), rsa("west"))
    assert (answer.code, "`west`" in answer.message) == ("conflict", True)
    await clusters.enrol(clusters.pod(*CONNECTOR, key="west"), role="connector")  # not ambiguous
    renamed = {**public(rsa("west")), "kid": "east-2"}
    connector.send(ClusterKeys(keys=[public(rsa("east")), renamed]))
    assert (await connector.receive(KeysTaken)).code == "conflict"


async def test_a_key_that_another_cluster_reported_is_refused(clusters: Issuers) -> None:
    await clusters.world.apply(east(text_of("west")).replace("name: east", "name: west").replace("group: lab", "group: far"))
    lab = await clusters.enrol(clusters.pod(*CONNECTOR), role="connector")
    far = await clusters.enrol(clusters.pod(*CONNECTOR, key="west"), role="connector")
    assert (await report(far, rsa("west"), rsa("west-2"))).code == "ok"
    assert (await report(lab, rsa("east"), rsa("west-2"))).code == "conflict"


async def test_a_name_of_a_known_key_is_not_given_to_another(clusters: Issuers) -> None:
    connector = await clusters.enrol(clusters.pod(*CONNECTOR), role="connector")
    assert (await report(connector, rsa("east"), rsa("next"))).code == "ok"
    connector.send(ClusterKeys(keys=[public(rsa("east")), {**public(rsa("evil")), "kid": "next"}]))
    assert (await connector.receive(KeysTaken)).code == "argument_invalid"


@pytest.mark.parametrize(
    "body",
    [
        {"type": "cluster_keys", "keys": [rsa("east").as_dict(private=True)]},
        {"type": "cluster_keys", "keys": [{**public(rsa("east")), "k": "c2VjcmV0"}]},
        {"type": "cluster_keys", "keys": []},
        {"type": "cluster_keys", "keys": [public(rsa("east"))] * 17},
        {"type": "cluster_keys", "keys": [{**public(rsa("east")), "n": "A" * 2049}]},
        {"type": "cluster_keys", "keys": [public(rsa("east"))], "issuer": "west"},
        {"type": "cluster_keys", "keys": {"keys": []}},
    ],
    ids=["private", "symmetric", "none", "too many", "too long", "names an issuer", "another shape"],
)
async def test_what_is_no_bounded_list_of_public_keys_ends_the_link_and_changes_nothing(
    clusters: Issuers, body: dict[str, Any]
) -> None:
    connector = await clusters.enrol(clusters.pod(*CONNECTOR), role="connector")
    assert connector.core.send(connector.link, json.dumps(body).encode())
    await connector.until(lambda: connector.down)
    assert clusters.world.running.state.cluster_keys == {}


@pytest.mark.parametrize("role", ["client", "relay"])
async def test_only_a_connector_may_report(clusters: Issuers, role: Any) -> None:
    if role == "client":
        agent = await clusters.enrol(clusters.pod())
    else:
        key = (await clusters.world.api.ok("POST", "/keys", json={"role": "relay", "address": "127.0.0.1:1"}))["key"]
        agent = clusters.world.agent("relay")
        await agent.enrol_by_key(key)
        await agent.connect()
    agent.send(ClusterKeys(keys=[public(rsa("east")), public(rsa("evil"))]))
    await agent.until(lambda: agent.down)
    assert clusters.world.running.state.cluster_keys == {}


async def test_without_the_administrators_word_nobody_reports(clusters: Issuers) -> None:
    await clusters.world.apply(east(report_keys="false"))
    connector = await clusters.enrol(clusters.pod(*CONNECTOR), role="connector")
    assert (await report(connector, rsa("east"), rsa("next"))).code == "not_authorised"


async def test_taking_the_word_back_ends_whoever_a_reported_key_vouched_for(clusters: Issuers) -> None:
    connector = await clusters.enrol(clusters.pod(*CONNECTOR), role="connector")
    await report(connector, rsa("east"), rsa("evil"))
    evil = await clusters.enrol(clusters.pod(key="evil"))
    good = await clusters.enrol(clusters.pod(jti="good"))
    await clusters.world.apply(east(report_keys="false"))
    agents = clusters.world.running.state.agents
    await eventually(lambda: agents[evil.id].revoked_at is not None)
    assert agents[good.id].revoked_at is None
    assert agents[connector.id].revoked_at is None
    assert await clusters.refused(clusters.pod(key="evil", jti="again")) in ("token_key_unknown", "token_signature")


async def test_the_administrators_keys_replace_what_was_reported(clusters: Issuers) -> None:
    connector = await clusters.enrol(clusters.pod(*CONNECTOR), role="connector")
    await report(connector, rsa("east"), rsa("next"))
    await clusters.world.apply(east())  # the same document again: nothing is lost
    await clusters.enrol(clusters.pod(key="next", jti="1"))
    await clusters.world.apply(east(text_of("east", "third")))
    assert await clusters.refused(clusters.pod(key="next", jti="2")) in ("token_key_unknown", "token_signature")
    assert (await report(connector, rsa("east"), rsa("third"), rsa("next"))).code == "ok"


async def test_several_clusters_of_one_group_are_told_apart_by_the_token_only(clusters: Issuers) -> None:
    await clusters.world.apply(east(text_of("other")).replace("name: east", "name: other"))
    by_key = await clusters.world.connector("lab")
    assert (await report(by_key, rsa("east"), rsa("next"))).code == "conflict"
    by_token = await clusters.enrol(clusters.pod(*CONNECTOR), role="connector")
    assert (await report(by_token, rsa("east"), rsa("next"))).code == "ok"


async def test_reports_at_the_same_moment_come_one_after_the_other(clusters: Issuers) -> None:
    one = await clusters.enrol(clusters.pod(*CONNECTOR), role="connector")
    two = await clusters.enrol(clusters.pod(*CONNECTOR, jti="two"), role="connector")
    answers = await asyncio.gather(report(one, rsa("east"), rsa("next")), report(two, rsa("east"), rsa("third")))
    assert [answer.code for answer in answers] == ["ok", "ok"]
    state = clusters.world.running.state
    (reported,) = state.cluster_keys.values()
    assert sorted(key.jwk["kid"] for key in reported.keys.values()) == ["east", "next", "third"]
