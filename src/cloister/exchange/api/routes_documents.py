"""Documents: bundles, and single ones with ETag and If-Match."""

import json
import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse

from cloister.exchange.api.parts import Caller, Parts
from cloister.exchange.api.routing import Routes, caller
from cloister.exchange.api.schemas import Applied, Document
from cloister.exchange.changes import Applied as AppliedChange
from cloister.exchange.errors import Refusal, not_found
from cloister.model.documents import KINDS
from cloister.model.print import print_documents
from cloister.model.reasons import Code
from cloister.store.types import StoredDocument

CallerIs = Annotated[Caller, Depends(caller)]
IfMatch = Annotated[str | None, Header(alias="if-match")]
KIND_PATHS = {f"{kind}s": kind for kind in KINDS if kind != "user"}
"""Users have routes of their own: an account belongs to them."""
_ETAG = re.compile(r'"([0-9]{1,19})"')


def make_routes(parts: Parts) -> APIRouter:
    routes = Routes(parts, "documents")

    @routes.add("GET", "/api/v1/documents", guard="auditor")
    async def export_documents(
        kind: Annotated[str | None, Query(max_length=32)] = None,
    ) -> PlainTextResponse:
        """Every document as one YAML bundle; applying it changes nothing."""
        documents = [document for document in parts.state.parsed.values() if kind is None or document.kind == kind]
        documents.sort(key=lambda document: (list(KINDS).index(document.kind), document.name))
        return PlainTextResponse(print_documents(documents), media_type="application/yaml")

    @routes.add("POST", "/api/v1/documents", guard="admin", audit="documents.apply")
    async def apply_documents(request: Request, who: CallerIs, *, dry_run: Annotated[bool, Query()] = False) -> Applied:
        """Write every document of a bundle (YAML or JSON), or none; errors come all at once, with positions."""
        applied = await parts.changes.apply(who.actor, await request.body(), dry_run=dry_run)
        return _applied(applied, dry_run=dry_run)

    for path, kind in KIND_PATHS.items():
        _add_kind(routes, parts, path, kind)
    return routes.router


def _add_kind(routes: Routes, parts: Parts, path: str, kind: str) -> None:
    title = kind.replace("-", "_")

    async def list_kind(
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000, after: Annotated[str, Query(max_length=128)] = ""
    ) -> list[Document]:
        limit = min(limit, parts.settings.limits.page)
        rows = sorted((row for row in parts.state.documents.values() if row.kind == kind), key=lambda row: row.name)
        return [_document(row) for row in rows if row.name > after][:limit]

    async def read_kind(name: str, response: Response) -> Document:
        row = parts.state.find(kind, name)
        if row is None:
            raise not_found(kind, name)
        response.headers["etag"] = f'"{row.generation}"'
        return _document(row)

    async def put_kind(name: str, request: Request, response: Response, who: CallerIs, if_match: IfMatch = None) -> Document:
        """Create or replace; the body is one document in YAML or JSON. `If-Match: "0"` creates only."""
        parsed = await parts.changes.read(_with_name(await request.body(), kind, name))
        if len(parsed.documents) != 1 or (parsed.documents[0].kind, parsed.documents[0].name) != (kind, name):
            raise Refusal(Code.ARGUMENT_INVALID, f"the body is not the one {kind} `{name}`")
        await parts.changes.write(who.actor, f"{kind}.put", parsed.documents, origins=parsed.origins, expected=_expected(if_match))
        return await read_kind(name, response)

    async def delete_kind(name: str, who: CallerIs, if_match: IfMatch = None) -> Applied:
        applied = await parts.changes.delete(who.actor, kind, name, expected=_expected(if_match))
        return _applied(applied, dry_run=False)

    for endpoint, verb in ((list_kind, "list"), (read_kind, "read"), (put_kind, "put"), (delete_kind, "delete")):
        endpoint.__name__ = f"{verb}_{title}"
    routes.add("GET", f"/api/v1/{path}", guard="auditor")(list_kind)
    routes.add("GET", f"/api/v1/{path}/{{name}}", guard="auditor")(read_kind)
    routes.add("PUT", f"/api/v1/{path}/{{name}}", guard="admin", audit=f"{kind}.put")(put_kind)
    routes.add("DELETE", f"/api/v1/{path}/{{name}}", guard="admin", audit=f"{kind}.delete")(delete_kind)


def _with_name(body: bytes, kind: str, name: str) -> bytes:
    """A JSON body may leave out what the path says."""
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return json.dumps({"kind": kind, "name": name} | fields).encode() if isinstance(fields, dict) else body


def _expected(if_match: str | None) -> int | None:
    if if_match is None:
        return None
    match = _ETAG.fullmatch(if_match.strip())
    if match is None:
        raise Refusal(Code.ARGUMENT_INVALID, "`If-Match` is not an ETag that this API gave")
    return int(match[1])


def _document(row: StoredDocument) -> Document:
    return Document(id=row.id, generation=row.generation, changed_at=row.changed_at, document=dict(row.fields))


def _applied(applied: AppliedChange, *, dry_run: bool) -> Applied:
    def names(keys: tuple[tuple[str, str], ...]) -> list[str]:
        return [f"{kind} {name}" for kind, name in keys]

    return Applied(
        created=names(applied.created),
        changed=names(applied.changed),
        deleted=names(applied.deleted),
        generation=applied.generation,
        dry_run=dry_run,
        notices=list(applied.notices),
    )
