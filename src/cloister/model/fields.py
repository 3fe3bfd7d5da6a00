"""The fields of documents: names, labels, hosts, ports, times. Each is parsed into its one canonical form, and says what it expects."""

import ipaddress
import itertools
import zoneinfo
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, StringConstraints

from cloister.model.durations import parse_duration, print_duration
from cloister.model.hosts import Host, HostPattern, address_of, parse_host, parse_pattern, shown
from cloister.model.ports import PortRange, parse_ports

T = TypeVar("T")

MAX_LIST = 256  # entries of one list in a document
MAX_LABELS = 32

NAME = r"^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$"
USER_NAME = r"^[a-z0-9](?:[a-z0-9._@+-]{0,126}[a-z0-9])?$"
LABEL_KEY = r"^[a-z0-9](?:[a-z0-9._/-]{0,61}[a-z0-9])?$"
LABEL_VALUE = r"^[A-Za-z0-9](?:[A-Za-z0-9._@+:/-]{0,126}[A-Za-z0-9])?$"
CLOCK = r"^(?:[01][0-9]|2[0-3]):[0-5][0-9]$"
ZONE = r"^[A-Za-z][A-Za-z0-9_+-]{0,31}(?:/[A-Za-z0-9_+-]{1,32}){0,2}$"
INSTANT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"
FORMS: Mapping[str, str] = MappingProxyType(
    {
        NAME: "a name: 1 to 63 of `a-z 0-9 . _ -`, beginning and ending with a letter or digit",
        USER_NAME: "the name of a user or group: 1 to 128 of `a-z 0-9 . _ @ + -`, beginning and ending with a letter or digit",
        LABEL_KEY: "a label key: 1 to 63 of `a-z 0-9 . _ / -`, beginning and ending with a letter or digit",
        LABEL_VALUE: "a label value: 1 to 128 of `A-Z a-z 0-9 . _ @ + : / -`, beginning and ending with a letter or digit",
        CLOCK: "a time of day, such as `09:00`",
        ZONE: "a time zone, such as `Europe/Berlin`",
        INSTANT: "a date and time in UTC, such as `2026-12-31T18:00:00Z`",
    }
)
"""What each pattern means, for messages."""

Name = Annotated[str, StringConstraints(pattern=NAME)]
UserName = Annotated[str, StringConstraints(pattern=USER_NAME)]
LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE)]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a text is one line of printable characters")
    return text


def distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    seen: set[T] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"`{value}` is listed twice")
        seen.add(value)
    return values


def apart(ranges: tuple[PortRange, ...]) -> tuple[PortRange, ...]:
    ordered = sorted(ranges)
    for left, right in itertools.pairwise(ordered):
        if left.meets(right):
            raise ValueError(f"the ranges `{left}` and `{right}` overlap: write them as one")
    return ranges


def _text(value: object, example: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"this is text in quotes, such as `{example}`")  # noqa: TRY004 (pydantic reports ValueError only)
    return value


def _network(value: object) -> str:
    text = _text(value, "10.20.0.0/16")
    if "%" in text:
        raise ValueError(f"`{shown(text)}` has a zone: an interface of one machine means nothing on another")
    try:
        return str(ipaddress.ip_network(text, strict=True))
    except ValueError as error:
        raise ValueError(f"`{shown(text)}` is no address or network: {error}") from None


def _exception(value: object) -> str:
    network = ipaddress.ip_network(_network(value))
    narrowest = 24 if network.version == 4 else 64
    if network.prefixlen < narrowest:
        raise ValueError(f"`{network}` is too wide for `allow`: spell out addresses, or networks of `/{narrowest}` and narrower")
    return str(network)


def _suffix(value: object) -> str:
    text = _text(value, "lab.internal")
    if text == "*":
        return text
    suffix = parse_host(text)
    if address_of(suffix) is not None:
        raise ValueError(f"`{suffix}` is an address: list it under `networks`")
    return suffix


def in_order(value: Mapping[str, str]) -> Mapping[str, str]:
    return dict(sorted(value.items()))


def _host(value: object) -> str:
    return parse_host(_text(value, "jupyter.lab.internal"))


def _pattern(value: object) -> str:
    return parse_pattern(_text(value, "jupyter.lab.internal"))


def _instant(text: str) -> str:
    try:
        datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        raise ValueError(f"`{text}` is no date and time: write `2026-12-31T18:00:00Z`") from None
    return text


def _zone(name: str) -> str:
    """Names of the IANA time zone database (RFC 6557). Looked up, never taken as a path: the grammar has no dots."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"`{name}` is no time zone: write a name such as `Europe/Berlin`, or `UTC`") from None
    return name


Line = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_printable)]
HostField = Annotated[Host, BeforeValidator(_host)]
HostPatternField = Annotated[HostPattern, BeforeValidator(_pattern)]
NetworkField = Annotated[str, BeforeValidator(_network)]
ExceptionField = Annotated[str, BeforeValidator(_exception)]
SuffixField = Annotated[str, BeforeValidator(_suffix)]
Duration = Annotated[int, BeforeValidator(parse_duration), PlainSerializer(print_duration, when_used="json")]
PortsField = Annotated[
    PortRange,
    BeforeValidator(parse_ports),
    PlainSerializer(lambda ports: ports.first if ports.first == ports.last else str(ports), when_used="json"),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Labels = Annotated[
    Mapping[LabelKey, LabelValue],
    Field(max_length=MAX_LABELS),
    AfterValidator(in_order),
    PlainSerializer(dict, return_type=dict[str, str]),
]
Names = Annotated[tuple[Name, ...], Field(max_length=MAX_LIST), AfterValidator(distinct)]
UserNames = Annotated[tuple[UserName, ...], Field(max_length=MAX_LIST), AfterValidator(distinct)]
Yes = Literal[True]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Clock = Annotated[str, StringConstraints(pattern=CLOCK)]
Zone = Annotated[str, StringConstraints(pattern=ZONE), AfterValidator(_zone)]
Instant = Annotated[
    str,
    StringConstraints(pattern=INSTANT),
    AfterValidator(_instant),
]
