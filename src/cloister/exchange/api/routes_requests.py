"""Just-in-time access: what somebody asks for, and the answers of those who may give it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from cloister.exchange.api.parts import Caller, Parts
from cloister.exchange.api.routing import Routes, caller
from cloister.exchange.api.schemas import Form
from cloister.exchange.errors import Refusal
from cloister.exchange.facts import may_approve, principal_of
from cloister.model.documents import Protocol
from cloister.model.facts import Destination, Target
from cloister.model.fields import Name
from cloister.model.hosts import HostError, parse_host
from cloister.model.ids import SegmentId
from cloister.model.reasons import Code
from cloister.store.types import AccessRequest, RequestState

CallerIs = Annotated[Caller, Depends(caller)]
Text = Annotated[str, Field(max_length=512)]
Seconds = Annotated[int, Field(ge=1, le=30 * 86400)]


class RequestForm(Form):
    """The application by its name, or by a host and port of it."""

    segment: Name | None = None
    host: Annotated[str, Field(max_length=253)] | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    protocol: Protocol = "tcp"
    reason: Text
    seconds: Seconds | None = None


class Verdict(Form):
    seconds: Seconds | None = None
    note: Text = ""


class RequestAnswer(Form):
    id: str
    user: str
    segment: str
    rule: str
    reason: str
    seconds: int
    state: RequestState
    created_at: int
    until: int
    decided_by: str
    decided_at: int | None
    note: str
    mine: bool
    may_answer: bool


def make_routes(parts: Parts) -> APIRouter:
    routes = Routes(parts, "requests")

    @routes.add("GET", "/api/v1/requests", guard="user")
    async def list_requests(
        who: CallerIs,
        state: Annotated[RequestState | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    ) -> list[RequestAnswer]:
        """The caller's own requests and those the caller may answer; auditors and administrators see all. Newest first."""
        if who.account.role in ("auditor", "admin"):
            found = parts.approvals.all()
        else:
            found = parts.approvals.of_principal(who.account.user) + parts.approvals.for_approver(who.account.user)
        return [_answer(parts, item, who) for item in found if state in (None, item.state)][:limit]

    @routes.add("POST", "/api/v1/requests", guard="user", audit="access.request", status=201)
    async def request_access(form: RequestForm, who: CallerIs) -> RequestAnswer:
        """Ask for an application that a rule grants with an approval."""
        request = await parts.approvals.ask(who.actor, who.account.user, _target(parts, form, who), form.reason, form.seconds)
        return _answer(parts, request, who)

    @routes.add("POST", "/api/v1/requests/{id}/approve", guard="user", audit="access.approve")
    async def approve_request(id: str, form: Verdict, who: CallerIs) -> RequestAnswer:
        """Never one's own: a member of the rule's approvers says for how long. Flows that wait for it go on."""
        return _answer(parts, await parts.approvals.approve(who.actor, who.account.user, id, form.seconds, form.note), who)

    @routes.add("POST", "/api/v1/requests/{id}/deny", guard="user", audit="access.deny")
    async def deny_request(id: str, form: Verdict, who: CallerIs) -> RequestAnswer:
        """Turn it down; what was approved before ends at once."""
        return _answer(parts, await parts.approvals.deny(who.actor, who.account.user, id, form.note), who)

    @routes.add("POST", "/api/v1/requests/{id}/withdraw", guard="user", audit="access.withdraw")
    async def withdraw_request(id: str, who: CallerIs) -> RequestAnswer:
        """Take one's own request back; what was approved ends at once."""
        return _answer(parts, await parts.approvals.withdraw(who.actor, who.account.user, id), who)

    return routes.router


def _target(parts: Parts, form: RequestForm, who: Caller) -> Target:
    if form.segment is not None:
        document = parts.state.find("segment", form.segment)
        if document is None:
            raise Refusal(Code.NOT_FOUND, "there is no such name that you could ask for")
        return SegmentId(document.id)
    if form.host is None:
        raise Refusal(Code.ARGUMENT_INVALID, "name a `segment`, or a `host`")
    try:
        host = parse_host(form.host)
    except HostError as error:
        raise Refusal(Code.HOST_MALFORMED, str(error)) from None
    principal = principal_of(parts.state.library, who.account.user)
    return Destination(host, form.port or parts.sessions.first_port(host, form.protocol, principal), form.protocol)


def _answer(parts: Parts, request: AccessRequest, who: Caller) -> RequestAnswer:
    return RequestAnswer(
        id=request.id,
        user=parts.state.name_of(request.principal),
        segment=parts.state.name_of(request.segment),
        rule=parts.state.name_of(request.rule),
        reason=request.reason,
        seconds=request.seconds,
        state=request.state,
        created_at=request.created_at,
        until=request.until,
        decided_by=parts.state.name_of(request.decided_by),
        decided_at=request.decided_at,
        note=request.note,
        mine=request.principal == who.account.user,
        may_answer=may_approve(parts.state.library, request, who.account.user),
    )
