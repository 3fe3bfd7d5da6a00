"""Which resource belongs to which directory: a copy of committed state, by every handle that requests use. A machine without I/O."""

from collections.abc import Iterable, Mapping

from cloister.store.types import Directory, ScimEntry, ScimKind

Name = tuple[str, str]  # kind and name of a document


class DirectoryBook:
    """Directories and entries by id, by canonical name and by external id; names that are used up, with the directory that had them."""

    def __init__(
        self,
        directories: Iterable[Directory] = (),
        entries: Iterable[ScimEntry] = (),
        retired: Mapping[Name, str] | None = None,
    ) -> None:
        self.directories = {directory.id: directory for directory in directories}
        self.retired: dict[Name, str] = dict(retired or {})
        self._entries: dict[str, ScimEntry] = {}
        self._by_key: dict[tuple[str, ScimKind, str], str] = {}
        self._by_external: dict[tuple[str, ScimKind, str], dict[str, None]] = {}
        self._of: dict[tuple[str, ScimKind], dict[str, None]] = {}
        for entry in entries:
            self.put(entry)

    def named(self, name: str) -> Directory | None:
        return next((directory for directory in self.directories.values() if directory.name == name), None)

    def get(self, id: str) -> ScimEntry | None:
        return self._entries.get(id)

    def find(self, directory: str, kind: ScimKind, id: str) -> ScimEntry | None:
        """The entry, if it is this directory's and of this kind."""
        entry = self._entries.get(id)
        return entry if entry is not None and (entry.directory, entry.kind) == (directory, kind) else None

    def owns(self, directory: str, id: str) -> bool:
        entry = self._entries.get(id)
        return entry is not None and entry.directory == directory

    def by_key(self, directory: str, kind: ScimKind, key: str) -> str | None:
        return self._by_key.get((directory, kind, key))

    def by_external(self, directory: str, kind: ScimKind, external_id: str) -> list[str]:
        return list(self._by_external.get((directory, kind, external_id), ()))

    def ids(self, directory: str, kind: ScimKind) -> list[str]:
        """In the order in which they were made."""
        return list(self._of.get((directory, kind), ()))

    def count(self, directory: str, kind: ScimKind) -> int:
        return len(self._of.get((directory, kind), ()))

    def put(self, entry: ScimEntry) -> None:
        known = self._entries.get(entry.id)
        if known is not None:
            self._forget_names(known)
        self._entries[entry.id] = entry
        self._of.setdefault((entry.directory, entry.kind), {})[entry.id] = None
        self._by_key[entry.directory, entry.kind, entry.key] = entry.id
        if entry.external_id is not None:
            self._by_external.setdefault((entry.directory, entry.kind, entry.external_id), {})[entry.id] = None

    def drop(self, id: str) -> None:
        entry = self._entries.pop(id, None)
        if entry is not None:
            self._forget_names(entry)
            self._of[entry.directory, entry.kind].pop(id, None)

    def _forget_names(self, entry: ScimEntry) -> None:
        self._by_key.pop((entry.directory, entry.kind, entry.key), None)
        if entry.external_id is not None:
            place = (entry.directory, entry.kind, entry.external_id)
            ids = self._by_external.get(place, {})
            ids.pop(entry.id, None)
            if not ids:
                self._by_external.pop(place, None)
