"""Security events on their way in: verified off the event loop, taken once, put into evidence, audited (Security Event Tokens, RFC 8417).

Bounds: so many tokens of one transmitter wait, of one source and in all, and so many are taken in a second; beyond, the answer is to try again.
Whoever does not know the transmitter's secret never gets that far: a flood of theirs costs a hash each. Whoever knows it, but not the key, fills the
places of their own source alone.
"""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Connection

from cloister.exchange.attempts import Counter
from cloister.exchange.changes import Changes
from cloister.exchange.errors import Refusal
from cloister.exchange.evidence import Evidence
from cloister.exchange.signals.groups import ClaimedGroups
from cloister.exchange.signals.keys import TransmitterKeys
from cloister.exchange.signals.replay import SeenEvents, hash_of
from cloister.exchange.signals.rules import is_about_device, plan, without_subject
from cloister.exchange.signals.secrets import TransmitterSecrets
from cloister.exchange.signals.subjects import find_concerned
from cloister.exchange.signals.types import Outcome, Plan, Stream, Transmitter
from cloister.exchange.state import State
from cloister.exchange.workers import run_in
from cloister.exchange.writer import Writer
from cloister.identity.signals.events import expected, read_event, refusal_of
from cloister.identity.signals.types import ClaimsChange, EventRefused, SecurityEvent, StreamUpdated, Verification
from cloister.identity.tokens.keys import KeySet
from cloister.identity.tokens.types import TokenRefused
from cloister.identity.tokens.verify import verify
from cloister.model.reasons import Code
from cloister.model.transmitters import SignalTransmitter
from cloister.store import sessions as session_rows
from cloister.store.service import Store
from cloister.store.signals import SeenEvent, add_seen_event, delete_transmitters_but, list_seen_events
from cloister.store.types import Actor, AuditEntry

ACTION = "signal.receive"
MAX_WAITING = 256  # tokens of one transmitter that wait for verification or for their turn
MAX_WAITING_OF_SOURCE = 32
MAX_TAKEN_PER_SECOND = 500  # of one transmitter: each is written to the disk
MAX_TOKEN_BYTES = 64 * 1024
AUDITED_PER_MINUTE = 60  # refusals and repetitions of one transmitter; the rest is counted


class Receiver:
    def __init__(
        self,
        state: State,
        evidence: Evidence,
        changes: Changes,
        keys: TransmitterKeys,
        secrets: TransmitterSecrets,
        groups: ClaimedGroups,
        store: Store,
        writer: Writer,
        clock: Callable[[], float],
    ) -> None:
        self._state = state
        self._evidence = evidence
        self._changes = changes
        self._keys = keys
        self._secrets = secrets
        self._groups = groups
        self._store = store
        self._writer = writer
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="signal")  # a second one would only take turns from the event loop
        self._turn = asyncio.Lock()
        self._audited = Counter(AUDITED_PER_MINUTE)
        self._streams: dict[str, Stream] = {}
        with store.read() as connection:
            self._seen = SeenEvents(list_seen_events(connection))

    def close(self) -> None:
        self._pool.shutdown()

    # ------------------------------------------------------------ who

    def find(self, name: str) -> Transmitter | None:
        document = self._state.find("signal-transmitter", name)
        parsed = None if document is None else self._state.parsed[document.id]
        return Transmitter(document.id, parsed) if document is not None and isinstance(parsed, SignalTransmitter) else None

    def transmitters(self) -> list[Transmitter]:
        return [Transmitter(id, item) for id, item in self._state.library.referers.items() if isinstance(item, SignalTransmitter)]

    async def authenticate(self, name: str, secret: str, source: str) -> Transmitter | None:
        """The transmitter of this name, if it pushes and this is its secret. Which of these fails is not told."""
        found = self.find(name)
        pushes = found is not None and found.document.delivery == "push"
        if self._secrets.fits(found.id if found is not None and pushes else None, secret) and found is not None:
            return found
        await self._audit_refusal(name if found is not None else "", Code.NOT_AUTHENTICATED, source, "authentication_failed")
        return None

    def stream(self, transmitter: Transmitter) -> Stream:
        return self._streams.setdefault(transmitter.id, Stream())

    # ------------------------------------------------------------ what

    async def receive(self, transmitter: Transmitter, token: str, source: str, id: str | None = None) -> Outcome:
        """Take one token: when this returns, what it says is in force. `id` is the `jti` under which it was fetched. Raises EventRefused, or Refusal
        to be tried again.
        """
        stream = self.stream(transmitter)
        self._admit(stream, source)
        stream.waiting[source] = stream.waiting.get(source, 0) + 1
        try:
            keys = await self._keys.of(transmitter, token)
            now = int(self._clock())
            event = await run_in(self._pool, lambda: _read(transmitter, token, keys, now))
            if id not in (None, event.id):
                raise EventRefused("invalid_request", Code.TOKEN_CLAIM, "the token is not the one that it was announced as")
            async with self._turn:
                outcome = await self._take(transmitter, event, source)
        except EventRefused as refused:
            stream.refused += 1
            stream.last_refused_at, stream.last_refusal = int(self._clock()), refused.message
            await self._audit_refusal(transmitter.name, refused.code, source, refused.error)
            raise
        finally:
            stream.waiting[source] -= 1
            if not stream.waiting[source]:
                del stream.waiting[source]
        stream.note_taken(int(self._clock()))
        return outcome

    def _admit(self, stream: Stream, source: str) -> None:
        second = int(self._clock())
        is_full = sum(stream.waiting.values()) >= MAX_WAITING or stream.waiting.get(source, 0) >= MAX_WAITING_OF_SOURCE
        if is_full or (stream.second == second and stream.taken_in_second >= MAX_TAKEN_PER_SECOND):
            raise Refusal(Code.TOO_MANY_ATTEMPTS, "too many events of this transmitter wait", "send it again in a second")

    async def _take(self, transmitter: Transmitter, event: SecurityEvent, source: str) -> Outcome:
        """One at a time, so that what was said before is known when what is said now is weighed."""
        actor = Actor(f"signal:{transmitter.name}", source)
        if self._state.parsed.get(transmitter.id) is not transmitter.document:
            raise EventRefused("access_denied", Code.CONFLICT, "the transmitter was changed meanwhile: send it again")
        if self._seen.knows(transmitter.id, event.id):
            if self._may_audit(transmitter.name):
                await self._writer.run(lambda: self._store.record(self._entry(actor, event, "duplicate", Code.TOKEN_REPLAYED)))
            return "duplicate"
        if self._seen.is_forgotten(transmitter.id, event.issued_at):
            raise EventRefused("invalid_request", Code.TOKEN_EXPIRED, "the token is older than the oldest event that is remembered")
        planned = await self._plan(transmitter, event, actor)
        seen = SeenEvent(transmitter.id, hash_of(event.id), event.issued_at)
        await self._commit(actor, event, planned, seen)
        self._seen.add(seen)
        self._note_stream(transmitter, event)
        return planned.outcome

    async def _plan(self, transmitter: Transmitter, event: SecurityEvent, actor: Actor) -> Plan:
        settled = without_subject(event, transmitter)
        if settled is not None or event.subject is None:
            return Plan(settled or "unknown_subject")
        concerned = find_concerned(self._state, transmitter.document, event.subject, is_device=is_about_device(event))
        planned = plan(event, transmitter, concerned, self._state.evidence.of)
        if not isinstance(event.what, ClaimsChange) or concerned is None or concerned.user is None:
            return planned
        followed = await self._groups.follow(transmitter, concerned.user, event.what.claims, actor)
        others = event.what.claims.keys() & set(transmitter.document.sign_in_claims) - {followed}
        return planned if others or followed is None else Plan("acted")

    async def _commit(self, actor: Actor, event: SecurityEvent, planned: Plan, seen: SeenEvent) -> None:
        """The event counts as taken in the transaction of the last thing that it does: what a crash cuts short is sent again, and does no more."""
        dropped = self._seen.room_for(seen)

        def finish(connection: Connection) -> None:
            add_seen_event(connection, seen, dropped)
            if planned.ends_tokens is not None:
                session_rows.delete_api_tokens_of(connection, planned.ends_tokens)

        if not planned.rows:
            entry = self._entry(actor, event, planned.outcome)

            def change() -> None:
                with self._store.change(entry) as made:
                    finish(made.connection)

            await self._writer.run(change)
            return
        cause = Code.RISK_TOO_HIGH if planned.is_about_risk else Code.SIGNAL_RECEIVED
        subjects = planned.subjects
        for number, subject in enumerate(subjects, 1):
            rows = [row for row in planned.rows if row.subject == subject]
            also = finish if number == len(subjects) else None
            detail = _detail(event, planned.outcome)
            await self._evidence.put(actor, subject, rows, cause, action=ACTION, detail=detail, also=also)

    def _note_stream(self, transmitter: Transmitter, event: SecurityEvent) -> None:
        match event.what:
            case Verification():
                self.stream(transmitter).verified_at = int(self._clock())
            case StreamUpdated(status):
                self.stream(transmitter).status = status
            case _:
                pass

    # ------------------------------------------------------------ audit

    def _entry(self, actor: Actor, event: SecurityEvent, outcome: Outcome, code: Code = Code.OK) -> AuditEntry:
        return AuditEntry(int(self._clock()), actor, ACTION, "", _detail(event, outcome), code)

    async def _audit_refusal(self, name: str, code: Code, source: str, error: str) -> None:
        if self._may_audit(name):
            entry = AuditEntry(int(self._clock()), Actor(f"signal:{name}", source), ACTION, "", {"error": error}, code)
            await self._writer.run(lambda: self._store.record(entry))

    def _may_audit(self, name: str) -> bool:
        now = self._clock()
        if not self._audited.allows(name, now):
            return False
        self._audited.add(name, now)
        return True

    # ------------------------------------------------------------ what is gone

    def remembered(self) -> set[str]:
        """The ids of transmitters of which something is kept."""
        return {*self._streams, *self._seen.transmitters()}

    async def forget(self, kept: Iterable[str]) -> None:
        """Drop what belongs to documents that are gone."""
        ids = set(kept)
        self._seen.keep(ids)
        self._keys.keep(ids)
        for gone in self._streams.keys() - ids:
            del self._streams[gone]

        def work() -> None:
            with self._store.note() as connection:
                delete_transmitters_but(connection, ids)

        await self._writer.run(work)


def _read(transmitter: Transmitter, token: str, keys: KeySet, now: int) -> SecurityEvent:
    document = transmitter.document
    try:
        claims = verify(token, keys, expected(document.issuer, document.audience, frozenset(document.algorithms)), now)
    except TokenRefused as error:
        raise refusal_of(error) from None
    return read_event(claims, document.max_age, now)


def _detail(event: SecurityEvent, outcome: Outcome) -> dict[str, object]:
    return {"event": event.type[-64:], "id": hash_of(event.id)[:16], "outcome": outcome}
