"""The members of a group, as a set by id: a group of 10,000 is changed without a look at each."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from cloister.identity.scim.errors import invalid
from cloister.identity.scim.filter import Comparison, Filter
from cloister.identity.scim.match import matches_inner
from cloister.identity.scim.schema import Attribute
from cloister.identity.scim.values import Body

MAX_MEMBERS = 10_000


class Members:
    """Ids in the order in which they came. `describe` makes the value of one member; `exists` says whether an id may be a member at all."""

    def __init__(self, ids: Iterable[str], describe: Callable[[str], Body], exists: Callable[[str], bool]) -> None:
        self.ids: dict[str, None] = dict.fromkeys(ids)
        self._describe = describe
        self._exists = exists

    def read(self, raw: Any) -> dict[str, None]:
        """The ids of a list of members, each of them known."""
        values = raw if isinstance(raw, list) else [] if raw is None else [raw]
        if len(values) > MAX_MEMBERS:
            raise invalid(f"a group has at most `{MAX_MEMBERS}` members", "tooMany")
        found = dict.fromkeys(self._id_of(value) for value in values)
        for id in found:
            if not self._exists(id):
                raise invalid("a member does not exist: create it first")
        return found

    def change(
        self,
        word: Literal["add", "replace", "remove"],
        select: Filter | None,
        part: Attribute | None,
        value: Any,
        attribute: Attribute,
    ) -> None:
        """One operation of a PATCH whose path is `members…`."""
        if part is not None:
            raise invalid("a part of a member never changes: add or remove members", "mutability")
        if select is not None:
            self._change_selected(word, select, value, attribute)
        elif word == "add":
            self.ids.update(self.read(value))
        elif word == "replace":
            self.ids = self.read(value)
        elif value is None:
            self.ids = {}
        else:
            # Who is no member any more, or never existed, is as gone as was asked for.
            values = value if isinstance(value, list) else [value]
            for one in values:
                self.ids.pop(self._id_of(one), None)
        if len(self.ids) > MAX_MEMBERS:
            raise invalid(f"a group has at most `{MAX_MEMBERS}` members", "tooMany")

    def _change_selected(self, word: str, select: Filter, value: Any, attribute: Attribute) -> None:
        chosen = self._chosen(select, attribute)
        if word == "remove":
            for id in chosen:
                self.ids.pop(id, None)
            return
        named = self.read(value)
        if set(named) - set(chosen):
            raise invalid("a member is replaced by removing it and adding another", "noTarget" if not chosen else "mutability")

    def _chosen(self, select: Filter, attribute: Attribute) -> list[str]:
        if isinstance(select, Comparison) and select.operator == "eq" and select.path.name.lower() == "value":
            return [select.value] if isinstance(select.value, str) and select.value in self.ids else []
        return [id for id in self.ids if matches_inner(attribute, select, self._describe(id))]

    @staticmethod
    def _id_of(raw: Any) -> str:
        if isinstance(raw, str):
            return raw[:128]
        fields = {str(name).lower(): inner for name, inner in raw.items()} if isinstance(raw, Mapping) else {}
        id = fields.get("value")
        if not isinstance(id, str):
            raise invalid("a member is an object with the `value` of an id")
        return id[:128]
