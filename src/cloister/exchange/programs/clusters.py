"""Keys of clusters as their own connectors report them: whose report counts, for which issuer, and which keys hold now. The exchange dials no cluster."""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping

from cloister.exchange.attempts import Noting
from cloister.exchange.errors import Refusal
from cloister.exchange.links import LiveLink
from cloister.exchange.state import Reported, State
from cloister.exchange.writer import Writer
from cloister.identity.programs import inline_keys
from cloister.identity.tokens.keys import KeysUnusable
from cloister.identity.tokens.rotation import ClusterKey, read_keys, rotate, verifying
from cloister.model.messages.from_agent import ClusterKeys
from cloister.model.messages.from_exchange import KeysTaken
from cloister.model.programs import Jwks, TokenIssuer
from cloister.model.reasons import Code
from cloister.store import programs as program_rows
from cloister.store.service import Store
from cloister.store.types import Actor, Agent, AuditEntry, ClusterKeyRow

log = logging.getLogger("cloister.exchange")


class Clusters:
    """Takes reports. One at a time: what a report is compared with is what the one before has left."""

    def __init__(self, state: State, noting: Noting, store: Store, writer: Writer, clock: Callable[[], float]) -> None:
        self._state = state
        self._noting = noting
        self._store = store
        self._writer = writer
        self._clock = clock
        self._lock = asyncio.Lock()

    async def take(self, link: LiveLink, report: ClusterKeys) -> KeysTaken:
        """The group of the reporter's own enrolment says whose keys these are; nothing in the report does. A refusal changes nothing."""
        async with self._lock:
            try:
                await self._take(link, report)
            except Refusal as refusal:
                detail = self._noting.detail(link.source, self._clock())
                if detail is not None:
                    entry = self._entry(link, "", refusal.code, {"why": refusal.message, **detail})
                    await self._writer.run(lambda: self._store.record(entry))
                return KeysTaken(code=refusal.code, message=refusal.message[:1024])
        return KeysTaken()

    async def _take(self, link: LiveLink, report: ClusterKeys) -> None:
        id, issuer = self._issuer_of(self._state.agents[link.agent])
        known = known_keys(self._state, id, issuer)
        now = int(self._clock())
        try:
            after = rotate(
                known, [{str(name): text for name, text in key.items()} for key in report.keys], frozenset(issuer.algorithms), now
            )
        except KeysUnusable as error:
            raise Refusal(Code.ARGUMENT_INVALID, str(error)) from None
        if after == known:
            return
        new = after.keys() - known.keys()
        if other := self._other_owner(id, new):
            raise Refusal(Code.CONFLICT, f"the token issuer `{other}` has a key of this report: a key is one cluster's")
        basis = basis_of(issuer)
        retired = [key for key in after.values() if key.retired_at is not None and known[key.thumbprint].retired_at is None]
        detail = {"new": _names(after[one] for one in new), "retired": _names(retired)}
        rows = [ClusterKeyRow(id, key.thumbprint, key.jwk, key.retired_at, basis) for key in after.values()]
        entry = self._entry(link, issuer.name, Code.OK, detail)

        def work() -> None:
            with self._store.change(entry) as change:
                program_rows.replace_cluster_keys(change, id, rows)

        await self._writer.run(work)
        self._state.cluster_keys[id] = Reported(basis, after)
        log.info("connector `%s` reported keys of `%s`: %s", link.agent, issuer.name, detail)

    def _issuer_of(self, agent: Agent) -> tuple[str, TokenIssuer]:
        """The one cluster whose connectors are of this agent's group; of several, the one that vouched for it."""
        found = [
            (id, document)
            for id, document in self._state.parsed.items()
            if isinstance(document, TokenIssuer)
            and not document.disabled
            and document.connectors is not None
            and document.connectors.report_keys
            and (group := self._state.find("connector-group", document.connectors.group)) is not None
            and group.id == agent.connector_group
            and agent.vouched_by in (None, id)
        ]
        if not found:
            raise Refusal(
                Code.NOT_AUTHORISED, "no token issuer lets the connectors of this group report keys (`connectors.report_keys`)"
            )
        if len(found) > 1:
            raise Refusal(Code.CONFLICT, "several token issuers have connectors of this group: enrol the connector by a token")
        return found[0]

    def _other_owner(self, id: str, thumbprints: Iterable[str]) -> str:
        """The name of another issuer that has one of these keys, empty if none has."""
        wanted = set(thumbprints)
        for other, document in self._state.parsed.items():
            if other == id or not wanted or not isinstance(document, TokenIssuer) or inline_keys(document) is None:
                continue
            listed = document.keys.keys if document.keys is not None else ()
            algorithms = frozenset[str](document.algorithms)
            if wanted & (read_keys(listed, algorithms).keys() | known_keys(self._state, other, document).keys()):
                return document.name
        return ""

    def _entry(self, link: LiveLink, target: str, code: Code, detail: Mapping[str, object]) -> AuditEntry:
        return AuditEntry(
            int(self._clock()), Actor(f"agent:{link.agent}", link.source), "issuer.keys", target, detail=detail, code=code
        )


def known_keys(state: State, id: str, issuer: TokenIssuer) -> Mapping[str, ClusterKey]:
    """All keys on which an enrolment may stand, by thumbprint. Other keys in the document, or reports forbidden, void what was reported."""
    reported = state.cluster_keys.get(id)
    if reported is not None and _may_report(issuer) and reported.basis == basis_of(issuer):
        return reported.keys
    return read_keys(() if issuer.keys is None else issuer.keys.keys, frozenset(issuer.algorithms))


def standing(state: State, id: str | None) -> TokenIssuer | None:
    """The issuer with every key on which an enrolment may stand."""
    issuer = state.parsed.get(id or "")
    if not isinstance(issuer, TokenIssuer) or not _may_report(issuer) or id not in state.cluster_keys:
        return issuer if isinstance(issuer, TokenIssuer) else None
    return _with_keys(issuer, known_keys(state, id, issuer).values())


def believed(state: State, id: str, issuer: TokenIssuer, now: int) -> TokenIssuer:
    """The issuer with the keys that verify a token now."""
    if not _may_report(issuer) or id not in state.cluster_keys:
        return issuer
    return _with_keys(issuer, verifying(known_keys(state, id, issuer).values(), now))


def basis_of(issuer: TokenIssuer) -> str:
    listed = [] if issuer.keys is None else [dict(key) for key in issuer.keys.keys]
    return hashlib.sha256(json.dumps(listed, sort_keys=True, default=list).encode()).hexdigest()


def _may_report(issuer: TokenIssuer) -> bool:
    return issuer.connectors is not None and issuer.connectors.report_keys


def _with_keys(issuer: TokenIssuer, keys: Iterable[ClusterKey]) -> TokenIssuer:
    return issuer.model_copy(update={"keys": Jwks.model_construct(keys=tuple(key.jwk for key in keys))})


def _names(keys: Iterable[ClusterKey]) -> list[str]:
    return sorted(str(key.jwk.get("kid"))[:64] for key in keys)
