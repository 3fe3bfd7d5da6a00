"""The document that says who outside is told of requests for access, such as a channel of a chat tool."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from cloister.model.fields import MAX_LIST, HostField, Labels, Line, Name, distinct
from cloister.model.part import Part

Event = Literal["pending", "approved", "denied", "withdrawn"]

_NO_LABELS: Mapping[str, str] = {}


def _url(text: str) -> str:
    if not text.isascii() or not text.startswith(("https://", "http://")) or any(mark in text for mark in "# \\@"):
        raise ValueError("this is no plain URL: write `https://HOST/PATH`")
    return text


class Webhook(Part):
    """`url` gets a POST for each of `events` of requests for access: JSON with a `text` for people, signed after Standard Webhooks with the key in
    `secret_file` if there is one. `allow_internal` lists hosts of it that may have internal addresses.
    """

    kind: Literal["webhook"] = "webhook"
    name: Name
    labels: Labels = _NO_LABELS
    url: Annotated[str, StringConstraints(min_length=8, max_length=512), AfterValidator(_url)]
    events: Annotated[tuple[Event, ...], Field(min_length=1, max_length=4), AfterValidator(distinct)] = ("pending",)
    secret_file: Line | None = None
    allow_internal: Annotated[tuple[HostField, ...], Field(max_length=MAX_LIST), AfterValidator(distinct)] = ()
