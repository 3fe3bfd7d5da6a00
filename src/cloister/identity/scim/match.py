"""Whether a resource fulfils a filter, and by what it is sorted (RFC 7644 §3.4.2). Resources are whole representations.

Texts are compared in Unicode's form NFC, and whatever their case unless the attribute is exact. Of several values any may match; `ne` holds if none
is equal.
"""

import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from cloister.identity.scim.errors import ScimError, invalid
from cloister.identity.scim.filter import All, AnyOf, AttrPath, Comparison, Filter, Not, Present, Selection, Value
from cloister.identity.scim.schema import Attribute, ResourceType, Target, resolve
from cloister.identity.scim.values import read_boolean

Resource = Mapping[str, Any]


def canonical(text: str, *, exact: bool = False) -> str:
    """The one form in which texts are compared."""
    normal = unicodedata.normalize("NFC", text)
    return normal if exact else unicodedata.normalize("NFC", normal.casefold())


def check_filter(kind: ResourceType, found: Filter) -> None:
    """Raises ScimError 400 `invalidFilter` for what the schema does not have or what its types cannot compare."""
    match found:
        case All(terms) | AnyOf(terms):
            for term in terms:
                check_filter(kind, term)
        case Not(inner):
            check_filter(kind, inner)
        case Selection(path, inner):
            check_inner(_attribute_of(kind, path), inner)
        case Present(path):
            _attribute_of(kind, path)
        case Comparison(path, _, _):
            _check_comparison(_compared(_attribute_of(kind, path)), found)


def check_inner(attribute: Attribute, found: Filter) -> None:
    """The filter between the brackets of this attribute."""
    match found:
        case All(terms) | AnyOf(terms):
            for term in terms:
                check_inner(attribute, term)
        case Not(inner):
            check_inner(attribute, inner)
        case Present(path):
            _part_of(attribute, path)
        case Comparison(path, _, _):
            _check_comparison(_part_of(attribute, path), found)
        case Selection():
            raise invalid("values are selected only once", "invalidFilter")


def matches(kind: ResourceType, found: Filter, resource: Resource) -> bool:
    """For a filter that was checked; names that this kind does not have match nothing."""
    match found:
        case All(terms):
            return all(matches(kind, term, resource) for term in terms)
        case AnyOf(terms):
            return any(matches(kind, term, resource) for term in terms)
        case Not(inner):
            return not matches(kind, inner, resource)
        case Selection(path, inner):
            target = _find(kind, path)
            values = [] if target is None else values_of(target, resource)
            return target is not None and any(matches_inner(target.attribute, inner, value) for value in values)
        case Present(path):
            target = _find(kind, path)
            return target is not None and any(value not in (None, "", {}, []) for value in values_of(target, resource))
        case Comparison(path, _, _):
            target = _find(kind, path)
            if target is None:
                return False
            compared = _compared(target.last)
            values = values_of(target, resource)
            if compared is not target.last:
                values = [value.get(compared.name) if isinstance(value, Mapping) else value for value in values]
            return _compare_all(compared, found, [value for value in values if value is not None])


def matches_inner(attribute: Attribute, found: Filter, value: Any) -> bool:
    """One value of a multi-valued attribute against the filter between the brackets."""
    match found:
        case All(terms):
            return all(matches_inner(attribute, term, value) for term in terms)
        case AnyOf(terms):
            return any(matches_inner(attribute, term, value) for term in terms)
        case Not(inner):
            return not matches_inner(attribute, inner, value)
        case Selection():
            return False
        case Present(path) | Comparison(path, _, _):
            part = attribute.parts.get(path.name.lower())
            held = value.get(part.name) if part is not None and isinstance(value, Mapping) else None
            if isinstance(found, Present):
                return held not in (None, "")
            return part is not None and _compare_all(part, found, [] if held is None else [held])


def values_of(target: Target, resource: Resource) -> list[Any]:
    """The values that a path names, without those that are unassigned."""
    holder: Any = resource.get(target.extension, {}) if target.extension else resource
    value = holder.get(target.attribute.name) if isinstance(holder, Mapping) else None
    values = value if isinstance(value, list) else [] if value is None else [value]
    if target.part is not None:
        name = target.part.name
        values = [inner for one in values if isinstance(one, Mapping) and (inner := one.get(name)) is not None]
    return values


def sort_key(kind: ResourceType, path: AttrPath) -> Callable[[Resource], tuple[bool, Any]]:
    """What resources are sorted by: the primary value, else the first; what has none comes last (RFC 7644 §3.4.2.3)."""
    target = _find(kind, path)
    if target is None or (target.last.type == "complex" and "value" not in target.last.parts):
        raise invalid(f"there is nothing to sort by in `{path.name}`", "invalidPath")

    def key(resource: Resource) -> tuple[bool, Any]:
        values = values_of(Target(target.attribute, target.extension), resource)
        values.sort(key=lambda value: not (isinstance(value, Mapping) and value.get("primary") is True))
        part = target.part or (target.attribute.parts["value"] if target.attribute.type == "complex" else None)
        first = values[0] if values else None
        if part is not None:
            first = first.get(part.name) if isinstance(first, Mapping) else None
        if first is None:
            return (True, "")
        last = part or target.attribute
        if isinstance(first, str):
            first = _instant(first) if last.type == "dateTime" else canonical(first, exact=last.case_exact)
        return (False, first)

    return key


# ------------------------------------------------------------


def _find(kind: ResourceType, path: AttrPath) -> Target | None:
    return resolve(kind, path.urn, path.name, path.part)


def _attribute_of(kind: ResourceType, path: AttrPath) -> Attribute:
    target = _find(kind, path)
    if target is None:
        raise _unknown(path)
    return target.last


def _part_of(attribute: Attribute, path: AttrPath) -> Attribute:
    part = attribute.parts.get(path.name.lower())
    if part is None or path.part or path.urn:
        raise _unknown(path)
    return part


def _unknown(path: AttrPath) -> ScimError:
    name = f"{path.urn}:{path.name}" if path.urn else path.name
    return invalid(f"there is no attribute `{name[:128]}{'.' if path.part else ''}{path.part[:64]}`", "invalidFilter")


def _compared(attribute: Attribute) -> Attribute:
    """A complex attribute is compared by its part `value`."""
    return attribute.parts.get("value", attribute) if attribute.type == "complex" else attribute


def _check_comparison(attribute: Attribute, found: Comparison) -> None:
    kind, operator, value = attribute.type, found.operator, found.value
    if kind == "complex":
        raise invalid(f"`{attribute.name}` has parts: name one of them", "invalidFilter")
    if value is None:
        allowed = operator in ("eq", "ne")
    elif kind == "boolean":
        allowed = operator in ("eq", "ne") and _is_boolean(attribute, value)
    elif kind == "dateTime":
        allowed = isinstance(value, str) and (operator in ("co", "sw", "ew") or _instant(value) is not None)
    elif kind == "binary":
        allowed = operator in ("eq", "ne") and isinstance(value, str)
    elif kind == "integer":
        allowed = not isinstance(value, str | bool)
    else:
        allowed = isinstance(value, str)
    if not allowed:
        raise invalid(f"`{attribute.name}` cannot be compared so: it is of the type `{kind}`", "invalidFilter")


def _is_boolean(attribute: Attribute, value: Value) -> bool:
    try:
        read_boolean(attribute.name, value)
    except ScimError:
        return False
    return True


def _compare_all(attribute: Attribute, found: Comparison, values: list[Any]) -> bool:
    if found.value is None:
        return (not values) == (found.operator == "eq")
    if found.operator == "ne":
        return all(not _compare(attribute, "eq", value, found.value) for value in values)
    return any(_compare(attribute, found.operator, value, found.value) for value in values)


def _compare(attribute: Attribute, operator: str, value: Any, wanted: Value) -> bool:
    if attribute.type == "boolean":
        return operator == "eq" and _is_boolean(attribute, wanted) and value is read_boolean(attribute.name, wanted)
    if isinstance(value, str) and isinstance(wanted, str):
        if attribute.type == "dateTime" and operator not in ("co", "sw", "ew"):
            left, right = _instant(value), _instant(wanted)
            return left is not None and right is not None and _ordered(operator, left, right)
        left_text, right_text = canonical(value, exact=attribute.case_exact), canonical(wanted, exact=attribute.case_exact)
        match operator:
            case "co":
                return right_text in left_text
            case "sw":
                return left_text.startswith(right_text)
            case "ew":
                return left_text.endswith(right_text)
            case _:
                return _ordered(operator, left_text, right_text)
    return type(value) is type(wanted) and _ordered(operator, value, wanted)


def _ordered(operator: str, left: Any, right: Any) -> bool:
    match operator:
        case "eq":
            return bool(left == right)
        case "gt":
            return bool(left > right)
        case "ge":
            return bool(left >= right)
        case "lt":
            return bool(left < right)
        case "le":
            return bool(left <= right)
        case _:
            return False


def _instant(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
