"""Refusals in SCIM's own form (RFC 7644 §3.12)."""

from typing import Literal

ScimType = Literal[
    "",
    "invalidFilter",
    "tooMany",
    "uniqueness",
    "mutability",
    "invalidSyntax",
    "invalidPath",
    "noTarget",
    "invalidValue",
    "sensitive",
]
ERROR_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:Error"


class ScimError(Exception):
    """A request that is refused: the HTTP status, SCIM's own word for why, and one sentence."""

    def __init__(self, status: int, detail: str, scim_type: ScimType = "") -> None:
        self.status = status
        self.detail = detail
        self.scim_type = scim_type
        super().__init__(detail)


def invalid(detail: str, scim_type: ScimType = "invalidValue") -> ScimError:
    return ScimError(400, detail, scim_type)


def error_body(status: int, detail: str, scim_type: ScimType = "") -> dict[str, object]:
    """The status is text on the wire (RFC 7644 §3.12)."""
    body: dict[str, object] = {"schemas": [ERROR_SCHEMA], "status": str(status), "detail": detail}
    return body | ({"scimType": scim_type} if scim_type else {})


NOT_FOUND = (404, "there is no such resource")


def not_found() -> ScimError:
    """The same for what never existed and for what belongs to another directory (case 80)."""
    return ScimError(*NOT_FOUND)
