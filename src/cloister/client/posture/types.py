"""Facts as they are collected."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Group = Literal["watched", "plain", "updates"]
"""What is looked at together: `watched` what profiles name, every few seconds; `plain` the state of the system, every half minute; `updates` what costs
seconds to find out, every quarter of an hour."""

GROUPS: tuple[Group, ...] = ("watched", "plain", "updates")


@dataclass(frozen=True, slots=True)
class Collected:
    """Facts by name, and why others could not be read. What is unreadable is not reported."""

    facts: Mapping[str, str] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)


class Unreadable(Exception):
    """The fact cannot be known here; the text says why, in a few words."""
