"""Which attributes of a resource are answered (RFC 7644 §3.9): `attributes` and `excludedAttributes`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cloister.identity.scim.errors import ScimError, invalid
from cloister.identity.scim.filter import parse_path
from cloister.identity.scim.schema import ResourceType, Target, resolve

MAX_NAMES = 100


@dataclass(frozen=True, slots=True)
class Projection:
    """Names as they were asked for; both empty: everything."""

    attributes: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    def wants(self, kind: ResourceType, name: str) -> bool:
        """Whether this attribute of the core is answered: what costs much to make need not be made."""
        lowered = name.lower()
        if self.attributes:
            return any(
                target.attribute.name.lower() == lowered for target in _targets(kind, self.attributes) if not target.extension
            )
        return not any(
            target.attribute.name.lower() == lowered
            for target in _targets(kind, self.excluded)
            if not target.extension and target.part is None
        )


EVERYTHING = Projection()


def make_projection(attributes: Sequence[str], excluded: Sequence[str]) -> Projection:
    names = [name.strip() for text in attributes for name in text.split(",") if name.strip()]
    others = [name.strip() for text in excluded for name in text.split(",") if name.strip()]
    if names and others:
        raise invalid("`attributes` and `excludedAttributes` exclude each other")
    if len(names) + len(others) > MAX_NAMES:
        raise invalid(f"at most `{MAX_NAMES}` attributes are named")
    return Projection(tuple(names), tuple(others))


def project(kind: ResourceType, resource: dict[str, Any], projection: Projection) -> dict[str, Any]:
    """A new resource; what is always returned stays."""
    if projection.attributes:
        return _only(kind, resource, _targets(kind, projection.attributes))
    if projection.excluded:
        return _without(resource, _targets(kind, projection.excluded))
    return resource


def _targets(kind: ResourceType, names: tuple[str, ...]) -> list[Target]:
    """Names that this kind does not have name nothing."""
    found: list[Target] = []
    for name in names:
        extension = kind.extensions.get(name.lower())
        if extension is not None:
            found.extend(Target(attribute, extension.urn) for attribute in extension.attributes.values())
            continue
        try:
            path = parse_path(name).path
        except ScimError:
            continue
        target = resolve(kind, path.urn, path.name, path.part)
        if target is not None:
            found.append(target)
    return found


def _only(kind: ResourceType, resource: dict[str, Any], targets: list[Target]) -> dict[str, Any]:
    always = [attribute.name for attribute in kind.common.values() if attribute.returned == "always"]
    kept: dict[str, Any] = {name: resource[name] for name in always if name in resource}
    for target in targets:
        holder = resource.get(target.extension, {}) if target.extension else resource
        name = target.attribute.name
        if name not in holder:
            continue
        place = kept.setdefault(target.extension, {}) if target.extension else kept
        if target.part is None:
            place[name] = holder[name]
        else:
            place[name] = _merge(place.get(name), _pick(holder[name], target.part.name))
    return kept


def _pick(value: Any, part: str) -> Any:
    if isinstance(value, list):
        return [_pick(one, part) for one in value]
    return {part: value[part]} if isinstance(value, dict) and part in value else {}


def _merge(left: Any, right: Any) -> Any:
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        return [_merge(one, other) for one, other in zip(left, right, strict=True)]
    return {**left, **right} if isinstance(left, dict) and isinstance(right, dict) else right


def _without(resource: dict[str, Any], targets: list[Target]) -> dict[str, Any]:
    kept = dict(resource)
    for target in targets:
        if target.attribute.returned == "always":
            continue
        name = target.attribute.name
        holder = kept
        if target.extension:
            if target.extension not in kept:
                continue
            holder = kept[target.extension] = dict(kept[target.extension])
        if target.part is None:
            holder.pop(name, None)
        elif name in holder:
            holder[name] = _drop(holder[name], target.part.name)
        if target.extension and not holder:
            kept.pop(target.extension, None)
    return kept


def _drop(value: Any, part: str) -> Any:
    if isinstance(value, list):
        return [_drop(one, part) for one in value]
    return {name: inner for name, inner in value.items() if name != part} if isinstance(value, dict) else value
