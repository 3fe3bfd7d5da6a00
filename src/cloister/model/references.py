"""What takes more than one document to check: references by name, circles of groups, claims outside of a connector group's names, forbidden hosts.

All errors at once, in the order of the documents.
"""

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from cloister.model.addresses import forbidden_host
from cloister.model.documents import ConnectorGroup, Document, Group, Rule, Segment, User
from cloister.model.hosts import address_of
from cloister.model.overlap import find_ties
from cloister.model.parse import DocumentError, Key, Origins, Path
from cloister.model.programs import TokenIssuer, Workload, why_too_wide
from cloister.model.reasons import Code

LOCAL = "local"
"""The issuer of whoever this exchange itself vouches for."""


def check_documents(documents: Sequence[Document], origins: Origins | None = None) -> list[DocumentError]:
    """Every error of a whole set of documents; `origins` gives places to those that came from a text."""
    return _Check(documents, origins or {}).run()


def check_some(
    documents: Sequence[Document],
    by_key: Mapping[Key, Document],
    entered: Mapping[str, Mapping[str, AbstractSet[str]]],
    holder: Callable[[User], str | None],
) -> list[DocumentError]:
    """The errors of these documents, of which no segment is new, in the set `by_key`. `entered` are the new members, by kind, of groups whose others
    need no look; `holder` names another user with the same issuer and subject."""
    return _Check(documents, {}).run_some(by_key, entered, holder)


class _Check:
    def __init__(self, documents: Sequence[Document], origins: Origins) -> None:
        self._documents = documents
        self._origins = origins
        self._by_key: Mapping[Key, Document] = {}
        self._entered: Mapping[str, Mapping[str, AbstractSet[str]]] = {}
        self._errors: list[DocumentError] = []
        self._issuers: list[Document] | None = None

    def run(self) -> list[DocumentError]:
        by_key: dict[Key, Document] = {}
        for document in self._documents:
            if (document.kind, document.name) in by_key:
                self._report(Code.DOCUMENT_MALFORMED, f"the {document.kind} `{document.name}` exists twice", document, ("name",))
            by_key[document.kind, document.name] = document
        self._by_key = by_key
        self._check_each()
        self._check_subjects()
        self._check_circles(document for document in self._documents if isinstance(document, Group))
        self._check_ties()
        return self._errors

    def run_some(
        self,
        by_key: Mapping[Key, Document],
        entered: Mapping[str, Mapping[str, AbstractSet[str]]],
        holder: Callable[[User], str | None],
    ) -> list[DocumentError]:
        self._by_key, self._entered = by_key, entered
        self._check_each()
        for document in self._documents:
            if isinstance(document, User) and (other := holder(document)) is not None:
                self._report_subject(document, other)
        self._check_circles(self._groups_below())
        return self._errors

    def _groups_below(self) -> Iterator[Group]:
        """The groups among the documents, and those that they reach."""
        waiting = [document for document in self._documents if isinstance(document, Group) and document.groups]
        seen: set[str] = set()
        while waiting:
            group = waiting.pop()
            if group.name not in seen:
                seen.add(group.name)
                yield group
                inner = (self._by_key.get(("group", name)) for name in group.groups)
                waiting.extend(one for one in inner if isinstance(one, Group))

    def _check_each(self) -> None:
        for document in self._documents:
            match document:
                case Segment():
                    self._check_segment(document)
                case Rule():
                    self._check_rule(document)
                case Group():
                    self._check_group(document)
                case Workload():
                    self._check_workload(document)
                case TokenIssuer(connectors=connectors) if connectors is not None:
                    self._check_names(document, "connector-group", (connectors.group,), ("connectors", "group"))
                case _:
                    pass

    def _check_subjects(self) -> None:
        holders: dict[tuple[str, str], str] = {}
        for document in self._documents:
            if isinstance(document, User):
                other = holders.setdefault(document.key, document.name)
                if other != document.name:
                    self._report_subject(document, other)

    def _report_subject(self, user: User, other: str) -> None:
        message = f"the users `{other}` and `{user.name}` have the same issuer and subject: one person is one user"
        self._report(Code.DOCUMENT_MALFORMED, message, user, ("subject",))

    def _check_segment(self, segment: Segment) -> None:
        self._check_names(segment, "connector-group", segment.groups, ("groups",))
        groups = [
            group for name in segment.groups if isinstance(group := self._by_key.get(("connector-group", name)), ConnectorGroup)
        ]
        for at, host in enumerate(segment.hosts):
            for group in groups:
                if not may_claim(group, host):
                    message = f"the connector group `{group.name}` may not claim `{host}`: {_remedy(group, host)}"
                    self._report(Code.NOT_AUTHORISED, message, segment, ("hosts", at))
            why = forbidden_host(host)
            if why is not None and not is_spelled_out(segment, host):
                message = f"`{host}` is forbidden ({why}): no segment may reach it unless `allow` spells the address out"
                self._report(Code.ADDRESS_FORBIDDEN, message, segment, ("hosts", at))

    def _check_rule(self, rule: Rule) -> None:
        self._check_names(rule, "user", rule.who.users, ("who", "users"))
        self._check_names(rule, "group", rule.who.groups, ("who", "groups"))
        self._check_names(rule, "workload", rule.who.workloads, ("who", "workloads"))
        self._check_names(rule, "workload", rule.who.via, ("who", "via"))
        self._check_names(rule, "segment", rule.what.segments, ("what", "segments"))
        if rule.approval is not None:
            self._check_names(rule, "group", rule.approval.approvers, ("approval", "approvers"))
        if rule.when is not None:
            self._check_names(rule, "network", rule.when.networks, ("when", "networks"))
            self._check_names(rule, "posture-profile", rule.when.profiles, ("when", "profiles"))
            self._check_names(rule, "identity-provider", rule.when.issuers, ("when", "issuers"), given=frozenset({"local"}))

    def _check_group(self, group: Group) -> None:
        entered = self._entered.get(group.name)
        for kind, field in (("user", "users"), ("workload", "workloads"), ("group", "groups")):
            self._check_names(group, kind, getattr(group, field) if entered is None else entered[kind], (field,))

    def _check_workload(self, workload: Workload) -> None:
        """An issuer that is `local` or written as a URL may have no document: then no token speaks for the workload, only a provisioning key."""
        if workload.issuer == LOCAL and not workload.claims:
            return
        if self._issuers is None:
            self._issuers = [self._by_key[key] for key in self._by_key if key[0] == "token-issuer"]
        found = issuers_of(workload, self._issuers)
        if len(found) > 1:
            message = (
                f"several token issuers say `{workload.issuer}` of themselves: name one by its document, such as `{found[0].name}`"
            )
            self._report(Code.REFERENCE_UNKNOWN, message, workload, ("issuer",))
        elif not found and ("/" not in workload.issuer or workload.claims):
            message = f"there is no token issuer `{workload.issuer}`"
            self._report(Code.REFERENCE_UNKNOWN, message, workload, ("issuer",))
        elif found and (why := why_too_wide(workload, found[0].type)) is not None:
            self._report(Code.DOCUMENT_MALFORMED, why, workload, ("claims",))

    def _check_names(
        self, document: Document, kind: str, names: Iterable[str], path: Path, given: frozenset[str] = frozenset()
    ) -> None:
        """`given` are names that need no document."""
        for at, name in enumerate(names):
            if (kind, name) not in self._by_key and name not in given:
                message = f"there is no {kind.replace('-', ' ')} `{name}`"
                self._report(Code.REFERENCE_UNKNOWN, message, document, (*path, at))

    def _check_circles(self, among: Iterable[Group]) -> None:
        groups = {document.name: document for document in among}
        for circle in find_circles({name: group.groups for name, group in groups.items()}):
            way = " → ".join(f"`{name}`" for name in (*circle, circle[0]))
            self._report(
                Code.DOCUMENT_MALFORMED, f"groups are members of each other in a circle: {way}", groups[circle[0]], ("groups",)
            )

    def _check_ties(self) -> None:
        segments = {document.name: document for document in self._documents if isinstance(document, Segment)}
        for tie in find_ties(segments.values()):
            where = f"`{tie.witness.host}` port `{tie.witness.port}` ({tie.witness.protocol})"
            message = (
                f"the segments `{tie.first}` and `{tie.second}` claim {where} equally: make the host or ports of one more specific"
            )
            self._report(Code.DOCUMENT_TIE, message, segments[tie.second], ("hosts",))

    def _report(self, code: Code, message: str, document: Document, path: Path) -> None:
        title = f"{document.kind} {document.name}"
        origin = self._origins.get((document.kind, document.name))
        error = (
            DocumentError(code, message, document=title, path=path) if origin is None else origin.error(code, message, title, path)
        )
        self._errors.append(error)


def issuers_of(workload: Workload, documents: Iterable[Document]) -> list[TokenIssuer]:
    """The token issuers that a workload's `issuer` speaks of; a document's name is never what a token says in `iss`."""
    issuers = (document for document in documents if isinstance(document, TokenIssuer))
    return [issuer for issuer in issuers if workload.issuer in (issuer.name, issuer.issuer)]


def may_claim(group: ConnectorGroup, pattern: str) -> bool:
    """Whether segments of this group may have this host: a name at or below a suffix (`*`: any name), an address inside a network."""
    address = address_of(pattern)
    if address is not None:
        return any(address in ipaddress.ip_network(network) for network in group.networks)
    name = pattern.removeprefix("*.")
    return any(suffix in {"*", name} or name.endswith(f".{suffix}") for suffix in group.suffixes)


def is_spelled_out(segment: Segment, host: str) -> bool:
    """Whether `allow` names this forbidden host: an address by a network that holds it, a name by any (its addresses are judged when dialled)."""
    address = address_of(host)
    if address is None:
        return bool(segment.allow)
    return any(address in ipaddress.ip_network(network) for network in segment.allow)


def _remedy(group: ConnectorGroup, host: str) -> str:
    if address_of(host) is not None:
        return f"add a network that holds it to `networks` of `{group.name}`"
    return f"add its suffix to `suffixes` of `{group.name}`"


def find_circles(members: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, ...]]:
    """Each circle of a directed graph that depth-first search meets, as the way around; without recursion."""
    done: set[str] = set()
    for start in members:
        way: list[str] = []
        on_way: set[str] = set()
        waiting: list[tuple[str, bool]] = [(start, True)]
        while waiting:
            name, entering = waiting.pop()
            if not entering:
                way.pop()
                on_way.discard(name)
                done.add(name)
            elif name in on_way:
                yield tuple(way[way.index(name) :])
            elif name not in done:
                way.append(name)
                on_way.add(name)
                waiting.append((name, False))
                waiting.extend((member, True) for member in members.get(name, ()) if member not in done)
