"""How often a secret may be guessed: failures per account, per source and in all, in fixed windows. A machine without I/O.

A window ends by itself, so nobody is ever locked out for good; and successes are not counted, so a guesser cannot use up what the
owner needs from another address beyond the account's own window.
"""

import functools
import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field

WINDOW_SECONDS = 60
MAX_TRACKED = 10_000


@functools.lru_cache(MAX_TRACKED)
def group_of(source: str) -> str:
    """What counts as one source, here as at the public port: an IPv4 address, or the /64 that one IPv6 host is usually given."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)


@dataclass(slots=True)
class _Window:
    started: float
    count: int = 0

    def is_over(self, now: float) -> bool:
        """A clock that was set back prolongs none."""
        return abs(now - self.started) >= WINDOW_SECONDS


@dataclass(slots=True)
class Counter:
    """Events per key and window, at most `limit` of them; the least recent keys are forgotten beyond `MAX_TRACKED`."""

    limit: int
    _windows: OrderedDict[str, _Window] = field(default_factory=OrderedDict)

    def allows(self, key: str, now: float) -> bool:
        window = self._windows.get(key)
        return window is None or window.is_over(now) or window.count < self.limit

    def add(self, key: str, now: float) -> None:
        window = self._windows.get(key)
        if window is None or window.is_over(now):
            window = self._windows[key] = _Window(now)
        window.count += 1
        self._windows.move_to_end(key)
        while len(self._windows) > MAX_TRACKED:
            self._windows.popitem(last=False)


class Attempts:
    """The three counters together. Ask before hashing, report a failure after."""

    def __init__(self, per_account: int, per_source: int, in_all: int) -> None:
        self._account, self._source, self._all = Counter(per_account), Counter(per_source), Counter(in_all)

    def allows(self, account: str, source: str, now: float) -> bool:
        return self._account.allows(account, now) and self._source.allows(group_of(source), now) and self._all.allows("", now)

    def failed(self, account: str, source: str, now: float) -> None:
        self._account.add(account, now)
        self._source.add(group_of(source), now)
        self._all.add("", now)


class Noting:
    """Which refusals of strangers are written down: so many of one source in a window, and so many in all. Whoever is refused faster than anybody could read
    would push everything else out of the audit.
    """

    def __init__(self, per_source: int, in_all: int) -> None:
        self._source, self._all = Counter(per_source), Counter(in_all)

    def detail(self, source: str, now: float) -> dict[str, object] | None:
        """What belongs to the entry, None if it is not written. The last one that is says that more may follow unseen."""
        source = group_of(source)
        if not self._source.allows(source, now) or not self._all.allows("", now):
            return None
        self._source.add(source, now)
        self._all.add("", now)
        is_last = not self._source.allows(source, now) or not self._all.allows("", now)
        return {"more": f"refusals are not written down for up to {WINDOW_SECONDS} s"} if is_last else {}
