"""Enrolment: a request for a certificate and a proof in, a chain out. Who the agent will be comes from the proof alone (case 23)."""

import base64
import dataclasses
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.exchange.attempts import Attempts
from cloister.exchange.errors import Refusal
from cloister.exchange.programs.types import Vouched
from cloister.exchange.settings import Settings
from cloister.exchange.state import Generations, State
from cloister.exchange.workers import run_in
from cloister.exchange.writer import Writer
from cloister.identity.people import Person
from cloister.model.documents import Strength
from cloister.model.first_contact import ProvisioningKey, Unreadable, read_provisioning_key
from cloister.model.messages.from_agent import EnrolByKey, EnrolByPassword
from cloister.model.messages.from_exchange import Enrolled, Renewed
from cloister.model.reasons import Code
from cloister.store import agents as agent_rows
from cloister.store.service import Change, Store
from cloister.store.types import Actor, Agent, AgentRole, AuditEntry, IssuedCertificate, ProvisioningKeyRow
from cloister.trust.certificates import CsrRefused, fingerprint, read_csr, thumbprint
from cloister.trust.passwords import secret_fits, verify_password
from cloister.trust.types import Identity

MIN_SHARE = 8  # agents that anybody may have, however few there may be in all


@dataclass(frozen=True, slots=True)
class _Proved:
    """What a proof says about the agent to be."""

    role: AgentRole
    by: str
    connector_group: str | None = None
    principal: str | None = None
    address: str | None = None
    signed_in_at: int | None = None
    strength: Strength = "password"
    issuer: str = "local"
    session: str | None = None
    sign_in_vouched_at: int | None = None


class Enrolment:
    """Answers enrolment links and renewals. Refusals are raised as `Refusal`; each one is in the audit."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        generations: Generations,
        store: Store,
        writer: Writer,
        hashing: ThreadPoolExecutor,
        clock: Callable[[], float],
    ) -> None:
        self._limits = settings.limits
        self._state = state
        self._generations = generations
        self._store = store
        self._writer = writer
        self._hashing = hashing
        self._clock = clock
        limits = settings.limits
        self.on_signed_in: Callable[[str, str, str | None], None] = lambda _user, _source, _agent: None
        self._attempts = Attempts(limits.attempts_per_account, limits.attempts_per_source, limits.attempts_in_all)
        self._waiting = 0

    # ------------------------------------------------------------ proofs

    async def by_key(self, request: EnrolByKey, source: str) -> Enrolled:
        try:
            presented = read_provisioning_key(request.key)
        except Unreadable:
            raise Refusal(Code.KEY_INVALID) from None
        self._check_attempts(f"key:{presented.id}", source)
        public_key = _read_key(request.csr)
        generation = self._generations.advance()
        agent, chain = await self._writer.run(
            lambda: self._enrol_by_key(presented, public_key, request.hostname, source, generation)
        )
        return self._admit(agent, chain)

    async def by_password(self, request: EnrolByPassword, source: str) -> Enrolled:
        public_key = _read_key(request.csr)
        user = await self.check_password(request.user, request.password, source)
        self.check_share(user)
        now = int(self._clock())
        proved = _Proved("client", f"user:{request.user}", principal=user, signed_in_at=now)

        entry, generation = self._entry(proved.by, source, "agent.enrol", f"client of {request.user}"), self._generations.advance()

        def work() -> tuple[Agent, str]:
            with self._store.change(entry, generation) as change:
                return self._add_agent(change, proved, public_key, request.hostname)

        agent, chain = await self._writer.run(work)
        enrolled = self._admit(agent, chain)
        self.on_signed_in(user, source, agent.id)
        return enrolled

    def check_key(self, csr: str) -> None:
        """Refuse a request that could not be enrolled before anybody is asked to sign in for it."""
        _read_key(csr)
        if len(self._state.agents) >= self._limits.agents:
            raise Refusal(Code.LIMIT_REACHED)

    async def by_person(self, csr: str, hostname: str, source: str, user: str, person: Person) -> Enrolled:
        """For a person whom an identity provider vouched for, and who is this user here. The caller has verified that."""
        public_key = _read_key(csr)
        self.check_share(user)
        name = f"user:{self._state.name_of(user)}"
        proved = _Proved(
            "client",
            name,
            principal=user,
            signed_in_at=person.at,
            strength=person.strength,
            issuer=person.provider,
            session=person.session,
            sign_in_vouched_at=person.vouched_at,
        )
        entry, generation = (
            self._entry(name, source, "agent.enrol", f"client of {name} by {person.provider}"),
            self._generations.advance(),
        )

        def work() -> tuple[Agent, str]:
            with self._store.change(entry, generation) as change:
                return self._add_agent(change, proved, public_key, hostname)

        agent, chain = await self._writer.run(work)
        enrolled = self._admit(agent, chain)
        self.on_signed_in(user, source, agent.id)
        return enrolled

    def check_room(self) -> None:
        if len(self._state.agents) >= self._limits.agents:
            raise Refusal(Code.LIMIT_REACHED)

    def check_share(self, holder: str | None) -> None:
        """Where places get scarce nobody has more than a few of them, ended agents included: whoever enrols again and again keeps only themself out."""
        agents, share = self._state.agents.values(), max(MIN_SHARE, self._limits.agents // 20)
        if len(agents) <= self._limits.agents // 2:
            return
        if sum(holder in (agent.actor or agent.principal, agent.connector_group) for agent in agents) >= share:
            raise Refusal(Code.LIMIT_REACHED, "too many agents were enrolled for the same user, workload or connector group")

    def read_key(self, csr: str) -> ec.EllipticCurvePublicKey:
        """The public key of a certificate request; refused if it is not one that can be enrolled."""
        return _read_key(csr)

    async def by_program(
        self,
        vouched: Vouched,
        public_key: ec.EllipticCurvePublicKey,
        hostname: str,
        source: str,
        spend: Callable[[Change, str], None],
    ) -> Enrolled:
        """For a program that its issuer vouches for. The same proofs for the same key are the same agent: an answer that was lost can be asked for again."""
        proved = _Proved(vouched.role, vouched.name, vouched.group, vouched.principal)
        known = self._find_program(vouched, thumbprint(public_key))
        if known is None:
            self.check_share(vouched.actor or vouched.principal or vouched.group)
        what = f"{vouched.role} {vouched.name}" + (f" for {self._state.name_of(vouched.principal)}" if vouched.actor else "")
        entry, generation = self._entry(proved.by, source, "agent.enrol", what[:256]), self._generations.advance()

        def work() -> tuple[Agent, str]:
            with self._store.change(entry, generation) as change:
                spend(change, thumbprint(public_key))
                if known is None:
                    return self._add_agent(change, proved, public_key, hostname, vouched)
                agent = dataclasses.replace(known, **vouching_fields(vouched))
                leaf, chain = self._issue(public_key, agent)
                agent_rows.set_vouched(change.connection, agent)
                agent_rows.add_certificate(change.connection, leaf)
                return agent, chain

        agent, chain = await self._writer.run(work)
        if known is not None:  # read again: it may have been revoked while this was written
            agent = dataclasses.replace(self._state.agents[known.id], **vouching_fields(vouched))
        return self._admit(agent, chain)

    def _find_program(self, vouched: Vouched, key_thumbprint: str) -> Agent | None:
        wanted = (vouched.role, vouched.principal, vouched.actor, vouched.group, vouched.by)
        served = (
            agent
            for agent in self._state.agents.values()
            if agent.key_thumbprint == key_thumbprint and agent.revoked_at is None and agent.confirmed
        )
        same = (a for a in served if (a.role, a.principal, a.actor, a.connector_group, a.vouched_by) == wanted)
        return next(same, None)

    async def check_password(self, name: str, password: str, source: str) -> str:
        """The id of the user whose local account this is. Unknown, disabled and wrong answer alike, in the same time (cases 16, 68)."""
        account_key = f"account:{name}"
        self._check_attempts(account_key, source)
        if self._waiting >= self._limits.password_queue:
            raise Refusal(Code.TOO_MANY_ATTEMPTS)
        document = self._state.find("user", name)
        account = self._state.accounts.get(document.id) if document else None
        self._waiting += 1
        try:
            stored = account.password_hash if account else None
            fits = await run_in(self._hashing, lambda: verify_password(stored, password))
        finally:
            self._waiting -= 1
        # Read again: the account may have been disabled or changed while the hash was computed.
        document = self._state.find("user", name)
        current = self._state.accounts.get(document.id) if document else None
        if not fits or document is None or current != account or not self._state.is_active_principal(document.id):
            self._attempts.failed(account_key, source, self._clock())
            entry = self._entry(f"user:{name}"[:160], source, "sign_in", "", Code.SIGN_IN_FAILED)
            await self._writer.run(lambda: self._store.record(entry))
            raise Refusal(Code.SIGN_IN_FAILED)
        return document.id

    async def renew(self, agent: Agent) -> Renewed:
        """A new leaf for the key that was enrolled. The caller has proved that key on this very link."""
        key = serialization.load_der_public_key(base64.b64decode(agent.public_key))
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise Refusal(Code.INTERNAL)

        def work() -> str:
            leaf, chain = self._issue(key, agent)
            with self._store.note() as connection:
                agent_rows.add_certificate(connection, leaf)
            return chain

        return Renewed(chain=await self._writer.run(work))

    # ------------------------------------------------------------ in the writer's thread

    def _enrol_by_key(
        self, presented: ProvisioningKey, public_key: ec.EllipticCurvePublicKey, hostname: str, source: str, generation: int
    ) -> tuple[Agent, str]:
        now = int(self._clock())
        with self._store.read() as connection:
            key = agent_rows.find_provisioning_key(connection, presented.id)
        if key is None or not secret_fits(key.secret_hash, presented.secret):
            raise self._key_refused(presented.id, source, Code.KEY_INVALID)
        proved = _Proved(key.role, f"key:{key.id}", key.connector_group, key.principal, key.address)
        refused = Code.KEY_INVALID
        with self._store.change(self._entry(proved.by, source, "agent.enrol", f"{key.role} by key {key.id}"), generation) as change:
            if agent_rows.use_provisioning_key(change, key.id, now):
                return self._add_agent(change, proved, public_key, hostname)
            refused = _why_unusable(agent_rows.find_provisioning_key(change.connection, key.id), now)
            raise self._key_refused(key.id, source, refused)

    def _key_refused(self, id: str, source: str, code: Code) -> Refusal:
        self._attempts.failed(f"key:{id}", source, self._clock())
        return Refusal(code)

    def _add_agent(
        self,
        change: Change,
        proved: _Proved,
        public_key: ec.EllipticCurvePublicKey,
        hostname: str,
        vouched: Vouched | None = None,
    ) -> tuple[Agent, str]:
        der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        agent = Agent(
            id=secrets.token_hex(8),
            role=proved.role,
            hostname=_printable(hostname),
            public_key=base64.b64encode(der).decode(),
            key_thumbprint=thumbprint(public_key),
            enrolled_at=int(self._clock()),
            enrolled_by=proved.by,
            principal=proved.principal,
            connector_group=proved.connector_group,
            address=proved.address,
            signed_in_at=proved.signed_in_at,
            sign_in_strength=proved.strength,
            sign_in_issuer=proved.issuer,
            sign_in_session=proved.session,
            sign_in_vouched_at=proved.sign_in_vouched_at,
        )
        if vouched is not None:
            agent = dataclasses.replace(agent, **vouching_fields(vouched))
        leaf, chain = self._issue(public_key, agent)
        agent_rows.add_agent(change, agent)
        agent_rows.add_certificate(change.connection, leaf)
        return agent, chain

    def _issue(self, public_key: ec.EllipticCurvePublicKey, agent: Agent) -> tuple[IssuedCertificate, str]:
        keyring = self._state.keyring
        identity = Identity(keyring.trust_domain, agent.role, agent.id)
        leaf, chain = keyring.issue(public_key, identity, int(self._clock()))
        return _log_entry(leaf, identity, keyring.authority.id), chain

    # ------------------------------------------------------------

    def _admit(self, agent: Agent, chain: str) -> Enrolled:
        self._state.agents[agent.id] = agent
        keyring = self._state.keyring
        return Enrolled(
            agent=agent.id,
            exchange=keyring.trust_domain,
            chain=chain,
            roots=keyring.roots_pem(),
            api=f"https://{self._state.address}",
        )

    def _check_attempts(self, account: str, source: str) -> None:
        if not self._attempts.allows(account, source, self._clock()):
            raise Refusal(Code.TOO_MANY_ATTEMPTS)
        if len(self._state.agents) >= self._limits.agents:
            raise Refusal(Code.LIMIT_REACHED)

    def _entry(self, actor: str, source: str, action: str, target: str, code: Code = Code.OK) -> AuditEntry:
        return AuditEntry(int(self._clock()), Actor(actor, source), action, target, code=code)


def _read_key(csr: str) -> ec.EllipticCurvePublicKey:
    key = read_csr(csr)
    if isinstance(key, CsrRefused):
        raise Refusal(Code.CSR_INVALID, key.message)
    return key


def vouching_fields(vouched: Vouched) -> dict[str, Any]:
    """The fields of an agent that say what vouches for it, and how the person signed in on whose behalf it acts: strength, age and
    issuer of one and the same sign-in (case 12)."""
    fields: dict[str, Any] = {
        "actor": vouched.actor,
        "vouched_by": vouched.by,
        "vouched_for_by": vouched.for_by,
        "vouched_mark": vouched.mark,
        "vouched_until": vouched.until,
        "delegation": vouched.delegation,
    }
    if vouched.lent is not None:
        fields |= {
            "signed_in_at": vouched.lent.signed_in_at,
            "sign_in_strength": vouched.lent.strength,
            "sign_in_issuer": vouched.lent.sign_in_issuer,
            "sign_in_vouched_at": vouched.lent.sign_in_vouched_at,
        }
    return fields


def _why_unusable(key: ProvisioningKeyRow | None, now: int) -> Code:
    if key is None:
        return Code.KEY_INVALID
    if key.revoked_at is not None:
        return Code.KEY_REVOKED
    return Code.KEY_EXPIRED if key.expires_at <= now else Code.KEY_USED_UP


def _log_entry(leaf: x509.Certificate, identity: Identity, authority: str) -> IssuedCertificate:
    return IssuedCertificate(
        fingerprint=fingerprint(leaf),
        serial=f"{leaf.serial_number:x}",
        agent=identity.id,
        role=identity.role,
        authority=authority,
        not_before=int(leaf.not_valid_before_utc.timestamp()),
        not_after=int(leaf.not_valid_after_utc.timestamp()),
    )


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:255]
