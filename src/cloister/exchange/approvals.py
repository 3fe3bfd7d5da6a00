"""Just-in-time access: somebody asks with a reason, somebody else of the rule's approvers answers, and what was approved ends by itself."""

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence

from cloister.exchange.book import SessionBook
from cloister.exchange.changes import Changes
from cloister.exchange.errors import Refusal, not_found
from cloister.exchange.facts import may_approve, principal_of
from cloister.exchange.state import State
from cloister.exchange.verify import Verifier
from cloister.model.facts import Principal, Target
from cloister.model.ids import RuleId, SegmentId
from cloister.model.reasons import Code
from cloister.policy.compile import CompiledRule
from cloister.store import requests as request_rows
from cloister.store.types import AccessRequest, Actor, RequestState

log = logging.getLogger("cloister.exchange")

PENDING_SECONDS = 24 * 3600
MAX_REASON = 512
MAX_PENDING_PER_PRINCIPAL = 32
MAX_OF_PRINCIPAL = 100  # those that are over included
MAX_REQUESTS = 10_000
SHORTEST = 1


class Approvals:
    """`on_event` is told of every request that is made or answered, for whoever passes it on to people."""

    def __init__(self, state: State, book: SessionBook, verifier: Verifier, changes: Changes, clock: Callable[[], float]) -> None:
        self._state = state
        self._book = book
        self._verifier = verifier
        self._changes = changes
        self._clock = clock
        self._lock = asyncio.Lock()  # what is answered is answered once
        self.on_event: Callable[[AccessRequest], None] = lambda _: None

    # ------------------------------------------------------------ asking

    async def ask(self, actor: Actor, principal_id: str, target: Target, reason: str, seconds: int | None) -> AccessRequest:
        """Ask for a segment that some permit grants with an approval. Asking again while it is pending gives the same request."""
        async with self._lock:
            return await self._ask(actor, principal_id, target, reason, seconds)

    async def _ask(self, actor: Actor, principal_id: str, target: Target, reason: str, seconds: int | None) -> AccessRequest:
        principal = principal_of(self._state.library, principal_id)
        reason = reason.strip()
        if not reason or len(reason) > MAX_REASON or not reason.isprintable():
            raise Refusal(Code.ARGUMENT_INVALID, f"a reason has `1` to `{MAX_REASON}` printable characters", "say what it is for")
        segment = self._state.policy.find(target)
        permits = [] if principal is None or segment is None else self._permits(principal, segment)
        if segment is None or not permits:
            raise Refusal(Code.NOT_FOUND, "there is no such name that you could ask for")
        rule = next((permit for permit in permits if permit.rule.approval is not None), None)
        if rule is None:
            name = self._state.name_of(segment)
            raise Refusal(
                Code.CONFLICT, f"`{name}` needs no approval from anybody", "try it; `cloister explain` says what it takes"
            )
        longest = _longest(rule)
        wanted = longest if seconds is None else seconds
        if not SHORTEST <= wanted <= longest:
            raise Refusal(Code.ARGUMENT_INVALID, f"access to this lasts `{SHORTEST}` to `{longest}` seconds", "ask for less")
        now = int(self._clock())
        mine = _live(self._state.requests.of(principal_id), now)
        for known in mine:
            if (known.rule, known.segment) == (rule.id, segment) and known.state in ("pending", "approved"):
                return known
        making_room = self._making_room(principal_id, now)
        if sum(item.state == "pending" for item in mine) >= MAX_PENDING_PER_PRINCIPAL or making_room is None:
            raise Refusal(Code.LIMIT_REACHED, "too many requests wait for an answer", "withdraw some, or wait")
        request = AccessRequest(
            secrets.token_hex(8), principal_id, rule.id, segment, reason, wanted, "pending", now, now + PENDING_SECONDS
        )
        await self._put(actor, "access.request", request, {"reason": reason, "seconds": wanted}, making_room)
        return request

    def _making_room(self, principal: str, now: int) -> list[str] | None:
        """What is forgotten so that this principal may ask once more: the oldest that is over, of their own or of all; None if none is."""
        own, every = self._state.requests.of(principal), self._state.requests
        full = own if len(own) >= MAX_OF_PRINCIPAL else every if len(every) >= MAX_REQUESTS else None
        if full is None:
            return []
        living = {item.id for item in _live(full, now)}
        first = min((item for item in full if item.id not in living), key=lambda item: (item.created_at, item.id), default=None)
        return None if first is None else [first.id]

    async def withdraw(self, actor: Actor, principal_id: str, id: str) -> AccessRequest:
        """Whoever asked takes it back; what was approved already ends at once."""
        async with self._lock:
            request = self._find(id)
            if request.principal != principal_id:
                raise not_found("request", id)
            return await self._end(actor, request, "withdrawn", "access.withdraw", "")

    # ------------------------------------------------------------ answering

    async def approve(self, actor: Actor, user: str, id: str, seconds: int | None, note: str) -> AccessRequest:
        """For at most as long as the rule permits, counted from now. What is approved already is approved anew."""
        async with self._lock:
            request = self._answerable(user, id)
            longest = _longest(self._state.policy.rules.get(RuleId(request.rule)))
            granted = min(request.seconds, longest) if seconds is None else seconds
            if not SHORTEST <= granted <= longest:
                raise Refusal(Code.ARGUMENT_INVALID, f"the rule permits `{SHORTEST}` to `{longest}` seconds", "approve it for less")
            now = int(self._clock())
            approved = dataclasses.replace(
                request, state="approved", seconds=granted, until=now + granted, decided_by=user, decided_at=now, note=_note(note)
            )
            await self._put(actor, "access.approve", approved, {"seconds": granted, "note": approved.note})
            self._verifier.check(self._book.of_principal(request.principal), Code.APPROVAL_EXPIRED)  # flows that wait for it go on
            return approved

    async def deny(self, actor: Actor, user: str, id: str, note: str) -> AccessRequest:
        """Turn a pending request down, or take back what was approved: its flows end at once."""
        async with self._lock:
            request = self._answerable(user, id)
            return await self._end(actor, request, "denied", "access.deny", _note(note), user)

    # ------------------------------------------------------------ looking

    def of_principal(self, principal: str) -> list[AccessRequest]:
        return self._sorted(self._state.requests.of(principal))

    def for_approver(self, user: str) -> list[AccessRequest]:
        """Those that this user may answer."""
        return self._sorted(
            [item for item in _live(self._state.requests, self._clock()) if may_approve(self._state.library, item, user)]
        )

    def all(self) -> list[AccessRequest]:
        return self._sorted(self._state.requests)

    # ------------------------------------------------------------

    def _permits(self, principal: Principal, segment: SegmentId) -> Sequence[CompiledRule]:
        return [rule for rule in self._state.policy.rules_for(principal, segment) if rule.permits]

    def _find(self, id: str) -> AccessRequest:
        request = self._state.requests.get(id)
        if request is None or request.until <= self._clock():
            raise not_found("request", id)
        return request

    def _answerable(self, user: str, id: str) -> AccessRequest:
        """What somebody may not answer does not exist for them (case 68)."""
        request = self._find(id)
        if not may_approve(self._state.library, request, user):
            raise not_found("request", id)
        if request.state not in ("pending", "approved"):
            raise Refusal(Code.CONFLICT, f"the request `{id}` is {request.state} already")
        return request

    async def _end(
        self, actor: Actor, request: AccessRequest, state: RequestState, action: str, note: str, by: str | None = None
    ) -> AccessRequest:
        if request.state not in ("pending", "approved"):
            raise Refusal(Code.CONFLICT, f"the request `{request.id}` is {request.state} already")
        ended = dataclasses.replace(request, state=state, decided_by=by, decided_at=int(self._clock()), note=note)
        await self._put(actor, action, ended, {"note": note})
        self._verifier.check(self._book.of_principal(request.principal), Code.APPROVAL_EXPIRED)
        return ended

    async def _put(
        self, actor: Actor, action: str, request: AccessRequest, detail: dict[str, object], forget: Sequence[str] = ()
    ) -> None:
        who, what = self._state.name_of(request.principal), self._state.name_of(request.segment)
        entry = self._changes.entry(actor, action, f"{who} {what} {request.id}", detail)
        await self._changes.commit(entry, lambda change: request_rows.put_request(change, request, forget))
        self._state.requests.drop(forget)
        self._state.requests.put(request)
        self.on_event(request)

    def _sorted(self, requests: Iterable[AccessRequest]) -> list[AccessRequest]:
        return sorted(requests, key=lambda item: (item.created_at, item.id), reverse=True)


def _live(requests: Iterable[AccessRequest], now: float) -> list[AccessRequest]:
    return [item for item in requests if item.until > now and item.state in ("pending", "approved")]


def _longest(rule: CompiledRule | None) -> int:
    return rule.rule.approval.longest if rule is not None and rule.rule.approval is not None else 0


def _note(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:MAX_REASON]
