"""The attributes of users, groups and the enterprise extension (RFC 7643 §4, §7), as tables, and the documents that describe them.

`password` is not among them: no password comes in by SCIM, and one that is sent is dropped unread.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Type = Literal["string", "boolean", "integer", "dateTime", "reference", "binary", "complex"]
Mutability = Literal["readOnly", "readWrite", "immutable"]
Returned = Literal["always", "default"]
Uniqueness = Literal["none", "server"]
Kind = Literal["User", "Group"]

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute (RFC 7643 §2.2). `parts` are the sub-attributes of a complex one, by lower-case name."""

    name: str
    description: str = ""
    type: Type = "string"
    multi: bool = False
    required: bool = False
    mutability: Mutability = "readWrite"
    returned: Returned = "default"
    uniqueness: Uniqueness = "none"
    case_exact: bool = False
    canonical: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    parts: Mapping[str, "Attribute"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Schema:
    """The attributes of one URN, by lower-case name."""

    urn: str
    name: str
    description: str
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class ResourceType:
    """What an endpoint serves: a schema, its extensions by lower-case URN, and the attributes that every resource has."""

    kind: Kind
    endpoint: str
    schema: Schema
    extensions: Mapping[str, Schema]
    common: Mapping[str, Attribute]

    @property
    def attributes(self) -> Mapping[str, Attribute]:
        return self.schema.attributes


def _table(*attributes: Attribute) -> Mapping[str, Attribute]:
    return MappingProxyType({attribute.name.lower(): attribute for attribute in attributes})


def _plural(name: str, description: str, *types: str, value: Attribute | None = None) -> Attribute:
    """The usual form of a multi-valued attribute (RFC 7643 §2.4)."""
    parts = _table(
        value or Attribute("value", "The value."),
        Attribute("display", "A name for people."),
        Attribute("type", "What the value is for.", canonical=types),
        Attribute("primary", "Whether this is the preferred value.", type="boolean"),
    )
    return Attribute(name, description, type="complex", multi=True, parts=parts)


_NAME = _table(
    Attribute("formatted", "The whole name for display."),
    Attribute("familyName", "The family name."),
    Attribute("givenName", "The given name."),
    Attribute("middleName", "The middle names."),
    Attribute("honorificPrefix", "What goes before the name."),
    Attribute("honorificSuffix", "What goes after the name."),
)
_ADDRESS = _table(
    Attribute("formatted", "The whole address for display."),
    Attribute("streetAddress", "Street and house number."),
    Attribute("locality", "The city."),
    Attribute("region", "The state or region."),
    Attribute("postalCode", "The postal code."),
    Attribute("country", "The country."),
    Attribute("type", "What the address is for.", canonical=("work", "home", "other")),
    Attribute("primary", "Whether this is the preferred address.", type="boolean"),
)
_MEMBERSHIP = _table(
    Attribute("value", "The id of the group.", mutability="readOnly", case_exact=True),
    Attribute("$ref", "The address of the group.", type="reference", mutability="readOnly", references=("Group",)),
    Attribute("display", "The group's name.", mutability="readOnly"),
    Attribute("type", "How the user is a member.", mutability="readOnly", canonical=("direct", "indirect")),
)
_MANAGER = _table(
    Attribute("value", "The id of the manager.", case_exact=True),
    Attribute("$ref", "The address of the manager.", type="reference", references=("User",)),
    Attribute("displayName", "The manager's name.", mutability="readOnly"),
)
_MEMBER = _table(
    Attribute("value", "The id of the member.", mutability="immutable", case_exact=True),
    Attribute("$ref", "The address of the member.", type="reference", mutability="immutable", references=("User", "Group")),
    Attribute("type", "What the member is.", mutability="immutable", canonical=("User", "Group")),
)

USER_SCHEMA = Schema(
    USER,
    "User",
    "A person",
    _table(
        Attribute("userName", "What the person signs in as; unique in its directory.", required=True, uniqueness="server"),
        Attribute("name", "The parts of the person's name.", type="complex", parts=_NAME),
        Attribute("displayName", "The name for display."),
        Attribute("nickName", "What the person is called."),
        Attribute("profileUrl", "A page about the person.", type="reference", references=("external",)),
        Attribute("title", "The person's title."),
        Attribute("userType", "How the person belongs to the organisation."),
        Attribute("preferredLanguage", "The preferred language."),
        Attribute("locale", "The place that formats are chosen for."),
        Attribute("timezone", "The time zone."),
        Attribute("active", "Whether the person may use anything at all.", type="boolean"),
        _plural("emails", "Mail addresses; data, never what a user is known by.", "work", "home", "other"),
        _plural("phoneNumbers", "Telephone numbers.", "work", "home", "mobile", "fax", "pager", "other"),
        _plural("ims", "Addresses for messages.", "aim", "gtalk", "icq", "xmpp", "msn", "skype", "qq", "yahoo"),
        _plural(
            "photos",
            "Pictures.",
            "photo",
            "thumbnail",
            value=Attribute("value", "Where the picture is.", type="reference", references=("external",)),
        ),
        Attribute("addresses", "Postal addresses.", type="complex", multi=True, parts=_ADDRESS),
        Attribute("groups", "The groups the person is in.", type="complex", multi=True, mutability="readOnly", parts=_MEMBERSHIP),
        _plural("entitlements", "Entitlements."),
        _plural("roles", "Roles; data, they grant nothing here."),
        _plural("x509Certificates", "Certificates.", value=Attribute("value", "The certificate in DER.", type="binary")),
    ),
)
ENTERPRISE_SCHEMA = Schema(
    ENTERPRISE,
    "EnterpriseUser",
    "What an employer says of a person",
    _table(
        Attribute("employeeNumber", "The number of the employee."),
        Attribute("costCenter", "The cost centre."),
        Attribute("organization", "The organisation."),
        Attribute("division", "The division."),
        Attribute("department", "The department."),
        Attribute("manager", "The person's manager.", type="complex", parts=_MANAGER),
    ),
)
GROUP_SCHEMA = Schema(
    GROUP,
    "Group",
    "People and groups under one name",
    _table(
        Attribute("displayName", "The name of the group; unique in its directory.", required=True, uniqueness="server"),
        Attribute("members", "The members of the group.", type="complex", multi=True, parts=_MEMBER),
    ),
)
META = _table(
    Attribute("resourceType", type="string", mutability="readOnly", case_exact=True),
    Attribute("created", type="dateTime", mutability="readOnly"),
    Attribute("lastModified", type="dateTime", mutability="readOnly"),
    Attribute("location", type="reference", mutability="readOnly", case_exact=True),
    Attribute("version", mutability="readOnly", case_exact=True),
)
COMMON = _table(
    Attribute("id", mutability="readOnly", returned="always", uniqueness="server", case_exact=True),
    Attribute("externalId", case_exact=True),
    Attribute("schemas", type="reference", multi=True, returned="always", case_exact=True),
    Attribute("meta", type="complex", mutability="readOnly", parts=META),
)
TYPES: Mapping[Kind, ResourceType] = MappingProxyType(
    {
        "User": ResourceType("User", "/Users", USER_SCHEMA, MappingProxyType({ENTERPRISE.lower(): ENTERPRISE_SCHEMA}), COMMON),
        "Group": ResourceType("Group", "/Groups", GROUP_SCHEMA, MappingProxyType({}), COMMON),
    }
)
SCHEMAS: Mapping[str, Schema] = MappingProxyType({one.urn: one for one in (USER_SCHEMA, GROUP_SCHEMA, ENTERPRISE_SCHEMA)})


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names: an attribute of the core or of an extension, and perhaps one of its parts."""

    attribute: Attribute
    extension: str = ""  # the URN as it is written in resources; empty for the core
    part: Attribute | None = None

    @property
    def last(self) -> Attribute:
        return self.part or self.attribute


def resolve(kind: ResourceType, urn: str, name: str, part: str = "") -> Target | None:
    """The attribute that a path names, whatever its case (RFC 7643 §2.1); None if there is none.

    A name that only an extension has needs no URN: Microsoft Entra says `manager`.
    """
    lowered, urn = name.lower(), urn.lower()
    own = lowered in kind.attributes or lowered in kind.common
    if not urn and not own:
        urn = next((urn for urn, schema in kind.extensions.items() if lowered in schema.attributes), "")
    if urn in ("", kind.schema.urn.lower()):
        attribute, extension = kind.attributes.get(lowered) or kind.common.get(lowered), ""
    elif urn in kind.extensions:
        schema = kind.extensions[urn]
        attribute, extension = schema.attributes.get(lowered), schema.urn
    else:
        return None
    if attribute is None:
        return None
    if not part:
        return Target(attribute, extension)
    inner = attribute.parts.get(part.lower())
    return None if inner is None else Target(attribute, extension, inner)


# ------------------------------------------------------------ what describes it all (RFC 7643 §5 to §7)


def describe_schema(schema: Schema, base: str) -> dict[str, Any]:
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
        "id": schema.urn,
        "name": schema.name,
        "description": schema.description,
        "attributes": [_describe(attribute) for attribute in schema.attributes.values()],
        "meta": {"resourceType": "Schema", "location": f"{base}/Schemas/{schema.urn}"},
    }


def _describe(attribute: Attribute) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": attribute.name,
        "type": attribute.type,
        "multiValued": attribute.multi,
        "description": attribute.description,
        "required": attribute.required,
        "mutability": attribute.mutability,
        "returned": attribute.returned,
    }
    if attribute.type == "complex":
        described["subAttributes"] = [_describe(part) for part in attribute.parts.values()]
        return described
    described["caseExact"] = attribute.case_exact
    described["uniqueness"] = attribute.uniqueness
    if attribute.canonical:
        described["canonicalValues"] = list(attribute.canonical)
    if attribute.references:
        described["referenceTypes"] = list(attribute.references)
    return described


def describe_type(kind: ResourceType, base: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
        "id": kind.kind,
        "name": kind.kind,
        "description": kind.schema.description,
        "endpoint": kind.endpoint,
        "schema": kind.schema.urn,
        "meta": {"resourceType": "ResourceType", "location": f"{base}/ResourceTypes/{kind.kind}"},
    }
    if kind.extensions:
        described["schemaExtensions"] = [{"schema": one.urn, "required": False} for one in kind.extensions.values()]
    return described


def describe_service(base: str, page: int) -> dict[str, Any]:
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": True},
        "bulk": {"supported": False, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": True, "maxResults": page},
        "changePassword": {"supported": False},
        "sort": {"supported": True},
        "etag": {"supported": True},
        "authenticationSchemes": [
            {
                "type": "oauthbearertoken",
                "name": "Bearer token of a directory",
                "description": "Made by `cloister directory create`; sent as `Authorization: Bearer`.",
                "specUri": "https://www.rfc-editor.org/rfc/rfc6750",
                "primary": True,
            }
        ],
        "meta": {"resourceType": "ServiceProviderConfig", "location": f"{base}/ServiceProviderConfig"},
    }
