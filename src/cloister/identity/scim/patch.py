"""PATCH (RFC 7644 §3.5.2) as a pure function: operations and a resource to a new resource.

Beside the RFC, what providers really send: operations in any case (`Replace`), paths as keys of a value without a path, a `remove` of members with the
members as its value, one value in a list of its own, and an `add` or `replace` to a value that is not there yet (`emails[type eq "work"].value`), which
makes it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cloister.identity.scim.errors import ScimError, invalid
from cloister.identity.scim.filter import All, AttrPath, Comparison, Filter, PatchPath, parse_path
from cloister.identity.scim.match import canonical, check_inner, matches_inner
from cloister.identity.scim.members import Members
from cloister.identity.scim.schema import Attribute, ResourceType, Schema, Target, resolve
from cloister.identity.scim.values import MAX_VALUES, Body, check_primary, read_one, read_value

MESSAGE = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
MAX_OPERATIONS = 1000

Word = Literal["add", "replace", "remove"]


@dataclass(frozen=True, slots=True)
class Operation:
    word: Word
    path: PatchPath | None
    value: Any
    has_value: bool


def read_operations(raw: Any) -> tuple[Operation, ...]:
    """The operations of a request body, each with a path that can be read."""
    if not isinstance(raw, Mapping):
        raise invalid("a PATCH is a JSON object", "invalidSyntax")
    fields = {str(name).lower(): value for name, value in raw.items()}
    schemas, operations = fields.get("schemas"), fields.get("operations")
    if not isinstance(schemas, list) or MESSAGE.lower() not in {str(one).lower() for one in schemas}:
        raise invalid(f"`schemas` does not name `{MESSAGE}`", "invalidSyntax")
    if not isinstance(operations, list) or not operations:
        raise invalid("`Operations` is a list of at least one operation", "invalidSyntax")
    if len(operations) > MAX_OPERATIONS:
        raise ScimError(413, f"a PATCH has at most `{MAX_OPERATIONS}` operations")
    return tuple(_read_operation(one) for one in operations)


def _read_operation(raw: Any) -> Operation:
    if not isinstance(raw, Mapping):
        raise invalid("an operation is a JSON object", "invalidSyntax")
    fields = {str(name).lower(): value for name, value in raw.items()}
    word, path = fields.get("op"), fields.get("path")
    lowered = word.lower() if isinstance(word, str) else ""
    if lowered not in ("add", "replace", "remove"):
        raise invalid("`op` is add, replace or remove", "invalidSyntax")
    if path is not None and not isinstance(path, str):
        raise invalid("`path` is a text", "invalidPath")
    return Operation(lowered, parse_path(path) if path else None, fields.get("value"), "value" in fields)  # type: ignore[arg-type]


def apply(kind: ResourceType, body: Body, members: Members, operations: tuple[Operation, ...], id: str = "") -> Body:
    """The body after all operations, or a ScimError; `body` stays as it is. `members` is changed in place: hand in a copy."""
    patching = _Patching(kind, copy.deepcopy(body), members, id)
    for operation in operations:
        patching.run(operation)
    return patching.body


class _Patching:
    def __init__(self, kind: ResourceType, body: Body, members: Members, id: str) -> None:
        self.body = body
        self._kind = kind
        self._members = members
        self._id = id

    def run(self, operation: Operation) -> None:
        if operation.path is not None:
            self._at(operation.word, operation.path, operation.value, given=operation.has_value, named=True)
            return
        if operation.word == "remove":
            raise invalid("a `remove` needs a path", "noTarget")
        if not isinstance(operation.value, Mapping):
            raise invalid(f"an `{operation.word}` without a path needs an object of attributes")
        self._each(operation.word, operation.value)

    def _each(self, word: Word, values: Mapping[str, Any], prefix: str = "") -> None:
        """Every key of a value is a path of its own. What the schemas do not have is left out, as in a POST."""
        seen: set[str] = set()
        for name, value in values.items():
            lowered = str(name).lower()
            if lowered in seen:
                raise invalid("an attribute is given twice", "invalidSyntax")
            seen.add(lowered)
            if lowered == "schemas" and not prefix:
                continue
            if lowered == "id" and not prefix:
                if value != self._id:
                    raise invalid("`id` never changes", "mutability")
                continue
            try:
                path = parse_path(f"{prefix}{name}")
            except ScimError:
                continue
            self._at(word, path, value, given=True, named=False)

    # ------------------------------------------------------------ one path

    def _at(self, word: Word, path: PatchPath, value: Any, *, given: bool, named: bool) -> None:
        extension = self._extension(path.path)
        if extension is not None:
            self._whole_extension(word, extension, value)
            return
        target = self._target(path, named=named)
        if target is None:
            return
        attribute, part = target.attribute, target.part
        if word != "remove" and not given:
            raise invalid(f"an `{word}` needs a value")
        if path.select is not None:
            _check_selection(attribute, path.select)
        if attribute.name == "members":
            self._members.change(word, path.select, part, value, attribute)
            return
        holder = self.body.setdefault(target.extension, {}) if target.extension else self.body
        if attribute.multi:
            _change_values(holder, attribute, word, path.select, part, value)
        else:
            _change_single(holder, attribute, word, part, value)
        if target.extension and not holder:
            del self.body[target.extension]

    def _target(self, path: PatchPath, *, named: bool) -> Target | None:
        """What the path names, if it may be written. `named`: by the path of an operation, so that what cannot be written is refused, not left out."""
        target = resolve(self._kind, path.path.urn, path.path.name, path.part or path.path.part)
        if target is None:
            if named:
                raise invalid(f"there is no attribute `{path.path.name[:64]}` with such parts", "invalidPath")
            return None
        read_only = "readOnly" in (target.attribute.mutability, target.last.mutability) or target.attribute.name == "schemas"
        if read_only and named:
            raise invalid(f"`{target.attribute.name}` is read only", "mutability")
        return None if read_only else target

    def _extension(self, path: AttrPath) -> Schema | None:
        """`urn:…:2.0:User` names an extension as a whole; to the parser its last word looks like an attribute."""
        urn = f"{path.urn}:{path.name}{'.' if path.part else ''}{path.part}".lower() if path.urn else ""
        return self._kind.extensions.get(urn)

    def _whole_extension(self, word: Word, schema: Schema, value: Any) -> None:
        if word == "remove":
            self.body.pop(schema.urn, None)
            return
        if not isinstance(value, Mapping):
            raise invalid(f"`{schema.urn}` is a JSON object")
        self._each(word, value, f"{schema.urn}:")


def _check_selection(attribute: Attribute, select: Filter) -> None:
    if not attribute.multi:
        raise invalid(f"`{attribute.name}` has one value: there is nothing to select from", "invalidPath")
    try:
        check_inner(attribute, select)
    except ScimError as error:
        raise invalid(error.detail, "invalidPath") from None


# ------------------------------------------------------------ attributes with one value


def _change_single(holder: Body, attribute: Attribute, word: Word, part: Attribute | None, value: Any) -> None:
    name = attribute.name
    if word == "remove":
        if attribute.required and part is None:
            raise invalid(f"`{name}` is required", "mutability")
        if part is None:
            holder.pop(name, None)
        elif name in holder:
            holder[name].pop(part.name, None)
            if not holder[name]:
                del holder[name]
        return
    value = _unwrapped(part or attribute, value)
    if part is not None:
        value = {part.name: value}
    if attribute.type == "complex" and isinstance(value, Mapping):
        _merge(holder, attribute, value)
        return
    read = read_value(attribute, value)
    if read is None and attribute.required:
        raise invalid(f"`{name}` is required", "mutability")
    _assign(holder, name, read)


def _unwrapped(attribute: Attribute, value: Any) -> Any:
    """Microsoft Entra writes one value as it writes many: `[{"$ref": null, "value": "False"}]`."""
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], Mapping):
        return value
    if attribute.type == "complex":
        return value[0]
    fields = {str(name).lower(): inner for name, inner in value[0].items()}
    return fields.get("value", value)


def _merge(holder: Body, attribute: Attribute, value: Mapping[str, Any]) -> None:
    """Parts that are not named stay (RFC 7644 §3.5.2.3); one that is null goes."""
    merged = {**holder.get(attribute.name, {}), **(read_one(attribute, value) or {})}
    for name, inner in value.items():
        part = attribute.parts.get(str(name).lower())
        if inner is None and part is not None:
            merged.pop(part.name, None)
    _assign(holder, attribute.name, merged or None)


def _assign(holder: Body, name: str, value: Any) -> None:
    if value is None:
        holder.pop(name, None)
    else:
        holder[name] = value


# ------------------------------------------------------------ attributes with many


def _change_values(
    holder: Body, attribute: Attribute, word: Word, select: Filter | None, part: Attribute | None, value: Any
) -> None:
    before: list[Any] = holder.get(attribute.name, [])
    whole = select is None and part is None
    after = _change_all(attribute, word, before, value) if whole else _change_selected(attribute, word, before, select, part, value)
    after = [one for one in after if one not in ({}, None)]
    _settle_primary(attribute, before, after)
    if len(after) > MAX_VALUES:
        raise invalid(f"`{attribute.name}` has at most `{MAX_VALUES}` values", "tooMany")
    _assign(holder, attribute.name, after or None)


def _change_all(attribute: Attribute, word: Word, before: list[Any], value: Any) -> list[Any]:
    if word == "remove":
        gone = [] if value is None else [_key(one) for one in read_value(attribute, value) or []]
        return [one for one in before if gone and _key(one) not in gone]
    read = read_value(attribute, value) or []
    if word == "replace":
        return list(read)
    return before + [one for one in read if one not in before]


def _key(value: Any) -> Any:
    """What a value is told by: its `value` if it has one."""
    return value.get("value", value) if isinstance(value, dict) else value


def _change_selected(
    attribute: Attribute, word: Word, before: list[Any], select: Filter | None, part: Attribute | None, value: Any
) -> list[Any]:
    chosen = [select is None or matches_inner(attribute, select, one) for one in before]
    if word == "remove":
        if part is None:
            return [one for one, is_chosen in zip(before, chosen, strict=True) if not is_chosen]
        name = part.name
        return [
            {key: inner for key, inner in one.items() if key != name} if is_chosen else one
            for one, is_chosen in zip(before, chosen, strict=True)
        ]
    changes = {part.name: value} if part is not None else value
    if isinstance(changes, list) and len(changes) == 1:
        changes = changes[0]
    read = read_one(attribute, changes)
    if not isinstance(read, dict):
        raise invalid(f"a value of `{attribute.name}` cannot be emptied: remove it")
    if not any(chosen):
        return [*before, {**_described(attribute, select), **read}]
    return [{**one, **read} if is_chosen else one for one, is_chosen in zip(before, chosen, strict=True)]


def _described(attribute: Attribute, select: Filter | None) -> Body:
    """The value that a filter of equalities describes; any other describes none."""
    terms = select.terms if isinstance(select, All) else () if select is None else (select,)
    described: dict[str, Any] = {}
    for term in terms:
        if not isinstance(term, Comparison) or term.operator != "eq" or not isinstance(term.value, str | bool):
            raise invalid("no value fulfils the filter of the path", "noTarget")
        described[term.path.name] = term.value
    return read_one(attribute, described) or {}


def _settle_primary(attribute: Attribute, before: list[Any], after: list[Any]) -> None:
    """A value that is made primary takes that from the others (RFC 7644 §3.5.2)."""
    was = [canonical(repr(_key(one))) for one in before if isinstance(one, dict) and one.get("primary") is True]
    now = [one for one in after if isinstance(one, dict) and one.get("primary") is True]
    if len(now) > 1:
        fresh = [one for one in now if canonical(repr(_key(one))) not in was]
        if len(fresh) == 1:
            after[:] = [
                one if one is fresh[0] or not isinstance(one, dict) or "primary" not in one else {**one, "primary": False}
                for one in after
            ]
    check_primary(attribute, after)
