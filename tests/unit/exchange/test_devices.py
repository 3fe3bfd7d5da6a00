"""What clients report of their devices, where they are, and what others push about them: live sessions follow it."""

import asyncio
import json
from typing import Any

import pytest
from tests.unit.exchange.conftest import Agent, World

from cloister.exchange.devices.service import REPORT_SECONDS
from cloister.exchange.facts import facts_of
from cloister.exchange.state import load_state
from cloister.model.messages.common import MAX_POSTURE_FACTS
from cloister.model.messages.from_agent import Posture, PostureFact, WantSession
from cloister.model.messages.from_exchange import EndSession, PostureAsk, Refused, Session
from cloister.model.reasons import Code
from cloister.store.types import Subject

PROFILE = """
kind: posture-profile
name: managed
require:
  disk.encrypted: true
  os.version: {at_least: "22.04"}
  edr: {process: falcon-sensor}
"""
GOOD = {"disk.encrypted": "true", "os.version": "24.04", "process/falcon-sensor": "running", "os.name": "ubuntu"}


async def _rule(lab: World, when: str) -> None:
    await lab.apply(
        "kind: rule\nname: science-uses-jupyter\neffect: permit\nwho: {groups: [science]}\nwhat: {segments: [jupyter]}\n"
        f"when: {when}\n"
    )


def _report(lab: World, client: Agent, facts: dict[str, Any], at: int | None = None) -> None:
    now = int(lab.clock()) if at is None else at
    lab.clock.offset += REPORT_SECONDS  # so that each report counts at once
    client.send(Posture(facts=[PostureFact(name=name, value=value, observed_at=now) for name, value in facts.items()]))


async def _want(client: Agent, ref: int) -> Any:
    client.send(WantSession(ref=ref, host="jupyter.lab.internal", port=8888, protocol="tcp"))
    answer = await client.until(lambda: next((m for m in client.inbox if isinstance(m, Session | Refused) and m.ref == ref), None))
    client.inbox.remove(answer)
    return answer


async def _managed(lab: World) -> Agent:
    await lab.connector()
    await lab.apply(PROFILE)
    await _rule(lab, "{profiles: [managed]}")
    return await lab.client("ada")


async def test_a_report_opens_what_a_profile_closed_and_a_worse_one_ends_it_by_name(lab: World) -> None:
    ada = await _managed(lab)
    refused = await _want(ada, 1)
    assert refused.code == Code.CONDITION_FAILED
    assert "the posture profile `managed`: `disk.encrypted` is not reported" in refused.message
    _report(lab, ada, GOOD)
    session = await _want(ada, 2)
    assert isinstance(session, Session)
    _report(lab, ada, GOOD | {"os.name": "debian"})
    assert isinstance(await _want(ada, 3), Session)  # negative control: nothing that the profile reads
    _report(lab, ada, GOOD | {"process/falcon-sensor": "absent"})
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.POSTURE_FAILED)
    assert "`managed`: `edr` is `absent`, not `running`" in end.message


async def test_case_78_a_fact_that_is_not_reported_any_more_has_failed(lab: World) -> None:
    ada = await _managed(lab)
    _report(lab, ada, GOOD)
    assert isinstance(await _want(ada, 1), Session)
    _report(lab, ada, {name: value for name, value in GOOD.items() if name != "disk.encrypted"})
    end = await ada.receive(EndSession)
    assert end.code == Code.POSTURE_FAILED
    assert "`disk.encrypted` is not reported" in end.message


async def test_a_profile_ends_sessions_by_the_clock_when_its_facts_get_too_old(lab: World) -> None:
    ada = await _managed(lab)
    await lab.apply(PROFILE.replace("disk.encrypted: true", "disk.encrypted: {is: true, max_age: 100s}"))
    _report(lab, ada, GOOD)
    session = await _want(ada, 1)
    lab.clock.offset += 95
    assert isinstance(await _want(ada, 2), Session)
    lab.clock.offset += 10
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.POSTURE_FAILED)
    assert "`disk.encrypted` is too old" in end.message


async def test_a_changed_profile_is_asked_for_and_ends_what_does_not_fulfil_it(lab: World) -> None:
    ada = await _managed(lab)
    asked = await ada.receive(PostureAsk)
    assert [profile["name"] for profile in asked.profiles] == ["managed"]
    _report(lab, ada, GOOD)
    assert isinstance(await _want(ada, 1), Session)
    await lab.apply(PROFILE.replace("22.04", "26.04"))
    end = await ada.receive(EndSession)
    assert end.code == Code.POSTURE_FAILED
    assert "`os.version` is `24.04`, below `26.04`" in end.message
    assert (await ada.receive(PostureAsk)).profiles[0]["require"]["os.version"] == {"at_least": "26.04"}


async def test_nothing_is_asked_of_whom_no_rule_asks_anything(lab: World) -> None:
    await lab.apply(PROFILE)
    await lab.apply("{kind: rule, name: r, effect: permit, who: {users: [bob]}, what: {any: true}, when: {profiles: [managed]}}")
    ada, bob = await lab.client("ada"), await lab.client("bob")
    assert (await bob.receive(PostureAsk)).profiles
    assert isinstance(await _want(ada, 1), Refused | Session)
    assert ada.take(PostureAsk) == []


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "has no value"),
        (True, "is not text"),
        (7, "is not text"),
        (["true"], "is not text"),
        ({"a": 1}, "is not text"),
        ("", "is empty"),
        ("x" * 1_000_000, "is longer than 256 characters"),
        ("true\n", "is not one line"),
        ("plan9", "is `plan9`, not `true`"),
    ],
)
async def test_case_87_a_fact_that_is_garbage_fails_by_name_and_alone(lab: World, value: Any, why: str) -> None:
    ada = await _managed(lab)
    _report(lab, ada, GOOD)
    assert isinstance(await _want(ada, 1), Session)
    _report(lab, ada, GOOD | {"disk.encrypted": value})
    end = await ada.receive(EndSession)
    assert end.code == Code.POSTURE_FAILED
    assert f"`disk.encrypted` {why}" in end.message
    assert "os.version" not in end.message  # what is well formed counts
    _report(lab, ada, GOOD)
    assert isinstance(await _want(ada, 2), Session)  # the link lives


@pytest.mark.parametrize("at", [None, "now", True, 1.5, -1, 10**30, [1]])
async def test_case_87_a_fact_without_a_time_or_out_of_its_time_fails_by_name(lab: World, at: Any) -> None:
    ada = await _managed(lab)
    _report(lab, ada, GOOD)
    assert isinstance(await _want(ada, 1), Session)
    now = int(lab.clock())
    lab.clock.offset += REPORT_SECONDS
    facts = [PostureFact(name=name, value=value, observed_at=now) for name, value in GOOD.items() if name != "os.version"]
    ada.send(Posture(facts=[*facts, PostureFact(name="os.version", value="24.04", observed_at=at)]))
    end = await ada.receive(EndSession)
    assert end.code == Code.POSTURE_FAILED
    assert "`os.version` " in end.message


async def test_case_87_a_fact_of_the_future_fails_and_a_clock_a_little_ahead_does_not(lab: World) -> None:
    ada = await _managed(lab)
    _report(lab, ada, GOOD, at=int(lab.clock()) + 25)
    assert isinstance(await _want(ada, 1), Session)
    _report(lab, ada, GOOD, at=int(lab.clock()) + 3600)
    end = await ada.receive(EndSession)
    assert "`disk.encrypted` is dated in the future" in end.message


@pytest.mark.parametrize("name", ["", "A", "!disk.encrypted", "a\x1b[31m", "a\nb", "x" * 257])
async def test_case_94_a_fact_whose_name_is_none_ends_the_link_and_leaves_nothing_behind(lab: World, name: str) -> None:
    ada = await lab.client("ada")
    facts = [{"name": name, "value": "x", "observed_at": int(lab.clock())}]
    assert ada.core.send(ada.link, json.dumps({"type": "posture", "facts": facts}).encode())
    assert (await ada.receive(Refused)).code == Code.MESSAGE_MALFORMED
    await ada.until(lambda: ada.down)
    assert lab.running.state.evidence.of(Subject("agent", ada.id)) == {}


async def test_a_report_has_bounds(lab: World) -> None:
    ada = await lab.client("ada")
    now = int(lab.clock())
    most = [PostureFact(name=f"fact{at}", value="x", observed_at=now) for at in range(MAX_POSTURE_FACTS)]
    ada.send(Posture(facts=most))
    await _want(ada, 1)
    assert len(lab.running.state.evidence.of(Subject("agent", ada.id))) == MAX_POSTURE_FACTS
    ada.send(Posture.model_construct(facts=[*most, most[0]]))
    refused = await ada.until(lambda: next((m for m in ada.inbox if isinstance(m, Refused) and m.ref is None), None))
    assert refused.code == Code.MESSAGE_MALFORMED


async def test_a_report_of_a_connector_ends_its_link(lab: World) -> None:
    connector = await lab.connector()
    connector.send(Posture(facts=[]))
    assert (await connector.receive(Refused)).code == Code.MESSAGE_UNEXPECTED


async def test_reports_and_who_is_where_survive_a_restart_of_state(lab: World) -> None:
    ada = await _managed(lab)
    _report(lab, ada, GOOD)
    assert isinstance(await _want(ada, 1), Session)
    await lab.add_user("cid")  # a commit of its own comes after what was noted
    state = await asyncio.to_thread(load_state, lab.running.store, lab.running.state.keyring)
    agent = state.agents[ada.id]
    facts = facts_of(state, agent, int(lab.clock()))
    assert facts is not None
    assert facts.device is not None
    assert facts.device.profiles == {"managed"}


async def test_what_a_client_says_of_the_owner_is_not_believed(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await lab.apply("{kind: device, name: laptop, owner: bob}")
    await lab.api.ok("PUT", f"/agents/{ada.id}/device", json={"device": "laptop"})
    await _rule(lab, "{posture: {owner: self}}")
    _report(lab, ada, {"owner": "self"})
    assert isinstance(await _want(ada, 1), Refused)
    await lab.apply("{kind: device, name: laptop, owner: ada}")
    session = await _want(ada, 2)
    assert isinstance(session, Session)
    await lab.apply("{kind: device, name: laptop}")
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.POSTURE_FAILED)


async def test_reports_that_come_too_fast_count_at_last(lab: World) -> None:
    ada = await _managed(lab)
    lab.clock.freeze()
    now = int(lab.clock())
    for value in ("24.04", "1", "2", "24.10", "22.10"):
        facts = {**GOOD, "os.version": value}
        ada.send(Posture(facts=[PostureFact(name=name, value=told, observed_at=now) for name, told in facts.items()]))
    assert isinstance(await _want(ada, 1), Session)
    known = lab.running.state.evidence.of(Subject("agent", ada.id))
    assert known["client", "os.version"].value == "24.04"  # the first; the others wait
    lab.clock.offset += REPORT_SECONDS
    await _eventually(lambda: known["client", "os.version"].value == "22.10")


async def _eventually(condition: Any) -> None:
    from tests.unit.exchange.conftest import eventually

    await eventually(condition)


# ------------------------------------------------------------------ where clients are


async def _comes_from(lab: World, client: Agent, address: str) -> None:
    """The client's link comes from another address: as the exchange would see it behind another network."""
    agent = lab.running.state.agents[client.id]
    link = lab.running.switchboard.of_agent(client.id)
    assert link is not None
    before = agent.last_address
    import dataclasses

    lab.running.state.agents[client.id] = dataclasses.replace(agent, last_address=address)
    lab.running.devices.client_is_up(link, before)


async def test_case_76_a_client_that_moves_to_another_network_loses_what_only_the_first_one_gives(lab: World) -> None:
    await lab.connector()
    await lab.apply("{kind: network, name: home, networks: [127.0.0.0/8]}")
    await _rule(lab, "{networks: [home]}")
    ada = await lab.client("ada")
    session = await _want(ada, 1)
    assert isinstance(session, Session)
    await _comes_from(lab, ada, "127.0.0.9:4000")
    assert lab.running.book.get(session.session) is not None  # negative control: the same network
    await _comes_from(lab, ada, "198.51.100.7:4000")
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.OUTSIDE_NETWORK)
    await _comes_from(lab, ada, "[::ffff:127.0.0.1]:4000")
    assert isinstance(await _want(ada, 2), Session)


async def test_a_network_that_is_drawn_anew_ends_what_it_leaves_outside(lab: World) -> None:
    await lab.connector()
    await lab.apply("{kind: network, name: home, networks: [127.0.0.0/8]}")
    await _rule(lab, "{networks: [home]}")
    ada = await lab.client("ada")
    session = await _want(ada, 1)
    await lab.apply("{kind: network, name: home, networks: [192.0.2.0/24]}")
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.OUTSIDE_NETWORK)


async def test_a_second_place_ends_what_wants_one_and_the_first_alone_may_go_on(lab: World) -> None:
    await lab.connector()
    await _rule(lab, "{one_place: true}")
    ada = await lab.client("ada")
    session = await _want(ada, 1)
    assert isinstance(session, Session)
    second = await lab.client("ada")
    assert lab.running.book.get(session.session) is not None  # negative control: two clients at one place
    await _comes_from(lab, second, "198.51.100.7:4000")
    end = await ada.receive(EndSession)
    assert end.sessions == [session.session]
    assert "two places" in end.message
    assert isinstance(await _want(second, 1), Refused)
    second.core.close_link(second.link, "stopped")
    await _eventually(lambda: lab.running.switchboard.of_agent(second.id) is None)
    assert isinstance(await _want(ada, 2), Session)


async def test_a_sign_in_at_another_place_counts_for_five_minutes(lab: World) -> None:
    await lab.connector()
    await _rule(lab, "{one_place: true}")
    ada = await lab.client("ada")
    session = await _want(ada, 1)
    principal = lab.running.state.agents[ada.id].principal
    assert principal is not None
    lab.running.devices.signed_in(principal, "127.0.0.1")
    assert lab.running.book.get(session.session) is not None
    lab.running.devices.signed_in(principal, "198.51.100.7")
    assert (await ada.receive(EndSession)).sessions == [session.session]
    lab.clock.offset += 299
    assert isinstance(await _want(ada, 2), Refused)
    lab.clock.offset += 2
    assert isinstance(await _want(ada, 3), Session)


async def test_a_sign_in_over_the_api_is_seen_as_a_sign_in(lab: World) -> None:
    await lab.connector()
    await lab.apply("{kind: network, name: elsewhere, networks: [198.51.100.0/24]}")
    await _rule(lab, "{one_place: true}")
    ada = await lab.client("ada")
    assert isinstance(await _want(ada, 1), Session)
    await _comes_from(lab, ada, "198.51.100.7:4000")
    assert isinstance(await _want(ada, 2), Session)  # whoever walks away after the sign-in is at one place
    answer = await lab.api.http.post("/api/v1/sign-in", json={"user": "ada", "password": "correct horse"})
    assert answer.status_code == 200
    assert "two places" in (await ada.receive(EndSession)).message


def test_facts_travel_as_they_are() -> None:
    assert (
        json.loads(Posture(facts=[PostureFact(name="a", value="b", observed_at=1)]).model_dump_json())["facts"][0]["value"] == "b"
    )


# ------------------------------------------------------------------ facts from outside

MDM_PROFILE = "kind: posture-profile\nname: enrolled\nrequire:\n  compliant: {is: true, from: mdm}\n"


async def _source_token(lab: World, source: str = "mdm") -> str:
    await lab.add_user(f"{source}-service")
    made = await lab.api.ok("POST", f"/fact-sources/{source}/tokens", json={"account": f"{source}-service"})
    return str(made["token"])


async def _push(lab: World, token: str, path: str, *facts: dict[str, Any]) -> int:
    headers = {"authorization": f"Bearer {token}"}
    answer = await lab.api.http.put(f"/api/v1{path}", headers=headers, json={"facts": list(facts)})
    return answer.status_code


async def _enrolled_laptop(lab: World) -> Agent:
    await lab.connector()
    await lab.apply(f"{MDM_PROFILE}---\n{{kind: device, name: laptop}}")
    await _rule(lab, "{profiles: [enrolled]}")
    ada = await lab.client("ada")
    await lab.api.ok("PUT", f"/agents/{ada.id}/device", json={"device": "laptop"})
    return ada


async def test_what_a_source_says_opens_and_what_it_says_no_more_ends(lab: World) -> None:
    ada = await _enrolled_laptop(lab)
    token = await _source_token(lab)
    assert await _push(lab, token, "/devices/laptop/facts/mdm", {"name": "compliant", "value": True}) == 200
    session = await _want(ada, 1)
    assert isinstance(session, Session)
    assert await _push(lab, token, "/devices/laptop/facts/mdm", {"name": "other", "value": "x"}) == 200
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.POSTURE_FAILED)
    assert "`enrolled`: `compliant` is not reported" in end.message
    assert await _push(lab, token, f"/agents/{ada.id}/facts/mdm", {"name": "compliant", "value": True, "seconds": 60}) == 200
    assert isinstance(await _want(ada, 2), Session)
    lab.clock.offset += 61
    assert "is too old" in (await ada.receive(EndSession)).message


async def test_what_was_said_of_a_device_goes_with_its_document(lab: World) -> None:
    """Nobody could take it back any more: neither the source nor an administrator finds the device."""
    ada = await _enrolled_laptop(lab)
    assert await _push(lab, await _source_token(lab), "/devices/laptop/facts/mdm", {"name": "compliant", "value": True}) == 200
    session = await _want(ada, 1)
    assert isinstance(session, Session)
    await lab.api.ok("DELETE", "/devices/laptop")
    end = await ada.receive(EndSession)
    assert end.sessions == [session.session]
    assert (await _want(ada, 2)).code == Code.CONDITION_FAILED
    await lab.apply("{kind: device, name: laptop}")  # another one, made anew under the name
    assert (await _want(ada, 3)).code == Code.CONDITION_FAILED


async def test_case_96_a_device_that_is_switched_off_stays_off_when_its_document_goes(lab: World) -> None:
    ada = await _enrolled_laptop(lab)
    await _rule(lab, "{strength: password}")
    switch = await lab.api.ok("POST", "/kill-switches", json={"scope": "device", "target": "laptop", "reason": "stolen"})
    assert "stolen" in (await _want(ada, 1)).message
    await lab.api.ok("DELETE", "/devices/laptop")
    refused = await _want(ada, 2)
    assert refused.code == Code.KILL_SWITCH
    assert "stolen" in refused.message
    await lab.api.ok("DELETE", f"/kill-switches/{switch['id']}")
    assert isinstance(await _want(ada, 3), Session)


async def test_a_client_cannot_say_what_a_source_says(lab: World) -> None:
    ada = await _enrolled_laptop(lab)
    _report(lab, ada, {"compliant": "true", "mdm/compliant": "true"})
    assert "`compliant` is not reported" in (await _want(ada, 1)).message


async def test_case_37_a_rule_that_reads_a_source_never_takes_the_word_of_the_client(lab: World) -> None:
    ada = await _enrolled_laptop(lab)
    await _rule(lab, '{posture: {mdm/compliant: "true"}}')
    token = await _source_token(lab)
    assert await _push(lab, token, "/devices/laptop/facts/mdm", {"name": "compliant", "value": True}) == 200
    assert isinstance(await _want(ada, 1), Session)
    assert await _push(lab, token, "/devices/laptop/facts/mdm", {"name": "compliant", "value": False}) == 200
    await ada.receive(EndSession)
    _report(lab, ada, {"mdm/compliant": "true"})
    assert (await _want(ada, 2)).code == Code.CONDITION_FAILED
    assert await _push(lab, token, "/devices/laptop/facts/mdm") == 200  # says nothing any more
    assert (await _want(ada, 3)).code == Code.CONDITION_FAILED


@pytest.mark.parametrize("source", ["process", "file", "certificate"])
async def test_no_source_has_the_name_of_a_kind_of_fact_that_clients_report(lab: World, source: str) -> None:
    assert (await lab.api.call("POST", f"/fact-sources/{source}/tokens", json={"account": "bob"})).status_code == 422


async def test_case_80_a_token_of_a_source_reaches_the_facts_of_that_source_and_nothing_else(lab: World) -> None:
    await _enrolled_laptop(lab)
    token = await _source_token(lab)
    fact = {"name": "compliant", "value": True}
    assert await _push(lab, token, "/devices/laptop/facts/mdm", fact) == 200
    assert await _push(lab, token, "/devices/laptop/facts/edr", fact) == 403
    assert await _push(lab, token, "/devices/laptop/facts/client", fact) == 403
    schema = await lab.api.ok("GET", "/openapi.json")
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if method in ("get", "post", "put", "delete") and operation["x-guard"] not in ("public", "source"):
                answer = await lab.api.http.request(
                    method, path.replace("{source}", "mdm"), headers={"authorization": f"Bearer {token}"}
                )
                other_kind = operation["x-guard"] in ("directory", "transmitter")  # its tokens are no tokens of accounts at all
                assert answer.status_code == (401 if other_kind else 403), (method, path)


async def test_case_80_who_is_no_administrator_pushes_nothing_and_makes_no_token(lab: World) -> None:
    await _enrolled_laptop(lab)
    answer = await lab.api.http.post("/api/v1/sign-in", json={"user": "bob", "password": "correct horse"})
    token = answer.json()["token"]
    assert await _push(lab, token, "/devices/laptop/facts/mdm", {"name": "compliant", "value": True}) == 403
    headers = {"authorization": f"Bearer {token}"}
    made = await lab.api.http.post("/api/v1/fact-sources/mdm/tokens", headers=headers, json={"account": "bob"})
    assert made.status_code == 403
    admin = await lab.api.call("POST", "/fact-sources/mdm/tokens", json={"account": "admin"})
    assert admin.status_code == 422  # an administrator's account makes no tokens for services


async def test_a_disabled_service_account_pushes_nothing(lab: World) -> None:
    await _enrolled_laptop(lab)
    token = await _source_token(lab)
    await lab.api.ok("POST", "/users/mdm-service/disable")
    assert await _push(lab, token, "/devices/laptop/facts/mdm", {"name": "compliant", "value": True}) == 401


@pytest.mark.parametrize(
    "fact",
    [
        {"name": "compliant"},
        {"name": "compliant", "value": None},
        {"name": "compliant", "value": 1},
        {"name": "compliant", "value": ""},
        {"name": "!compliant", "value": "x"},
        {"name": "compliant", "value": "x", "seconds": 1},
        {"name": "compliant", "value": "x" * 257},
        {"name": "compliant", "value": "x", "observed_at": 1 << 39},
        {"name": "compliant", "value": "x", "more": 1},
    ],
)
async def test_case_87_garbage_from_a_source_is_refused_and_changes_nothing(lab: World, fact: dict[str, Any]) -> None:
    await _enrolled_laptop(lab)
    token = await _source_token(lab)
    good = {"name": "compliant", "value": True}
    assert await _push(lab, token, "/devices/laptop/facts/mdm", good) == 200
    assert await _push(lab, token, "/devices/laptop/facts/mdm", {"name": "a", "value": "b"}, fact) == 422
    known = await lab.api.ok("GET", "/devices/laptop/facts")
    assert [(row["source"], row["name"], row["value"]) for row in known["facts"]] == [("mdm", "compliant", "true")]


async def test_names_of_other_sources_are_not_to_be_had(lab: World) -> None:
    await _enrolled_laptop(lab)
    await lab.add_user("svc")
    for source in ("client", "exchange", "risk", "signals"):
        answer = await lab.api.call("POST", f"/fact-sources/{source}/tokens", json={"account": "svc"})
        assert answer.status_code == 422, source
        answer = await lab.api.call("PUT", f"/devices/laptop/facts/{source}", json={"facts": []})
        assert answer.status_code == 422, source


async def test_what_is_known_of_a_device_can_be_read(lab: World) -> None:
    ada = await _enrolled_laptop(lab)
    await lab.apply("{kind: network, name: home, networks: [127.0.0.0/8]}")
    _report(lab, ada, {"os.name": "ubuntu", "disk.encrypted": None})
    await _want(ada, 1)
    known = await lab.api.ok("GET", "/devices/laptop/facts")
    (client,) = known["clients"]
    assert (client["principal"], client["networks"], client["up"]) == ("ada", ["home"], True)
    assert {row["name"]: row["value"] or row["refused"] for row in client["facts"]} == {
        "os.name": "ubuntu",
        "disk.encrypted": "has no value",
    }
    assert client["profiles"] == [{"name": "enrolled", "holds": False, "failed": {"compliant": "is not reported"}, "until": None}]
