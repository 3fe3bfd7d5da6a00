"""The exchange's own certificates, and the steps of rotations by the clock."""

import logging
from collections.abc import Callable

from cloister import _core
from cloister.exchange.administration import Administration
from cloister.exchange.book import LEEWAY, SessionBook
from cloister.exchange.changes import Changes
from cloister.exchange.enrol import Enrolment
from cloister.exchange.links import Switchboard
from cloister.exchange.revoke import Revoker
from cloister.exchange.settings import Settings
from cloister.exchange.state import State
from cloister.exchange.verify import Verifier
from cloister.exchange.writer import Writer
from cloister.model.reasons import Code
from cloister.store.types import Actor
from cloister.trust.certificates import LEAF_SECONDS, key_to_pem, make_key
from cloister.trust.keyring import (
    Keyring,
    activate_authority,
    activate_ticket_key,
    announce_authority,
    announce_ticket_key,
    remove_retired_authorities,
    remove_retired_ticket_keys,
    renew_issuing,
    replace_compromised,
)
from cloister.trust.keystore import save_keyring

log = logging.getLogger("cloister.exchange")

ANNOUNCE_SECONDS = 60  # between a key's announcement and its use; who sleeps through it is helped by the cross-signed CA
TICKET_KEY_SECONDS = 30 * 86400  # a ticket key is replaced by itself after this time
MAX_CONTINUITY_SECONDS = 86400


class Rotation:
    """Keys of agents' legs and the web front are made at each start and live in memory only."""

    def __init__(
        self,
        settings: Settings,
        core: _core.Core,
        state: State,
        book: SessionBook,
        switchboard: Switchboard,
        enrolment: Enrolment,
        revoker: Revoker,
        verifier: Verifier,
        changes: Changes,
        administration: Administration,
        writer: Writer,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._core = core
        self._state = state
        self._book = book
        self._switchboard = switchboard
        self._enrolment = enrolment
        self._revoker = revoker
        self._verifier = verifier
        self._changes = changes
        self._administration = administration
        self._writer = writer
        self._clock = clock
        self._server: _core.Server | None = None
        self._control_key, self._relay_key, self._web_key = make_key(), make_key(), make_key()
        self._renew_own_at = 0.0
        self._to_renew: list[str] = []

    def attach(self, server: _core.Server) -> None:
        self._server = server

    # ------------------------------------------------------------ own certificates

    def set_own_identity(self) -> None:
        """Show fresh leaves from now on. Called at start, at half-life, and when another authority signs."""
        now = int(self._clock())
        keyring = self._state.keyring
        _, control = keyring.issue_own(self._control_key.public_key(), keyring.control, now)
        self._core.set_identity("control", control, key_to_pem(self._control_key))
        if self._settings.relay:
            _, relay = keyring.issue_own(self._relay_key.public_key(), keyring.relay, now)
            self._core.set_identity("relay", relay, key_to_pem(self._relay_key))
        self._renew_own_at = now + LEAF_SECONDS / 2
        if self._server is not None:
            self._server.set_web_certificate(*self.web_certificate())

    def web_certificate(self) -> tuple[str, str]:
        """Chain and key of the web front: the operator's files, else one of the exchange's CA for the advertised host."""
        settings = self._settings
        if settings.web_certificate is not None and settings.web_key is not None:
            return settings.web_certificate.read_text(), settings.web_key.read_text()
        host = settings.address.rpartition(":")[0]
        chain = self._state.keyring.issue_web(self._web_key.public_key(), host, int(self._clock()))
        return chain, key_to_pem(self._web_key)

    # ------------------------------------------------------------ by the clock

    async def on_tick(self) -> None:
        """Take the next step of whatever is due; called about once a second."""
        now = int(self._clock())
        if now >= self._renew_own_at:
            self.set_own_identity()
        keyring = self._state.keyring
        next_one = _step_tickets(_step_authorities(renew_issuing(keyring, now), now, self._settings.renewal_grace), now)
        if next_one is not keyring:
            await self._replace(next_one, Actor("exchange"), "ca.step")
        for agent in self._take_renewals():
            await self._renew(agent)

    # ------------------------------------------------------------ by an administrator

    async def rotate_authority(self, actor: Actor) -> None:
        """Start a planned rotation; the clock takes the later steps."""
        await self._replace(announce_authority(self._state.keyring, int(self._clock())), actor, "ca.rotate")

    async def rotate_ticket_key(self, actor: Actor) -> None:
        await self._replace(announce_ticket_key(self._state.keyring, int(self._clock())), actor, "ticket_key.rotate")

    async def replace_compromised(self, actor: Actor) -> None:
        """Everything that the old keys vouched for ends: sessions, links, and the agents themselves, which must enrol again."""
        keyring = replace_compromised(self._state.keyring, int(self._clock()))
        await self._administration.revoke_all_agents(actor, "ca.compromised")
        self._revoker.revoke(list(self._book), Code.CERTIFICATE_EXPIRED)
        await self._replace(keyring, actor, "ca.compromised")
        for link in self._switchboard:
            self._administration.refuse_and_close(link, Code.AGENT_REVOKED)
        if self._server is not None:
            for id in self._state.agents:
                self._server.drop_agent(id)

    # ------------------------------------------------------------

    async def _replace(self, keyring: Keyring, actor: Actor, action: str) -> None:
        """Audit, disk, memory, core, agents, in that order: a key is on the disk before anything is signed with it."""
        old = self._state.keyring
        if keyring is old:
            return
        entry = self._changes.entry(actor, action, keyring.authority.id, {"ticket_key": keyring.ticket_key.kid})
        await self._changes.commit(entry, lambda _change: save_keyring(self._settings.keys, keyring))
        self._state.keyring = keyring
        self._administration.trust_changed()
        if keyring.authority != old.authority:
            log.info("authority `%s` signs from now on", keyring.authority.id)
            self.set_own_identity()
            self._to_renew = [link.agent for link in self._switchboard if link.stage == "ready"]

    def _take_renewals(self) -> list[str]:
        """A few per call, so that a rotation renews a fleet over minutes and not at once."""
        batch, self._to_renew = self._to_renew[:50], self._to_renew[50:]
        return batch

    async def _renew(self, agent_id: str) -> None:
        agent, link = self._state.agents.get(agent_id), self._switchboard.of_agent(agent_id)
        if agent is not None and link is not None and agent.revoked_at is None:
            renewed = await self._enrolment.renew(agent)
            link.not_after = int(self._clock()) + LEAF_SECONDS
            self._switchboard.send(link, renewed)


def _step_authorities(keyring: Keyring, now: int, renewal_grace: int) -> Keyring:
    if any(item.state == "announced" and item.since + ANNOUNCE_SECONDS <= now for item in keyring.authorities):
        keyring = activate_authority(keyring, now)
    return remove_retired_authorities(keyring, now - LEAF_SECONDS - renewal_grace)


def _step_tickets(keyring: Keyring, now: int) -> Keyring:
    if any(item.state == "announced" and item.since + ANNOUNCE_SECONDS <= now for item in keyring.ticket_keys):
        keyring = activate_ticket_key(keyring, now)
    elif keyring.ticket_key.since + TICKET_KEY_SECONDS <= now:
        keyring = announce_ticket_key(keyring, now)
    return remove_retired_ticket_keys(keyring, now - MAX_CONTINUITY_SECONDS - 2 * LEEWAY - 300)
