"""Laws of bounds: at the bound it works, one beyond it is refused; what nobody can use goes away."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.exchange.conftest import World, end_world, eventually, furnish, start_world

from cloister.exchange.attempts import Attempts, group_of
from cloister.exchange.errors import Refusal
from cloister.exchange.links import WINDOW_SECONDS
from cloister.exchange.main import ExchangeProcess
from cloister.exchange.sessions import EXPLAINED_TO_LINK
from cloister.exchange.settings import Limits, Settings
from cloister.exchange.signin.attempts import MAX_PER_SOURCE, Pending, PendingAttempts
from cloister.model.messages.from_agent import Explain, Idle, Prove, WantSession
from cloister.model.messages.from_exchange import Enrolled, Explained, Refused, Session
from cloister.model.reasons import Code
from cloister.store import agents as agent_rows
from cloister.store import audit as audit_rows
from cloister.store.service import Store
from cloister.store.types import Actor, AuditEntry

NOW = 1_800_000_000
Stack = list[Callable[[], Awaitable[object]]]


def _want(host: str, port: int) -> WantSession:
    return WantSession(ref=1, host=host, port=port, protocol="tcp")


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[World]:
    limits = Limits(messages_per_link=20, sessions_per_client=1, agents=3)
    stack: Stack = []
    opened = await furnish(
        await start_world(Settings(tmp_path / "data", listen="127.0.0.1:0", drain_grace=0, limits=limits), stack)
    )
    yield opened
    await end_world(opened, stack)


async def test_messages_per_link_are_bounded(small: World) -> None:
    client = await small.client("ada")
    for _ in range(19):  # the greeting counts
        client.send(Idle(sessions=[]))
    client.send(Idle(sessions=[]))
    assert (await client.receive(Refused)).code == "limit_reached"
    await client.until(lambda: client.down)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:0:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("poll", "", False),
    ],
)
def test_case_16_a_source_is_an_ipv4_address_or_an_ipv6_network(one: str, other: str, is_same: bool) -> None:
    assert (group_of(one) == group_of(other)) is is_same


def test_case_16_an_ipv6_host_guesses_and_asks_no_more_often_than_any_other() -> None:
    hosts = [f"2001:db8::{number:x}" for number in range(MAX_PER_SOURCE + 1)]
    attempts = Attempts(1_000, 5, 1_000)
    for number, host in enumerate(hosts[:5]):
        assert attempts.allows(f"account {number}", host, NOW)
        attempts.failed(f"account {number}", host, NOW)
    assert not attempts.allows("another account", hosts[5], NOW)
    assert attempts.allows("another account", "2001:db8:0:1::1", NOW)
    pending = PendingAttempts(lambda: float(NOW))
    for host in hosts[:-1]:
        pending.add(Pending(pending.make_attempt("", host, ""), "", _nobody, lambda: True, lambda _: None))
    with pytest.raises(Refusal):
        pending.make_attempt("", hosts[-1], "")
    pending.make_attempt("", "192.0.2.1", "")


def test_case_16_a_clock_that_is_set_back_locks_nobody_out() -> None:
    attempts = Attempts(1, 1, 1)
    attempts.failed("account", "192.0.2.1", NOW)
    assert not attempts.allows("account", "192.0.2.1", NOW - 1)
    assert attempts.allows("account", "192.0.2.1", NOW - 86400)


async def _nobody(_provider: object, _person: object) -> None: ...


async def _with(tmp_path: Path, limits: Limits, stack: Stack) -> World:
    settings = Settings(tmp_path / "data", listen="127.0.0.1:0", drain_grace=0, limits=limits)
    return await furnish(await start_world(settings, stack))


async def test_case_33_whoever_enrols_again_and_again_keeps_only_themself_out(tmp_path: Path) -> None:
    stack: Stack = []
    lab = await _with(tmp_path, Limits(agents=40), stack)
    answers = [await lab.agent("client").enrol_by_password("ada", "correct horse") for _ in range(22)]
    assert [isinstance(answer, Enrolled) for answer in answers] == [True] * 21 + [False]
    assert isinstance(answers[-1], Refused)
    assert answers[-1].code == "limit_reached"
    for _ in range(2):
        assert isinstance(await lab.agent("client").enrol_by_password("bob", "correct horse"), Enrolled)
    await end_world(lab, stack)


async def test_case_98_strangers_push_nothing_out_of_the_audit(tmp_path: Path) -> None:
    stack: Stack = []
    lab = await _with(tmp_path, Limits(refusals_noted_per_source=5, refusals_noted=100), stack)

    async def noted() -> list[dict[str, object]]:
        """Of all refusals, oldest first, what their entries say more."""
        rows = (await lab.api.ok("GET", "/audit", params={"limit": 1000}))["entries"]
        return [row["detail"] for row in reversed(rows) if row["action"] in ("agent.enrol", "sign_in") and row["code"] != "ok"]

    for _ in range(8):
        assert isinstance(await lab.agent("client").enrol_by_key("cloister-key-1.nothing"), Refused)
        assert (await lab.api.http.get("/sign-in/callback/acme?state=x&code=y")).status_code == 403
    details = await noted()
    assert [bool(detail) for detail in details].count(True) == 2  # of links and of pages: the last of each says that more follow
    assert len(details) == 10
    lab.clock.offset += 61
    assert isinstance(await lab.agent("client").enrol_by_key("cloister-key-1.nothing"), Refused)
    assert len(await noted()) == 11
    await end_world(lab, stack)


async def test_case_98_a_client_pushes_nothing_out_of_the_audit(tmp_path: Path) -> None:
    """Whoever is signed in may send as many proofs that prove nothing as a link takes."""
    stack: Stack = []
    lab = await _with(tmp_path, Limits(refusals_noted_per_source=5, refusals_noted=100), stack)
    ada = await lab.client("ada")
    for _ in range(8):
        ada.send(Prove(token="x.y.z"))
        assert (await ada.receive(Refused)).code == "message_unexpected"
    rows = (await lab.api.ok("GET", "/audit", params={"limit": 1000}))["entries"]
    assert len([row for row in rows if row["action"] == "agent.prove"]) == 5
    await end_world(lab, stack)


async def test_case_33_what_a_client_is_told_of_why_is_bounded(lab: World) -> None:
    """To say what failed costs ten times what it costs to decide: who asks again and again is told less, and nobody waits for them."""
    await lab.apply("""
kind: rule
name: science-uses-jupyter
effect: permit
who: {groups: [science]}
what: {segments: [jupyter]}
when: {device: {site: lab}}
""")
    ada = await lab.client("ada")
    lab.clock.freeze()
    question = {"host": "jupyter.lab.internal", "port": 8888}
    for ref in range(EXPLAINED_TO_LINK - 1):
        ada.send(Explain(ref=ref, **question))
        assert "the device is not one of the permitted ones" in (await ada.receive(Explained)).message
    told = []
    for ref in range(2):
        ada.send(WantSession(ref=ref, protocol="tcp", **question))
        refused = await ada.receive(Refused)
        assert refused.code == Code.CONDITION_FAILED
        told.append(": the device" in refused.message)
    assert told == [True, False]
    ada.send(Explain(ref=1, **question))
    assert (await ada.receive(Refused)).code == Code.TOO_MANY_ATTEMPTS
    lab.clock.offset += WINDOW_SECONDS
    ada.send(Explain(ref=2, **question))
    assert (await ada.receive(Explained)).code == Code.CONDITION_FAILED


async def test_messages_in_the_next_window_are_taken_again(small: World) -> None:
    client = await small.client("ada")
    for _ in range(2):
        for _ in range(18):
            client.send(Idle(sessions=[]))
        client.send(Explain(ref=1, host="jupyter.lab.internal"))
        await client.until(lambda: next((m for m in client.inbox if m.type == "explained"), None))
        client.inbox.clear()
        small.clock.offset += 11
    assert client.down is None


async def test_sessions_per_client_are_bounded_and_one_again_is_no_second_one(small: World) -> None:
    await small.apply("{kind: rule, name: all, effect: permit, who: {users: [ada]}, what: {any: true}}")
    await small.connector()
    client = await small.client("ada")
    for _ in range(2):
        client.send(_want("jupyter.lab.internal", 8888))
        await client.receive(Session)
    client.send(_want("db.lab.internal", 5432))
    assert (await client.receive(Refused)).code == "limit_reached"


async def test_agents_are_bounded(small: World) -> None:
    for _ in range(3):
        assert isinstance(await small.agent("client").enrol_by_password("ada", "correct horse"), Enrolled)
    answer = await small.agent("client").enrol_by_password("ada", "correct horse")
    assert isinstance(answer, Refused)
    assert answer.code == "limit_reached"


async def test_link_does_not_outlive_its_leaf(lab: World) -> None:
    client = await lab.client("ada")
    lab.clock.offset += 86400 + 61
    assert (await client.receive(Refused)).code == "certificate_expired"
    await client.until(lambda: client.down)


async def test_agent_past_renewal_leaves_nothing_behind(lab: World) -> None:
    client = await lab.client("ada")
    client.close()
    lab.agents.remove(client)
    lab.clock.offset += 32 * 86400
    await eventually(lambda: lab.running.switchboard.of_agent(client.id) is None)
    await lab.running.administration.forget_the_past()
    assert client.id not in lab.running.state.agents
    with lab.running.store.read() as connection:
        assert agent_rows.list_certificates(connection, client.id) == []


@pytest.mark.parametrize("listen", ["0.0.0.0:443", "[::]:443", ":443"])
async def test_address_that_nobody_can_dial_is_refused_before_anything_is_made(tmp_path: Path, listen: str) -> None:
    with pytest.raises(Refusal, match="cannot dial"):
        await ExchangeProcess(Settings(tmp_path / "data", listen=listen)).__aenter__()
    assert not (tmp_path / "data").exists()


async def test_second_exchange_on_a_directory_is_refused(world: World) -> None:
    settings = replace(world.running.settings, listen="127.0.0.1:0")
    with pytest.raises(Refusal, match="another process"):
        await ExchangeProcess(settings).__aenter__()


def test_audit_keeps_its_newest_rows_and_its_chain(tmp_path: Path) -> None:
    with Store.open(tmp_path / "x.db") as store:
        for number in range(10):
            store.record(AuditEntry(NOW, Actor("exchange"), "test", str(number)))
        with store.note() as connection:
            assert audit_rows.trim_audit(connection, 10) == 0
            assert audit_rows.trim_audit(connection, 4) == 6
            assert audit_rows.trim_audit(connection, 4) == 0
        store.record(AuditEntry(NOW, Actor("exchange"), "test", "10"))
        with store.read() as connection:
            assert [row.target for row in audit_rows.list_audit(connection)] == ["10", "9", "8", "7", "6"]
            assert audit_rows.find_tampering(connection) is None
        with store.note() as connection:
            connection.exec_driver_sql("DELETE FROM audit WHERE target = '6'")
        with store.read() as connection:
            assert audit_rows.find_tampering(connection) == 7


async def test_start_and_stop_leave_no_thread_and_no_task(tmp_path: Path) -> None:
    before = {thread.name for thread in threading.enumerate()}
    async with ExchangeProcess(Settings(tmp_path / "data", listen="127.0.0.1:0", drain_grace=0)):
        pass
    left = {thread.name for thread in threading.enumerate()} - before
    assert not {name for name in left if not name.startswith("asyncio")}
    assert asyncio.all_tasks() == {asyncio.current_task()}
