"""Who is in the demo, what they may reach, and the documents that say so."""

from collections.abc import Mapping
from dataclasses import dataclass

from stage import DOMAIN, Place

GROUP = "lab"  # of connectors


@dataclass(frozen=True)
class Person:
    name: str
    group: str
    display: str


ADA = Person("ada", "data-science", "Ada")
BEN = Person("ben", "analysts", "Ben")
PEOPLE = (ADA, BEN)


@dataclass(frozen=True)
class Try:
    """One thing that everybody tries."""

    visit: str
    service: str
    tried: str
    by: frozenset[str]  # groups that may


TRIES = (
    Try("jupyter", "jupyter", "notebook: kernel over its WebSocket", frozenset({"data-science"})),
    Try("rest", "inference", "inference: REST", frozenset({"data-science", "analysts"})),
    Try("sse", "inference", "inference: chat words as they come (SSE)", frozenset({"data-science", "analysts"})),
    Try("grpc", "inference-grpc", "inference, other port: gRPC stream", frozenset({"data-science"})),
    Try("psql", "postgres", "database: psql", frozenset({"analysts"})),
    Try("chroma", "chroma", "vector database: nearest of two", frozenset({"data-science"})),
    Try("mlflow", "mlflow", "tracking server: run with an artifact", frozenset({"data-science"})),
)


def segments(places: Mapping[str, Place], *, loopback: bool) -> str:
    """A connector group and a segment per port. Loopback is where no segment leads unless it spells that out."""
    claim = "networks: [127.0.0.1/32]" if loopback else f"suffixes: [{DOMAIN}]"
    allow = "allow: [127.0.0.1/32]\n" if loopback else ""
    documents = [f"kind: connector-group\nname: {GROUP}\n{claim}\n"]
    for name, place in places.items():
        documents.append(f"kind: segment\nname: {name}\nhosts: [{place.host}]\nports: [{place.port}]\ngroups: [{GROUP}]\n{allow}")
    return "---\n".join(documents)


def rules(places: Mapping[str, Place]) -> str:
    """One rule per group of people: what the tries say they may."""
    documents = []
    for group in sorted({person.group for person in PEOPLE}):
        names = sorted({attempt.service for attempt in TRIES if group in attempt.by and attempt.service in places})
        documents.append(
            f"kind: rule\nname: {group}\neffect: permit\nwho: {{groups: [{group}]}}\nwhat: {{segments: [{', '.join(names)}]}}\n"
        )
    return "---\n".join(documents)


def membership(people: tuple[Person, ...] = PEOPLE, without: Person | None = None) -> str:
    """The groups with their members; `without` leaves one person out of theirs."""
    documents = []
    for person in people:
        members = "" if person == without else person.name
        documents.append(f"kind: group\nname: {person.group}\nusers: [{members}]\n")
    return "---\n".join(documents)
