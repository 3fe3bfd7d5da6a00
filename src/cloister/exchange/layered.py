"""A mapping that shares most of itself with the one that it was made from: a change of a few keys of ten thousand costs these few."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_LAYER = 512  # changed keys before the layers become one dict again
_GONE: Any = object()
_ABSENT: Any = object()


class Layered(Mapping[K, V]):
    """Changed by `put` and `drop` while it is made, by nobody afterwards."""

    def __init__(self, old: Mapping[K, V]) -> None:
        self._base: Mapping[K, V] = old
        self._top: dict[K, V] = {}
        self._count = len(old)
        if isinstance(old, Layered):
            self._base, self._top = old.layers()

    def layers(self) -> tuple[Mapping[K, V], dict[K, V]]:
        """What lies below, and a copy of what has changed since."""
        if len(self._top) <= MAX_LAYER:
            return self._base, dict(self._top)
        merged = dict(self._base)
        for key, value in self._top.items():
            if value is _GONE:
                merged.pop(key, None)
            else:
                merged[key] = value
        return merged, {}

    def put(self, key: K, value: V) -> None:
        self._count += key not in self
        self._top[key] = value

    def drop(self, key: K) -> None:
        if key in self:
            self._count -= 1
            self._top[key] = _GONE

    def __getitem__(self, key: K) -> V:
        found: V = self._top.get(key, _ABSENT)
        if found is _ABSENT:
            return self._base[key]
        if found is _GONE:
            raise KeyError(key)
        return found

    def __contains__(self, key: Any) -> bool:
        found = self._top.get(key, _ABSENT)
        return key in self._base if found is _ABSENT else found is not _GONE

    def __iter__(self) -> Iterator[K]:
        top = self._top
        yield from (key for key in self._base if key not in top)
        yield from (key for key, value in top.items() if value is not _GONE)

    def __len__(self) -> int:
        return self._count
