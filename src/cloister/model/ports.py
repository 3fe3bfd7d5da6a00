"""Port ranges: written `8888` or `9000-9010`, both ends included."""

import re
from dataclasses import dataclass

MAX_PORT = 65535
_RANGE = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    @property
    def width(self) -> int:
        return self.last - self.first + 1

    def meets(self, other: "PortRange") -> bool:
        return self.first <= other.last and other.first <= self.last


class PortError(ValueError):
    """The value is no port or range of ports; the message says why."""


def parse_ports(value: object) -> PortRange:
    """A range from `8888`, `"8888"` or `"9000-9010"`; raises `PortError`."""
    if isinstance(value, PortRange):
        first, last = value.first, value.last
    elif isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    elif isinstance(value, str) and (match := _RANGE.fullmatch(value)):
        first = int(match[1])
        last = int(match[2]) if match[2] else first
    else:
        raise PortError(f"`{str(value)[:40]}` is no port: write a number such as `8888` or a range such as `9000-9010`")
    for port in (first, last):
        if not 1 <= port <= MAX_PORT:
            raise PortError(f"port `{port}` does not exist: ports are 1 to {MAX_PORT}")
    if first > last:
        raise PortError(f"the range `{first}-{last}` is reversed: write `{last}-{first}`")
    return PortRange(first, last)
