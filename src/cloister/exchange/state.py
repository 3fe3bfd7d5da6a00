"""What the exchange knows, in memory: a copy of committed state. Only `changes.py` and enrolment replace parts of it, after their commit."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cloister.exchange.devices.places import Places
from cloister.exchange.scim.book import DirectoryBook
from cloister.identity.posture.places import NetworkIndex
from cloister.identity.tokens.rotation import ClusterKey
from cloister.model.documents import ConnectorGroup, Document, Group, Segment, User
from cloister.model.facts import Membership
from cloister.model.ids import Generation
from cloister.model.parse import parse_fields
from cloister.model.posture import Network, PostureProfile
from cloister.policy.compile import CompiledPolicy, compile_policy
from cloister.store import agents as agent_rows
from cloister.store import directories as directory_rows
from cloister.store import documents as document_rows
from cloister.store import evidence as evidence_rows
from cloister.store import programs as program_rows
from cloister.store import requests as request_rows
from cloister.store import sessions as session_rows
from cloister.store.service import Store, read_generation
from cloister.store.types import (
    AccessRequest,
    Account,
    Agent,
    ClusterKeyRow,
    Delegation,
    EvidenceRow,
    KillSwitch,
    StoredDocument,
    Subject,
)
from cloister.trust.keyring import Keyring

GENERATION_BLOCK = 1 << 16


class Generations:
    """The numbers of states: of committed changes, snapshots and revocations. They come from blocks that are reserved in the store, so that
    none is ever used twice, whatever happens to the process."""

    def __init__(self, reserve: Callable[[int], int]) -> None:
        self._reserve = reserve
        self._end = reserve(GENERATION_BLOCK)
        self.current = self._end - GENERATION_BLOCK + 1

    def advance(self) -> int:
        """The next number of this block."""
        if self.current >= self._end:
            self._end = self._reserve(GENERATION_BLOCK)
            self.current = self._end - GENERATION_BLOCK
        self.current += 1
        return self.current


@dataclass(frozen=True, slots=True)
class Library:
    """One consistent set of documents: as stored, as parsed, and compiled. Replaced as a whole."""

    documents: Mapping[str, StoredDocument]
    parsed: Mapping[str, Document]
    names: Mapping[tuple[str, str], str]
    membership: Membership
    policy: CompiledPolicy
    subjects: Mapping[tuple[str, str], str]  # issuer and subject of users → id
    referers: Mapping[str, Document]  # what may name other documents, apart from groups: by id
    profiles: tuple[PostureProfile, ...]
    networks: NetworkIndex


def make_library(documents: Iterable[StoredDocument], generation: int, old: Library | None = None) -> Library:
    """Parse and compile; what `old` has already and has not changed is taken from it. Slow for large sets: call it in a thread."""
    stored = {document.id: document for document in documents}
    parsed = {id: parse_row(document, old) for id, document in stored.items()}
    kinds = None if old is None else changed_kinds(old.documents, stored)
    return Library(
        documents=stored,
        parsed=parsed,
        names={(document.kind, document.name): id for id, document in stored.items()},
        membership=_membership(parsed) if old is None or kinds is None or "group" in kinds else old.membership,
        policy=compile_policy(parsed, generation)
        if old is None or kinds is None or kinds & COMPILED
        else policy_at(old.policy, generation),
        subjects={document.key: id for id, document in parsed.items() if isinstance(document, User)},
        referers={id: document for id, document in parsed.items() if document.kind not in NAMED_ONLY},
        profiles=_profiles(parsed) if old is None or kinds is None or "posture-profile" in kinds else old.profiles,
        networks=_networks(parsed) if old is None or kinds is None or "network" in kinds else old.networks,
    )


NAMED_ONLY = frozenset({"user", "workload", "device", "group"})
"""Kinds that refer to nothing, and groups, whose members `Membership` knows by name."""


COMPILED = frozenset({"segment", "rule", "connector-group"})
"""The kinds of document that a compiled policy is made of, or that are checked with it."""


def changed_kinds(old: Mapping[str, StoredDocument], new: Mapping[str, StoredDocument]) -> set[str]:
    gone = {document.kind for id, document in old.items() if id not in new}
    return gone | {document.kind for id, document in new.items() if old.get(id) is not document}


def parse_row(document: StoredDocument, old: Library | None) -> Document:
    known = None if old is None or old.documents.get(document.id) is not document else old.parsed.get(document.id)
    return known or parse_fields(document.fields)


def _membership(parsed: Mapping[str, Document]) -> Membership:
    return Membership(document for document in parsed.values() if isinstance(document, Group))


def _profiles(parsed: Mapping[str, Document]) -> tuple[PostureProfile, ...]:
    found = [document for document in parsed.values() if isinstance(document, PostureProfile)]
    return tuple(sorted(found, key=lambda profile: profile.name))


def _networks(parsed: Mapping[str, Document]) -> NetworkIndex:
    return NetworkIndex(document for document in parsed.values() if isinstance(document, Network))


def policy_at(policy: CompiledPolicy, generation: int) -> CompiledPolicy:
    """The same policy as part of a later state."""
    later = copy.copy(policy)
    later.generation = Generation(generation)
    return later


class EvidenceSet:
    """Facts by subject, then by (source, name)."""

    def __init__(self, rows: Iterable[EvidenceRow] = ()) -> None:
        self._of: dict[Subject, dict[tuple[str, str], EvidenceRow]] = {}
        self._changes: Counter[Subject] = Counter()
        for row in rows:
            self.replace(row.subject, (row,), ())

    def of(self, subject: Subject) -> Mapping[tuple[str, str], EvidenceRow]:
        return self._of.get(subject, _NOTHING)

    def replace(self, subject: Subject, rows: Iterable[EvidenceRow], gone: Iterable[tuple[str, str]]) -> None:
        self._changes[subject] += 1
        known = self._of.setdefault(subject, {})
        for key in gone:
            known.pop(key, None)
        known.update(((row.source, row.name), row) for row in rows)
        if not known:
            self._of.pop(subject, None)

    def changes_of(self, subject: Subject) -> int:
        """A number that is another one whenever something about this subject has changed."""
        return self._changes[subject]

    def drop(self, subject: Subject) -> None:
        self._changes[subject] += 1
        self._of.pop(subject, None)


_NOTHING: Mapping[tuple[str, str], EvidenceRow] = {}


class RequestSet:
    """Requests for access by id, and by who asked: every decision looks for those of its principal."""

    def __init__(self, requests: Iterable[AccessRequest] = ()) -> None:
        self._by_id: dict[str, AccessRequest] = {}
        self._of: dict[str, dict[str, AccessRequest]] = {}
        for request in requests:
            self.put(request)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[AccessRequest]:
        return iter(self._by_id.values())

    def get(self, id: str) -> AccessRequest | None:
        return self._by_id.get(id)

    def of(self, principal: str) -> list[AccessRequest]:
        return list(self._of.get(principal, {}).values())

    def put(self, request: AccessRequest) -> None:
        """In place of what was known under its id; who asked never changes."""
        self._by_id[request.id] = request
        self._of.setdefault(request.principal, {})[request.id] = request

    def drop(self, ids: Iterable[str]) -> None:
        for id in ids:
            request = self._by_id.pop(id, None)
            if request is None:
                continue
            mine = self._of[request.principal]
            del mine[id]
            if not mine:
                del self._of[request.principal]


@dataclass(frozen=True, slots=True)
class Judged:
    """What evidence says of one client's device, and what it was made of: valid while that is the same, from `at` until before `until`."""

    basis: tuple[object, ...]
    at: int
    until: int | None
    posture: Mapping[str, str]
    profiles: frozenset[str]
    shortfalls: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reported:
    """The keys of a cluster as its connectors told them, by thumbprint, while the document lists those of `basis`."""

    basis: str
    keys: Mapping[str, ClusterKey]


@dataclass(slots=True)
class State:
    """Documents, accounts, agents, kill switches and delegations by id, evidence, and the keyring."""

    keyring: Keyring
    library: Library
    address: str = ""  # `host:port` that agents dial
    accounts: dict[str, Account] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    kill_switches: dict[str, KillSwitch] = field(default_factory=dict)
    evidence: EvidenceSet = field(default_factory=EvidenceSet)
    requests: RequestSet = field(default_factory=RequestSet)
    directories: DirectoryBook = field(default_factory=DirectoryBook)
    delegations: dict[str, Delegation] = field(default_factory=dict)
    cluster_keys: dict[str, Reported] = field(default_factory=dict)  # by token issuer
    places: Places = field(default_factory=Places)
    judged: dict[str, Judged] = field(default_factory=dict)  # by client: what `facts` made of the evidence

    @property
    def documents(self) -> Mapping[str, StoredDocument]:
        return self.library.documents

    @property
    def parsed(self) -> Mapping[str, Document]:
        return self.library.parsed

    @property
    def policy(self) -> CompiledPolicy:
        return self.library.policy

    @property
    def membership(self) -> Membership:
        return self.library.membership

    def segments(self) -> dict[str, Segment]:
        return {id: document for id, document in self.library.referers.items() if isinstance(document, Segment)}

    def group_ids(self, segment: Segment) -> set[str]:
        """Ids of the connector groups that serve a segment."""
        return {id for name in segment.groups if (id := self.library.names.get(("connector-group", name)))}

    def suffixes(self) -> set[str]:
        """The name suffixes that connector groups may claim."""
        groups = (document for document in self.library.referers.values() if isinstance(document, ConnectorGroup))
        return {suffix for group in groups for suffix in group.suffixes if suffix != "*"}

    def find(self, kind: str, name: str) -> StoredDocument | None:
        id = self.library.names.get((kind, name))
        return None if id is None else self.documents[id]

    def find_user(self, issuer: str, subject: str) -> StoredDocument | None:
        """The one user with this key."""
        id = self.library.subjects.get((issuer, subject))
        return None if id is None else self.documents[id]

    def name_of(self, id: str | None) -> str:
        """The name of a document, empty if it is gone."""
        document = self.documents.get(id or "")
        return "" if document is None else document.name

    def is_switched_off(self, connector: Agent) -> bool:
        """Whether a kill switch aims at this connector or at its group."""
        aims = {switch.target for switch in self.kill_switches.values() if switch.scope in ("agent", "connector-group")}
        return bool(aims) and (connector.id in aims or connector.connector_group in aims)

    def is_served(self, agent: Agent) -> bool:
        """Whether the principal, and the program that acts for it if there is one, are still there and not disabled."""
        return self.is_active_principal(agent.principal) and self.is_active_principal(agent.actor)

    def is_active_principal(self, id: str | None) -> bool:
        """Whether this user or workload exists and is not disabled; True for agents without one."""
        if id is None:
            return True
        document = self.documents.get(id)
        return document is not None and document.fields.get("disabled") is not True


def _reported(rows: Iterable[ClusterKeyRow]) -> dict[str, Reported]:
    found: dict[str, dict[str, ClusterKey]] = {}
    basis: dict[str, str] = {}
    for row in rows:
        found.setdefault(row.issuer, {})[row.thumbprint] = ClusterKey(row.thumbprint, row.jwk, row.retired_at)
        basis[row.issuer] = row.basis
    return {issuer: Reported(basis[issuer], keys) for issuer, keys in found.items()}


def load_state(store: Store, keyring: Keyring) -> State:
    with store.read() as connection:
        return State(
            keyring=keyring,
            library=make_library(document_rows.list_documents(connection), read_generation(connection)),
            accounts={account.user: account for account in document_rows.list_accounts(connection)},
            agents={agent.id: agent for agent in agent_rows.list_agents(connection)},
            kill_switches={switch.id: switch for switch in session_rows.list_kill_switches(connection)},
            evidence=EvidenceSet(evidence_rows.list_evidence(connection)),
            requests=RequestSet(request_rows.list_requests(connection)),
            directories=DirectoryBook(
                directory_rows.list_directories(connection),
                directory_rows.list_entries(connection),
                directory_rows.list_retired(connection),
            ),
            delegations={delegation.id: delegation for delegation in program_rows.list_delegations(connection)},
            cluster_keys=_reported(program_rows.list_cluster_keys(connection)),
        )
