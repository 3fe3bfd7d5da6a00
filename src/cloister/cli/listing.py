"""`cloister get`: what there is, as tables or JSON."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from cloister.cli.asking import open_api, path_part, when
from cloister.cli.client import Json, State
from cloister.cli.output import clean, print_json, print_table, rows_of

PAGE = 1000


class Kind(StrEnum):
    """What `get` lists; the values are paths of the API."""

    SEGMENTS = "segments"
    CONNECTOR_GROUPS = "connector-groups"
    RULES = "rules"
    USERS = "users"
    GROUPS = "groups"
    DEVICES = "devices"
    WORKLOADS = "workloads"
    WEBHOOKS = "webhooks"
    IDENTITY_PROVIDERS = "identity-providers"
    TOKEN_ISSUERS = "token-issuers"  # noqa: S105 (a kind of document)
    DELEGATIONS = "delegations"
    POSTURE_PROFILES = "posture-profiles"
    NETWORKS = "networks"
    SIGNAL_TRANSMITTERS = "signal-transmitters"
    KEYS = "keys"
    AGENTS = "agents"
    SESSIONS = "sessions"
    KILL_SWITCHES = "kill-switches"
    RECORDS = "records"
    AUDIT = "audit"


_DOCUMENTS = frozenset(
    {
        Kind.SEGMENTS,
        Kind.CONNECTOR_GROUPS,
        Kind.RULES,
        Kind.GROUPS,
        Kind.DEVICES,
        Kind.WORKLOADS,
        Kind.TOKEN_ISSUERS,
        Kind.WEBHOOKS,
        Kind.IDENTITY_PROVIDERS,
        Kind.POSTURE_PROFILES,
        Kind.NETWORKS,
        Kind.SIGNAL_TRANSMITTERS,
    }
)
_DEFAULTS: dict[Kind, dict[str, object]] = {
    Kind.SEGMENTS: {"protocol": "tcp"},
    Kind.IDENTITY_PROVIDERS: {"protocol": "oidc"},
    Kind.SIGNAL_TRANSMITTERS: {"delivery": "push"},
}
_COLUMNS: dict[Kind, tuple[str, ...]] = {
    Kind.SEGMENTS: ("name", "hosts", "ports", "protocol", "groups", "labels"),
    Kind.CONNECTOR_GROUPS: ("name", "suffixes", "networks", "labels"),
    Kind.RULES: ("name", "effect", "who", "what", "when"),
    Kind.USERS: ("name", "display", "role", "groups", "disabled"),
    Kind.GROUPS: ("name", "users", "groups", "workloads"),
    Kind.DEVICES: ("name", "owner", "labels", "disabled"),
    Kind.WEBHOOKS: ("name", "url", "events"),
    Kind.WORKLOADS: ("name", "issuer", "subject", "claims", "disabled"),
    Kind.TOKEN_ISSUERS: ("name", "type", "issuer", "proof_lasts", "disabled"),
    Kind.DELEGATIONS: ("id", "user", "workload", "created_at", "expires_at", "revoked_at"),
    Kind.IDENTITY_PROVIDERS: ("name", "protocol", "issuer", "disabled"),
    Kind.POSTURE_PROFILES: ("name", "require", "labels"),
    Kind.NETWORKS: ("name", "networks", "labels"),
    Kind.SIGNAL_TRANSMITTERS: ("name", "delivery", "issuer", "events"),
    Kind.KEYS: ("id", "role", "group", "principal", "uses", "max_uses", "expires_at", "revoked_at", "note"),
    Kind.AGENTS: (
        "id",
        "role",
        "principal",
        "actor",
        "group",
        "hostname",
        "device",
        "up",
        "sessions",
        "last_seen_at",
        "revoked_at",
    ),
    Kind.SESSIONS: ("id", "principal", "actor", "client", "segment", "rules", "connectors", "opened_at", "idle"),
    Kind.KILL_SWITCHES: ("id", "scope", "target", "reason", "created_by", "expires_at"),
    Kind.RECORDS: ("at", "kind", "principal_name", "segment_name", "host", "port", "in", "out", "code"),
    Kind.AUDIT: ("n", "at", "actor", "action", "target", "code"),
}


def get(
    kind: Annotated[Kind, typer.Argument(show_default=False)],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them, by name or id.", show_default=False)] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="NAME", help="Of this user only (sessions, records).")] = None,
    segment: Annotated[
        str | None, typer.Option("--segment", metavar="NAME", help="Of this segment only (sessions, records).")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=PAGE, help="At most so many (records, audit).")] = 100,
    state: State = None,
    as_json: Json = False,
) -> None:
    """List what there is, or show one."""
    path = f"/{kind.value}" + (f"/{path_part(name)}" if name is not None else "")
    query: dict[str, Any] = {}
    if kind in (Kind.SESSIONS, Kind.RECORDS):
        query |= {"user": user, "segment": segment}
    if kind in (Kind.RECORDS, Kind.AUDIT):
        query["limit"] = limit
    with open_api(state) as api:
        answer = api.call("GET", path, query=query)
    items = [answer] if name is not None else answer["entries"] if isinstance(answer, dict) else answer
    if as_json:
        print_json(answer if name is not None else items)
        return
    shown = [_flat(kind, item) for item in items]
    if name is not None:
        for key, value in shown[0].items():
            print(f"{key:<14} {clean(_shown(key, value))}")
        return
    rows = [
        [_shown(column, cell) for column, cell in zip(_COLUMNS[kind], row, strict=True)] for row in rows_of(shown, _COLUMNS[kind])
    ]
    print_table(_COLUMNS[kind], rows, empty=f"there are no {kind.value.replace('-', ' ')}")


def _flat(kind: Kind, item: dict[str, Any]) -> dict[str, Any]:
    if kind not in _DOCUMENTS:
        return item
    disabled = {"disabled": False} if "disabled" in _COLUMNS[kind] else {}
    return {"id": item["id"], **_DEFAULTS.get(kind, {}), **disabled, **item["document"]}


def _shown(column: str, value: object) -> object:
    return when(value) if isinstance(value, int) and column.endswith(("_at", "at", "_expires")) else value
