"""SCIM 2.0 (RFC 7644) for directories: users, groups, searches, and what describes the service. Errors are SCIM's own, for every path below `/scim/`."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import JSONResponse

from cloister.exchange.api.parts import Parts
from cloister.exchange.api.routing import Routes, directory_of, source_of
from cloister.exchange.scim.query import LIST_SCHEMA, Query, make_query, read_search
from cloister.exchange.scim.render import BASE_PATH, base_of, version_of
from cloister.identity.scim.errors import ScimError, ScimType, error_body, invalid, not_found
from cloister.identity.scim.project import make_projection, project
from cloister.identity.scim.schema import SCHEMAS, TYPES, Kind, describe_schema, describe_service, describe_type
from cloister.identity.scim.values import Body
from cloister.identity.strict_json import NotStrict, read_json
from cloister.store.types import Directory, ScimEntry

MEDIA_TYPE = "application/scim+json"
MAX_VALUES = 100_000  # of one request body: a group of 10,000 members has five for each
MAX_BYTES = 4 << 20
INLINE_BYTES = 16 << 10  # larger bodies are read in a thread
KINDS: Mapping[str, Kind] = {"Users": "User", "Groups": "Group"}

_WHOLE = re.compile(r"-?[0-9]{1,10}")

DirectoryIs = Annotated[Directory, Depends(directory_of)]


class ScimAnswer(JSONResponse):
    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def scim_problem(status: int, detail: str, scim_type: ScimType = "") -> ScimAnswer:
    headers = {"www-authenticate": 'Bearer realm="scim"'} if status == 401 else {"retry-after": "60"} if status == 429 else None
    return ScimAnswer(error_body(status, detail, scim_type), status, headers)


def make_routes(parts: Parts) -> APIRouter:
    routes = Routes(parts, "scim")
    for path, kind in KINDS.items():
        _add_kind(routes, parts, path, kind)
    _add_search(routes, parts)
    _add_descriptions(routes, parts)
    return routes.router


# ------------------------------------------------------------------ users and groups


def _add_kind(routes: Routes, parts: Parts, path: str, kind: Kind) -> None:
    where, word = f"{BASE_PATH}/{path}", kind.lower()

    async def list_kind(request: Request, who: DirectoryIs) -> Response:
        return ScimAnswer(await parts.searches.page(who, [kind], _query(parts, request)))

    async def search_kind(request: Request, who: DirectoryIs) -> Response:
        query = read_search(await _body(request), parts.settings.limits.page)
        return ScimAnswer(await parts.searches.page(who, [kind], query))

    async def read_kind(id: str, request: Request, who: DirectoryIs) -> Response:
        entry, body = parts.scim.read(who, kind, id)
        version = version_of(parts.state, entry)
        if _names(request.headers.get("if-none-match"), version):
            return Response(status_code=304, headers={"etag": version})
        return await _shown(parts, request, entry, body)

    async def create_kind(request: Request, who: DirectoryIs) -> Response:
        _projection(request)
        entry, body = await parts.scim.create(who, source_of(request), kind, await _body(request))
        return await _shown(parts, request, entry, body, 201)

    async def replace_kind(id: str, request: Request, who: DirectoryIs) -> Response:
        _projection(request)
        entry, body = await parts.scim.replace(who, source_of(request), kind, id, await _body(request), _precondition(request))
        return await _shown(parts, request, entry, body)

    async def patch_kind(id: str, request: Request, who: DirectoryIs) -> Response:
        """A group is answered only if attributes are asked for: it may be long, and one is added at a time (RFC 7644 §3.5.2)."""
        projection = _projection(request)
        entry, body = await parts.scim.patch(who, source_of(request), kind, id, await _body(request), _precondition(request))
        if kind == "Group" and not (projection.attributes or projection.excluded):
            return Response(status_code=204, headers={"etag": version_of(parts.state, entry)})
        return await _shown(parts, request, entry, body)

    async def delete_kind(id: str, request: Request, who: DirectoryIs) -> Response:
        await parts.scim.delete(who, source_of(request), kind, id, _precondition(request))
        return Response(status_code=204)

    for endpoint, verb in (
        (list_kind, "list"), (search_kind, "search"), (read_kind, "read"), (create_kind, "create"), (replace_kind, "replace"),
        (patch_kind, "patch"), (delete_kind, "delete"),
    ):  # fmt: skip
        endpoint.__name__ = f"scim_{verb}_{word}"
    routes.add("GET", where, guard="directory")(list_kind)
    routes.add("POST", f"{where}/.search", guard="directory", reads=True)(search_kind)
    routes.add("POST", where, guard="directory", audit=f"scim.{word}.create", status=201)(create_kind)
    routes.add("GET", f"{where}/{{id}}", guard="directory")(read_kind)
    routes.add("PUT", f"{where}/{{id}}", guard="directory", audit=f"scim.{word}.put")(replace_kind)
    routes.add("PATCH", f"{where}/{{id}}", guard="directory", audit=f"scim.{word}.patch")(patch_kind)
    routes.add("DELETE", f"{where}/{{id}}", guard="directory", audit=f"scim.{word}.delete", status=204)(delete_kind)


def _add_search(routes: Routes, parts: Parts) -> None:
    @routes.add("POST", f"{BASE_PATH}/.search", guard="directory", reads=True)
    async def scim_search(request: Request, who: DirectoryIs) -> Response:
        query = read_search(await _body(request), parts.settings.limits.page)
        return ScimAnswer(await parts.searches.page(who, list(TYPES), query))

    @routes.add("POST", f"{BASE_PATH}/Bulk", guard="directory", reads=True)
    async def scim_bulk() -> Response:
        """Not supported, and declared so: one request is one change."""
        raise ScimError(501, "bulk operations are not supported: send one request for each")


# ------------------------------------------------------------------ what describes the service


def _add_descriptions(routes: Routes, parts: Parts) -> None:
    @routes.add("GET", f"{BASE_PATH}/ServiceProviderConfig", guard="directory")
    async def scim_service() -> Response:
        return ScimAnswer(describe_service(base_of(parts.state), parts.settings.limits.page))

    @routes.add("GET", f"{BASE_PATH}/ResourceTypes", guard="directory")
    async def scim_types(request: Request) -> Response:
        return _list(request, [describe_type(kind, base_of(parts.state)) for kind in TYPES.values()])

    @routes.add("GET", f"{BASE_PATH}/ResourceTypes/{{id}}", guard="directory")
    async def scim_type(id: str) -> Response:
        kind = next((kind for name, kind in TYPES.items() if name == id), None)
        if kind is None:
            raise not_found()
        return ScimAnswer(describe_type(kind, base_of(parts.state)))

    @routes.add("GET", f"{BASE_PATH}/Schemas", guard="directory")
    async def scim_schemas(request: Request) -> Response:
        return _list(request, [describe_schema(schema, base_of(parts.state)) for schema in SCHEMAS.values()])

    @routes.add("GET", f"{BASE_PATH}/Schemas/{{id}}", guard="directory")
    async def scim_schema(id: str) -> Response:
        schema = next((schema for urn, schema in SCHEMAS.items() if urn.lower() == id.lower()), None)
        if schema is None:
            raise not_found()
        return ScimAnswer(describe_schema(schema, base_of(parts.state)))


def _list(request: Request, resources: list[dict[str, Any]]) -> Response:
    """These are not filtered (RFC 7644 §4)."""
    if "filter" in request.query_params:
        raise ScimError(403, "what describes the service is not filtered")
    head = {"schemas": [LIST_SCHEMA], "totalResults": len(resources), "startIndex": 1, "itemsPerPage": len(resources)}
    return ScimAnswer({**head, "Resources": resources})


# ------------------------------------------------------------------ requests


async def _body(request: Request) -> Any:
    """The JSON of a request, read in one way only."""
    text = await request.body()
    if len(text) > MAX_BYTES:
        raise ScimError(413, f"a request has at most `{MAX_BYTES}` bytes")

    def read() -> Any:
        try:
            return read_json(text, max_bytes=MAX_BYTES, max_values=MAX_VALUES)
        except NotStrict as error:
            raise invalid(f"the body cannot be read: {error}", "invalidSyntax") from None

    return read() if len(text) <= INLINE_BYTES else await asyncio.to_thread(read)


def _query(parts: Parts, request: Request) -> Query:
    asked = request.query_params
    return make_query(
        asked.get("filter"),
        asked.get("sortBy"),
        asked.get("sortOrder"),
        _number(asked.get("startIndex"), "startIndex"),
        _number(asked.get("count"), "count"),
        asked.getlist("attributes"),
        asked.getlist("excludedAttributes"),
        parts.settings.limits.page,
    )


def _number(text: str | None, name: str) -> int | None:
    if text is None or text == "":
        return None
    if not _WHOLE.fullmatch(text):
        raise invalid(f"`{name}` is a whole number")
    return int(text)


def _projection(request: Request) -> Any:
    return make_projection(request.query_params.getlist("attributes"), request.query_params.getlist("excludedAttributes"))


async def _shown(parts: Parts, request: Request, entry: ScimEntry, body: Body, status: int = 200) -> Response:
    kind, projection = TYPES[entry.kind], _projection(request)

    def make() -> tuple[dict[str, Any], Response]:
        wanted = {"with_members": projection.wants(kind, "members"), "with_groups": projection.wants(kind, "groups")}
        resource = parts.scim.show(entry, body, **wanted)
        return resource, ScimAnswer(project(kind, resource, projection), status)

    resource, answer = await asyncio.to_thread(make) if entry.kind == "Group" else make()
    answer.headers["etag"] = resource["meta"]["version"]
    answer.headers["location"] = resource["meta"]["location"]
    return answer


def _precondition(request: Request) -> Any:
    """`If-Match` and `If-None-Match` of a change (RFC 7644 §3.14); compared weakly, since all our ETags are weak."""
    wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")

    def check(version: str) -> None:
        if (wanted is not None and not _names(wanted, version)) or _names(unwanted, version):
            raise ScimError(412, "the resource was changed since: read it again")

    return check


def _names(header: str | None, version: str) -> bool:
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or version.removeprefix("W/") in tags
