"""What devices are asked to be: posture profiles, and the facts that clients report of themselves. Named networks stand beside them.

A fact is a name, one line of text, and when it was observed. Clients report facts under the names of `FACTS` and, where a profile asks for it, of
processes, files and certificates (`fact_of`). Nothing here says that a fact is true: see docs/identity/posture.md.
"""

import functools
import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainSerializer, StringConstraints, model_validator

from cloister.model.fields import MAX_LIST, Duration, LabelKey, Labels, Line, Name, NetworkField, distinct
from cloister.model.part import Part

OWN_REPORT: Final = "client"
"""The source of what a client says of its own device."""

OWNER: Final = "owner"
"""The one fact that the exchange itself knows: whether the device document's owner is the principal. No client can report it."""

OWN_KINDS: Final = frozenset({"process", "file", "certificate"})
"""What may stand before a `/` in the name of a fact that a client reports. Rules call facts from outside `source/name`: these are no sources."""

DEFAULT_AGE: Final = 600  # seconds for which a fact counts unless something else is said
MAX_AGE: Final = 7 * 86400
MAX_REQUIREMENTS: Final = 64
MAX_FACT_NAME: Final = 256
MAX_FACT_VALUE: Final = 256
MAX_CERTIFICATE: Final = 16384

FACTS: Mapping[str, int] = MappingProxyType(
    {
        "client.version": DEFAULT_AGE,
        "disk.encrypted": DEFAULT_AGE,
        "firewall.enabled": DEFAULT_AGE,
        "machine.virtual": DEFAULT_AGE,
        "os.kernel": DEFAULT_AGE,
        "os.name": DEFAULT_AGE,
        "os.platform": DEFAULT_AGE,
        "os.version": DEFAULT_AGE,
        "screenlock.enabled": DEFAULT_AGE,
        "updates.security": 3600,
    }
)
"""What a client can say without being asked for anything in particular, and for how many seconds it counts by default."""

UPDATES: Final = "updates.security"
"""Costs seconds to find out: collected only where somebody asks for it."""

_PATH = r"^/[^\x00-\x1f\x7f]{1,199}$"
_NO_LABELS: Mapping[str, str] = {}


def default_age(fact: str) -> int:
    return FACTS.get(fact, DEFAULT_AGE)


def is_own_name(fact: str) -> bool:
    """Whether a client may report a fact under this name: not under one that rules read as the word of somebody else."""
    kind, slash, _ = fact.partition("/")
    return fact != OWNER and (not slash or kind in OWN_KINDS)


def _path(path: str) -> str:
    if posixpath.normpath(path) != path or path.startswith("//"):
        raise ValueError(f"`{path}` is not in its shortest form: write it without `.`, `..` and doubled `/`")
    if path.split("/")[1] in ("proc", "sys", "dev"):
        raise ValueError(f"`{path}` is no file on a disk: name one outside of `/proc`, `/sys` and `/dev`")
    return path


def _version(text: str) -> str:
    if read_version(text) is None:
        raise ValueError(f"`{text}` is no version: write numbers with dots, such as `12.5`")
    return text


FilePath = Annotated[str, StringConstraints(pattern=_PATH), AfterValidator(_path)]
ProcessName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, StringConstraints(max_length=64), AfterValidator(_version)]
FactText = Annotated[Line, StringConstraints(max_length=MAX_FACT_VALUE)]
Pem = Annotated[str, StringConstraints(max_length=MAX_CERTIFICATE, pattern=r"^-----BEGIN CERTIFICATE-----\n")]


class FileCheck(Part):
    """A regular file that exists, with this content if `sha256` is given."""

    path: FilePath
    sha256: Sha256 | None = None


class CertificateCheck(Part):
    """A PEM file whose first certificate is in force and chains to `ca` (PEM), over the others in the file if need be."""

    path: FilePath
    ca: Pem


def _truth(value: Any) -> Any:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else value


def _listed(value: Any) -> Any:
    """JSON has lists only, and what `_requirement` hands on is not JSON to pydantic any more."""
    return tuple(value) if isinstance(value, list) else value


MATCHERS: Final = ("is_", "one_of", "at_least", "at_most", "process", "file", "certificate")


class Requirement(Part):
    """What one fact must be: exactly one matcher. `source` says whose word counts: the client's own, or that of a named source from outside."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, populate_by_name=True)

    is_: Annotated[FactText | None, BeforeValidator(_truth), Field(alias="is")] = None
    one_of: Annotated[tuple[FactText, ...], BeforeValidator(_listed), Field(max_length=MAX_LIST), AfterValidator(distinct)] = ()
    at_least: Version | None = None
    at_most: Version | None = None
    process: ProcessName | None = None
    file: FileCheck | None = None
    certificate: CertificateCheck | None = None
    max_age: Annotated[Duration, Field(ge=30, le=MAX_AGE)] | None = None
    source: Annotated[Name, Field(alias="from")] = OWN_REPORT

    @model_validator(mode="after")
    def _has_one_matcher(self) -> "Requirement":
        if sum(bool(getattr(self, matcher)) for matcher in MATCHERS) != 1:
            raise ValueError(
                "a requirement has exactly one of `is`, `one_of`, `at_least`, `at_most`, `process`, `file`, `certificate`"
            )
        if self.source != OWN_REPORT and (self.process or self.file or self.certificate):
            raise ValueError("`process`, `file` and `certificate` are what clients look at: leave out `from`")
        return self


def _requirement(value: Any) -> Any:
    """`ubuntu` and `true` are short for `{is: …}`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f'facts are text: write `"{value}"`')  # noqa: TRY004 (pydantic reports ValueError only)
    return {"is": value} if isinstance(value, str | bool) else value


def _short(requirement: Requirement) -> Any:
    fields = requirement.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text = fields.get("is")
    if text in ("true", "false"):
        fields["is"] = text = text == "true"
    return text if list(fields) == ["is"] else fields


RequirementField = Annotated[Requirement, BeforeValidator(_requirement), PlainSerializer(_short, when_used="json")]


class PostureProfile(Part):
    """What a device must fulfil, all of it. The keys of `require` are names of facts; for processes, files and certificates they are names of your own."""

    kind: Literal["posture-profile"] = "posture-profile"
    name: Name
    labels: Labels = _NO_LABELS
    require: Annotated[Mapping[LabelKey, RequirementField], Field(min_length=1, max_length=MAX_REQUIREMENTS)]


class Network(Part):
    """A named network: addresses that the exchange sees clients come from."""

    kind: Literal["network"] = "network"
    name: Name
    labels: Labels = _NO_LABELS
    networks: Annotated[tuple[NetworkField, ...], Field(min_length=1, max_length=MAX_LIST), AfterValidator(distinct)]


# ------------------------------------------------------------------ what a client is asked to look at


def fact_of(key: str, requirement: Requirement) -> str:
    """The name under which the fact is reported that this requirement reads."""
    if requirement.process is not None:
        return f"process/{requirement.process}"
    if requirement.file is not None:
        return f"file/{requirement.file.path}"
    if requirement.certificate is not None:
        return f"certificate/{_digest(requirement.certificate.path, requirement.certificate.ca)}"
    return key


@functools.lru_cache(maxsize=1024)
def _digest(path: str, ca: str) -> str:
    return hashlib.sha256(f"{path}\n{ca}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything that a client looks at because a profile says so: by the name of the fact, and the facts that cost more than a moment."""

    processes: Mapping[str, str]
    files: Mapping[str, str]
    certificates: Mapping[str, CertificateCheck]
    facts: frozenset[str]
    shortest: int  # seconds: the shortest age up to which one of these facts counts

    def __bool__(self) -> bool:
        return bool(self.processes or self.files or self.certificates or self.facts)


MAX_ASKED: Final = 128  # processes, files and certificates, each


def asked_by(profiles: Iterable[PostureProfile], facts: Iterable[str] = ()) -> Asked:
    """`facts` are asked for by rules themselves. Beyond `MAX_ASKED` of a kind nothing is looked at: what is not reported fails."""
    processes: dict[str, str] = {}
    files: dict[str, str] = {}
    certificates: dict[str, CertificateCheck] = {}
    plain = set(facts)
    ages = [default_age(fact) for fact in plain]
    for profile in profiles:
        for key, requirement in profile.require.items():
            if requirement.source != OWN_REPORT or key == OWNER:
                continue
            fact = fact_of(key, requirement)
            ages.append(requirement.max_age or default_age(fact))
            if requirement.process is not None and len(processes) < MAX_ASKED:
                processes[fact] = requirement.process
            elif requirement.file is not None and len(files) < MAX_ASKED:
                files[fact] = requirement.file.path
            elif requirement.certificate is not None and len(certificates) < MAX_ASKED:
                certificates[fact] = requirement.certificate
            else:
                plain.add(fact)
    for fact in sorted(plain):
        kind, _, name = fact.partition("/")
        if kind == "process" and name and len(processes) < MAX_ASKED:
            processes[fact] = name
    return Asked(processes, files, certificates, frozenset(plain), min(ages, default=DEFAULT_AGE))


# ------------------------------------------------------------------ versions

_NUMBERS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,7}", re.ASCII)
_BEFORE = re.compile(r"[~._-]?(?:alpha|beta|pre|preview|rc|dev|a|b)\.?[0-9]{0,9}(?![a-z])", re.ASCII | re.IGNORECASE)


def read_version(text: str) -> tuple[tuple[int, ...], bool] | None:
    """The leading numbers (`6.8.0-41-generic`: 6, 8, 0; zeros at the end taken away), and whether it is a release rather than what comes before one.
    None if there is no number in front or more digits than any version has.
    """
    found = _NUMBERS.match(text)
    if found is None or text[found.end() : found.end() + 1].isdigit():
        return None
    numbers = [int(part) for part in found.group().split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers), _BEFORE.match(text, found.end()) is None
