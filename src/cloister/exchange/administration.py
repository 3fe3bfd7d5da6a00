"""What administrators do besides writing documents: provisioning keys, agents, sessions, kill switches."""

import dataclasses
import secrets
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal

from cloister import _core
from cloister.exchange.book import LiveSession, SessionBook
from cloister.exchange.changes import Changes
from cloister.exchange.errors import Refusal, not_found
from cloister.exchange.facts import borrowers_of, words_of_switch
from cloister.exchange.links import LiveLink, Switchboard
from cloister.exchange.relays import RelaySet
from cloister.exchange.revoke import Revoker
from cloister.exchange.settings import Settings, is_address
from cloister.exchange.state import State
from cloister.exchange.verify import Verifier
from cloister.exchange.writer import Writer
from cloister.model.first_contact import make_provisioning_key
from cloister.model.messages.from_exchange import Refused
from cloister.model.reasons import REASONS, Code
from cloister.store import agents as agent_rows
from cloister.store import audit as audit_rows
from cloister.store import evidence as evidence_rows
from cloister.store import programs as program_rows
from cloister.store import requests as request_rows
from cloister.store import sessions as session_rows
from cloister.store.service import Change, Store
from cloister.store.types import Actor, Agent, AgentRole, KillScope, KillSwitch, ProvisioningKeyRow, Subject
from cloister.trust.passwords import hash_secret

MAX_KEY_SECONDS = 366 * 86400
PROGRAM_SECONDS = 4 * 86400  # what is kept of a program that ended: longer than its last leaf could be accepted by anybody


class Administration:
    def __init__(
        self,
        settings: Settings,
        core: _core.Core,
        state: State,
        book: SessionBook,
        switchboard: Switchboard,
        relays: RelaySet,
        revoker: Revoker,
        verifier: Verifier,
        changes: Changes,
        store: Store,
        writer: Writer,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._core = core
        self._state = state
        self._book = book
        self._switchboard = switchboard
        self._relays = relays
        self._revoker = revoker
        self._verifier = verifier
        self._changes = changes
        self._store = store
        self._writer = writer
        self._clock = clock
        self._server: _core.Server | None = None
        changes.on_principals_gone = self.cut_inactive
        self.on_agents_ended: Callable[[], None] = lambda: None

    def attach(self, server: _core.Server) -> None:
        self._server = server

    # ------------------------------------------------------------ provisioning keys

    async def create_key(
        self,
        actor: Actor,
        role: AgentRole,
        *,
        uses: int,
        seconds: int,
        group: str | None,
        principal: tuple[Literal["user", "workload"], str] | None,
        address: str | None,
        note: str,
    ) -> tuple[ProvisioningKeyRow, str]:
        """The row, and the text that is shown this once."""
        limits = self._settings.limits
        if not 1 <= uses <= limits.provisioning_key_uses:
            raise Refusal(Code.ARGUMENT_INVALID, f"a key has `1` to `{limits.provisioning_key_uses}` uses")
        if not 60 <= seconds <= MAX_KEY_SECONDS:
            raise Refusal(Code.ARGUMENT_INVALID, f"a key lasts `60` to `{MAX_KEY_SECONDS}` seconds")
        if address is not None and (role != "relay" or not is_address(address)):
            raise Refusal(Code.ARGUMENT_INVALID, f"`{address}` is no address of a relay", "write `HOST:PORT`, for relays only")
        key = make_provisioning_key(self._state.keyring.root_sha256)
        now = int(self._clock())
        row = ProvisioningKeyRow(
            id=key.id,
            secret_hash=hash_secret(key.secret),
            role=role,
            max_uses=uses,
            uses=0,
            created_at=now,
            created_by=actor.name,
            expires_at=now + seconds,
            connector_group=self._group_of(role, group),
            principal=self._principal_of(role, principal),
            address=address,
            note=note,
        )
        with self._store.read() as connection:
            if len(agent_rows.list_provisioning_keys(connection)) >= limits.provisioning_keys:
                raise Refusal(Code.LIMIT_REACHED, f"there are at most `{limits.provisioning_keys}` provisioning keys")
        entry = self._changes.entry(actor, "key.create", key.id, {"role": role, "uses": uses, "group": group or ""})
        await self._changes.commit(entry, lambda change: agent_rows.add_provisioning_key(change, row))
        return row, key.text

    async def revoke_key(self, actor: Actor, id: str) -> None:
        with self._store.read() as connection:
            if agent_rows.find_provisioning_key(connection, id) is None:
                raise not_found("key", id)
        now = int(self._clock())
        entry = self._changes.entry(actor, "key.revoke", id)
        await self._changes.commit(entry, lambda change: agent_rows.revoke_provisioning_key(change, id, now))

    def _group_of(self, role: AgentRole, name: str | None) -> str | None:
        if role != "connector":
            return None
        if name is None:
            raise Refusal(Code.ARGUMENT_INVALID, "a key for a connector names a connector group", "pass `--group NAME`")
        document = self._state.find("connector-group", name)
        if document is None:
            raise Refusal(Code.REFERENCE_UNKNOWN, f"there is no connector group `{name}`", "create it first")
        return document.id

    def _principal_of(self, role: AgentRole, principal: tuple[Literal["user", "workload"], str] | None) -> str | None:
        if role != "client":
            return None
        document = None if principal is None else self._state.find(*principal)
        if document is None:
            raise Refusal(Code.REFERENCE_UNKNOWN, "a key for a client names an existing user or workload", "create it first")
        return document.id

    # ------------------------------------------------------------ agents

    async def revoke_agent(self, actor: Actor, id: str) -> None:
        """Final, and in force when this returns: links and carriers are cut, sessions revoked, everybody is told."""
        agent = self._agent(id)
        now = int(self._clock())
        if agent.revoked_at is None:
            entry = self._changes.entry(actor, "agent.revoke", id, {"role": agent.role})
            await self._changes.commit(entry, lambda change: agent_rows.revoke_agents(change, [id], now))
            self._state.agents[id] = dataclasses.replace(self._state.agents[id], revoked_at=now)
        self._drop(self._state.agents[id], Code.DEVICE_REVOKED if agent.role == "client" else Code.AGENT_REVOKED)
        self.trust_changed()
        self.on_agents_ended()

    def end_programs(self, agents: Sequence[Agent], code: Code) -> None:
        """What vouched for these programs has ended. In force when this returns and committed right after: what a crash loses is found again at the start."""
        if not agents:
            return
        now = int(self._clock())
        ids = [agent.id for agent in agents]
        for id in ids:
            ended = self._state.agents[id] = dataclasses.replace(self._state.agents[id], revoked_at=now)
            self._drop(ended, code, REASONS[code].message)
        self.trust_changed()
        entry = self._changes.entry(Actor("exchange"), "agent.end", ", ".join(ids)[:256], {"agents": len(ids), "code": code})

        def work() -> None:
            with self._store.change(entry) as change:
                agent_rows.revoke_agents(change, ids, now)

        self._writer.start(work)

    async def revoke_all_agents(self, actor: Actor, action: str) -> None:
        """Commit only: the caller cuts."""
        now = int(self._clock())
        ids = [agent.id for agent in self._state.agents.values() if agent.revoked_at is None]
        entry = self._changes.entry(actor, action, "all agents", {"agents": len(ids)})
        await self._changes.commit(entry, lambda change: agent_rows.revoke_agents(change, ids, now))
        for id in ids:
            self._state.agents[id] = dataclasses.replace(self._state.agents[id], revoked_at=now)

    async def sign_out_agents(
        self,
        actor: Actor,
        ids: Sequence[str],
        action: str,
        also: Callable[[Change], None] = lambda _: None,
        on_committed: Callable[[], object] = lambda: None,
        users: Sequence[str] = (),
    ) -> None:
        """These clients' sign-ins are over: they act for nobody any more and enrol again. The API tokens of their users, and of `users`, end with
        them. `also` is committed with it, or refuses it; `on_committed` is called while the links of these clients are still up.
        """
        now = int(self._clock())
        agents = [self._state.agents[id] for id in ids if id in self._state.agents]
        people = sorted({*users, *(agent.principal for agent in agents if agent.principal is not None)})
        entry = self._changes.entry(actor, action, ", ".join(ids)[:256], {"agents": len(agents)})

        def work(change: Change) -> None:
            also(change)
            agent_rows.revoke_agents(change, [agent.id for agent in agents], now)
            for user in people:
                session_rows.delete_api_tokens_of(change.connection, user)

        await self._changes.commit(entry, work)
        on_committed()
        for agent in agents:
            gone = self._state.agents[agent.id] = dataclasses.replace(self._state.agents[agent.id], revoked_at=now)
            self._drop(gone, Code.SIGNED_OUT)
        self.trust_changed()
        self.on_agents_ended()

    async def confirm_agent(self, actor: Actor, id: str, *, confirmed: bool) -> None:
        """After a restore, or after a twin was seen, an administrator says which agents are served again."""
        agent = self._agent(id)
        if agent.confirmed == confirmed:
            return
        entry = self._changes.entry(actor, "agent.confirm" if confirmed else "agent.unconfirm", id)
        await self._changes.commit(entry, lambda change: agent_rows.set_confirmed(change, id, confirmed=confirmed))
        self._state.agents[id] = dataclasses.replace(self._state.agents[id], confirmed=confirmed)
        if not confirmed:
            self._drop(self._state.agents[id], Code.AGENT_UNCONFIRMED)
            self.on_agents_ended()

    async def set_device(self, actor: Actor, id: str, device: str | None) -> None:
        agent = self._agent(id)
        document = None if device is None else self._state.find("device", device)
        if agent.role != "client" or (device is not None and document is None):
            raise Refusal(Code.REFERENCE_UNKNOWN, f"there is no device `{device}`, or this agent is no client")
        device_id = None if document is None else document.id
        entry = self._changes.entry(actor, "agent.set_device", id, {"device": device or ""})
        await self._changes.commit(entry, lambda change: agent_rows.set_device(change, id, device_id))
        self._state.agents[id] = dataclasses.replace(self._state.agents[id], device=device_id)
        self._verifier.check(self._of_clients_on(lambda agent: agent.id == id), Code.POLICY_CHANGED)

    def cut_inactive(self, principals: AbstractSet[str]) -> None:
        """These were disabled or deleted: their clients, and the programs that act for them, have no business here any more."""
        for link in self._switchboard.of_role("client"):
            agent = self._state.agents[link.agent]
            if not principals.isdisjoint({agent.principal, agent.actor}) and not self._state.is_served(agent):
                self._drop(agent, Code.USER_DISABLED)

    def trust_changed(self) -> None:
        """Anchors, ticket keys or revoked agents changed: the core first, then everybody."""
        keyring = self._state.keyring
        self._core.set_trust(keyring.roots_pem(), [agent.id for agent in self._verifier.revoked_agents()])
        self._core.set_ticket_keys(keyring.ticket_verification_keys())
        self._verifier.publish_trust()

    def _agent(self, id: str) -> Agent:
        agent = self._state.agents.get(id)
        if agent is None:
            raise not_found("agent", id)
        return agent

    def _drop(self, agent: Agent, code: Code, why: str = "") -> None:
        """`why` tells more than a code that the core does not know: links and sessions end with `signed_out` then."""
        link = self._switchboard.of_agent(agent.id)
        if agent.role == "client":
            self._revoker.revoke(self._book.of_client(agent.id), Code.SIGNED_OUT if why else code, why)
            self._relays.cut_client(agent.id)
        if link is not None:
            self.refuse_and_close(link, code, Code.SIGNED_OUT if why else code)
        if self._server is not None and agent.role != "client":
            self._server.drop_agent(agent.id)
        if agent.role == "connector":
            # It will not come back: flows that it carried are not to wait for it. Clients ask anew, and get another one.
            self._revoker.revoke(self._book.of_connector(agent.id), Code.NO_CONNECTOR)
            self._revoker.connector_lost(agent.id)
            self._verifier.replace_connector(agent.id)
        elif agent.role == "relay":
            self._relays.forget(agent.id)
            self._verifier.publish_relays()

    def refuse_and_close(self, link: LiveLink, code: Code, close: Code | None = None) -> None:
        reason = REASONS[code]
        self._switchboard.send(link, Refused(code=code, message=reason.message, remedy=reason.remedy))
        self._switchboard.close(link, close or code)

    async def forget_the_past(self) -> None:
        """What nobody can use any more leaves nothing behind: agents whose last leaf is past renewal, ended keys and requests, old audit rows."""
        now = int(self._clock())
        gone_since = now - self._settings.renewal_grace
        rows = self._settings.limits.audit_rows
        issuers = [id for id, document in self._state.parsed.items() if document.kind == "token-issuer"]

        def work() -> tuple[list[str], list[str], list[str]]:
            with self._store.note() as connection:
                evidence_rows.delete_expired(connection, gone_since)
                agent_rows.drop_provisioning_keys(connection, gone_since)
                audit_rows.trim_audit(connection, rows)
                program_rows.drop_presented(connection, now)
                program_rows.drop_cluster_keys_but(connection, issuers)
                ended = program_rows.drop_delegations(connection, gone_since)
                over = request_rows.drop_requests(connection, gone_since)
                gone = agent_rows.drop_agents(connection, gone_since, now - PROGRAM_SECONDS)
                for id in gone:
                    evidence_rows.delete_subject(connection, Subject("agent", id))
                return gone, ended, over

        gone, ended, over = await self._writer.run(work)
        self._state.requests.drop(over)
        for id in self._state.cluster_keys.keys() - set(issuers):
            del self._state.cluster_keys[id]
        for id in ended:
            self._state.delegations.pop(id, None)
        for id in gone:
            self._state.agents.pop(id, None)
            self._state.evidence.drop(Subject("agent", id))

    # ------------------------------------------------------------ sessions

    async def revoke_session(self, actor: Actor, id: str) -> int:
        session = self._book.get(id)
        if session is None:
            raise not_found("live session", id)
        return await self._revoke(actor, [session], id)

    async def revoke_sessions_of(self, actor: Actor, principal: str) -> int:
        return await self._revoke(actor, self._book.of_principal(principal), f"principal {principal}")

    async def _revoke(self, actor: Actor, sessions: list[LiveSession], target: str) -> int:
        entry = self._changes.entry(actor, "session.revoke", target, {"sessions": len(sessions)})
        ids = [session.id for session in sessions]
        await self._changes.commit(entry, lambda change: session_rows.delete_sessions(change.connection, ids))
        return self._revoker.revoke(sessions, Code.SESSION_REVOKED)

    # ------------------------------------------------------------ kill switches

    async def add_kill_switch(self, actor: Actor, scope: KillScope, target: str, reason: str, seconds: int | None) -> KillSwitch:
        if len(self._state.kill_switches) >= self._settings.limits.kill_switches:
            raise Refusal(Code.LIMIT_REACHED, f"there are at most `{self._settings.limits.kill_switches}` kill switches")
        now = int(self._clock())
        expires = None if seconds is None else now + seconds
        switch = KillSwitch(secrets.token_hex(8), scope, self._target(scope, target), reason, now, actor.name, expires)
        entry = self._changes.entry(actor, "kill_switch.add", f"{scope} {target}", {"reason": reason})
        await self._changes.commit(entry, lambda change: session_rows.add_kill_switch(change, switch))
        self._state.kill_switches[switch.id] = switch
        concerned = self._concerned(switch)
        self._verifier.check(concerned, Code.KILL_SWITCH)
        # Whoever is allowed still was served by what is off now: the session ends there, and a new one finds another connector.
        self._revoker.revoke(
            (session for session in concerned if not session.ended), Code.KILL_SWITCH, words_of_switch(switch.reason)
        )
        self._verifier.set_stale()
        return switch

    async def remove_kill_switch(self, actor: Actor, id: str) -> None:
        switch = self._state.kill_switches.get(id)
        if switch is None:
            raise not_found("kill switch", id)
        entry = self._changes.entry(actor, "kill_switch.remove", f"{switch.scope} {switch.target}")
        await self._changes.commit(entry, lambda change: session_rows.delete_kill_switch(change, id))
        self._state.kill_switches.pop(id, None)
        self._verifier.check((), Code.KILL_SWITCH)
        self._verifier.set_stale()

    def _target(self, scope: KillScope, target: str) -> str:
        """The id that a kill switch aims at."""
        match scope:
            case "all":
                if target:
                    raise Refusal(Code.ARGUMENT_INVALID, "a kill switch for `all` has no target")
                return ""
            case "agent":
                return self._agent(target).id
            case "session":
                session = self._book.get(target)
                if session is None:
                    raise not_found("live session", target)
                return f"{session.client}/{session.segment}"  # none between these two takes its place while the switch is on
            case _:
                document = self._state.find(scope, target)
                if not target:
                    raise Refusal(
                        Code.ARGUMENT_INVALID, f"a kill switch for one {scope} names it", "write its name after the scope"
                    )
                if document is None:
                    raise Refusal(Code.REFERENCE_UNKNOWN, f"there is no {scope} `{target}`")
                return document.id

    def _concerned(self, switch: KillSwitch) -> list[LiveSession]:
        match switch.scope:
            case "all":
                return list(self._book)
            case "user":
                return self._book.of_principal(switch.target)
            case "segment":
                return self._book.of_segment(switch.target)
            case "agent":
                return [*self._of_clients_on(lambda agent: agent.id == switch.target), *self._book.of_connector(switch.target)]
            case "connector-group":
                connectors = [agent.id for agent in self._state.agents.values() if agent.connector_group == switch.target]
                return [session for connector in connectors for session in self._book.of_connector(connector)]
            case "session":
                client, _, segment = switch.target.partition("/")
                session = self._book.find(client, segment)
                return [] if session is None else [session]
            case "device":
                return self._of_clients_on(lambda agent: agent.device == switch.target)

    def _of_clients_on(self, concerned: Callable[[Agent], bool]) -> list[LiveSession]:
        """The sessions of these clients, and of the programs that act on a word given over them."""
        own = [agent.id for agent in self._state.agents.values() if concerned(agent)]
        clients = dict.fromkeys([*own, *borrowers_of(self._state, concerned)])
        return [session for client in clients for session in self._book.of_client(client)]

    async def expire_kill_switches(self) -> None:
        now = self._clock()
        for switch in list(self._state.kill_switches.values()):
            is_over = switch.expires_at is not None and switch.expires_at <= now
            if is_over and switch.id in self._state.kill_switches:  # somebody may have removed it while another one ended
                await self.remove_kill_switch(Actor("exchange"), switch.id)
