"""pysaml2 set up for one provider as its document says, and what a verified response says of a person.

Everything is required: a signed assertion, for this very request, this audience, this recipient, at this time.
"""

import base64
import binascii
import calendar
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT
from saml2.client import Saml2Client
from saml2.config import SPConfig
from saml2.saml import SCM_BEARER
from saml2.time_util import str_to_time

from cloister.identity.oidc.request import Wish
from cloister.identity.people import MAX_TEXT, Person, line, read_groups, strength_of
from cloister.identity.saml.structure import check_structure
from cloister.identity.tokens.types import LEEWAY, TokenRefused
from cloister.model.providers import IdentityProvider
from cloister.model.reasons import Code

log = logging.getLogger("cloister.identity")

MAX_CHARS = 350_000
_UNFIT_NAMES = ("transient", "emailAddress")  # one is new each time, the other is somebody else's one day


@dataclass(frozen=True, slots=True)
class Verified:
    """A person, and the assertion that said so: its id is spent once until `spent_until`."""

    person: Person
    assertion: str
    spent_until: int


class SamlMissing(Exception):
    """xmlsec1 is not installed on this exchange."""


def make_client(document: IdentityProvider, certificates: Sequence[str], entity: str, acs: str) -> Saml2Client:
    """For one provider. `certificates` are PEM; `entity` and `acs` are what this exchange calls itself there."""
    binary = find_xmlsec()
    settings = {
        "entityid": entity,
        "xmlsec_binary": binary,
        "allow_unknown_attributes": True,
        "accepted_time_diff": LEEWAY,
        "metadata": {"inline": [_metadata(document, certificates)]},
        "service": {
            "sp": {
                "endpoints": {"assertion_consumer_service": [(acs, BINDING_HTTP_POST)]},
                "allow_unsolicited": False,
                "authn_requests_signed": False,
                "want_assertions_signed": True,
                "want_response_signed": False,
                "want_assertions_or_response_signed": False,
            }
        },
    }
    return Saml2Client(SPConfig().load(settings))


@lru_cache(1)
def find_xmlsec() -> str:
    found = shutil.which("xmlsec1")
    if found is None:
        raise SamlMissing
    return found


def make_request(client: Saml2Client, document: IdentityProvider, state: str, wish: Wish) -> tuple[str, str]:
    """The id of the request, and where the person is sent with it (HTTP redirect binding)."""
    extra: dict[str, Any] = {}
    if wish.acr_values:
        extra["requested_authn_context"] = {"authn_context_class_ref": list(wish.acr_values), "comparison": "exact"}
    if wish.max_age == 0:
        extra["force_authn"] = "true"
    request, sent = client.prepare_for_authenticate(
        entityid=document.issuer,
        relay_state=state,
        binding=BINDING_HTTP_REDIRECT,
        response_binding=BINDING_HTTP_POST,
        nameid_format="",
        **extra,
    )
    return str(request), str(dict(sent["headers"])["Location"])


def read_response(client: Saml2Client, document: IdentityProvider, encoded: str, request: str, wish: Wish, now: int) -> Verified:
    """Who signed in, in answer to this very request. Slow (it runs xmlsec1): call it in a thread. Raises TokenRefused."""
    if len(encoded) > MAX_CHARS:
        raise TokenRefused(Code.TOKEN_MALFORMED, "the provider's SAML response is too long")
    try:
        text = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise TokenRefused(Code.TOKEN_MALFORMED, "the provider's SAML response is not base64") from None
    check_structure(text)
    try:
        response = client.parse_authn_request_response(
            base64.b64encode(text).decode(), BINDING_HTTP_POST, outstanding={request: ""}
        )
    except Exception as error:  # noqa: BLE001 (pysaml2 raises what it likes, `Exception` too: whatever it raises, nobody is signed in)
        log.info("a SAML response of `%s` was refused: %s", document.name, type(error).__name__)
        response = None
    if response is None or response.assertion is None:
        raise TokenRefused(Code.TOKEN_SIGNATURE, "the provider's SAML response is not signed, not for us, or not of this time")
    assertion = response.assertion
    issuers = {_text(response.response.issuer) or document.issuer, _text(assertion.issuer)}  # a response need not say it
    if response.in_response_to != request or issuers != {document.issuer}:
        raise TokenRefused(Code.TOKEN_ISSUER, "the SAML response is of another provider or for another sign-in")
    _check_addressed(client, assertion, request)
    statement, name = assertion.authn_statement[0], assertion.subject.name_id
    context = statement.authn_context.authn_context_class_ref if statement.authn_context is not None else None
    attributes: dict[str, list[str]] = response.ava or {}
    person = Person(
        provider=document.name,
        issuer=document.issuer,
        subject=_subject(_text(name), None if name is None else name.format),
        at=_signed_in_at(statement.authn_instant, wish, now),
        strength=strength_of(document, _text(context), ()),
        username=line(_first(attributes, document.username) or _text(name)),
        display=line(_first(attributes, document.display)),
        groups=None if document.groups is None else read_groups(attributes.get(document.groups.claim, [])),
        session=None if not statement.session_index else str(statement.session_index)[:MAX_TEXT],
    )
    until = (
        calendar.timegm(str_to_time(assertion.conditions.not_on_or_after)) if assertion.conditions.not_on_or_after else now + 600
    )
    return Verified(person, str(assertion.id), until + 2 * LEEWAY)


def _check_addressed(client: Saml2Client, assertion: Any, request: str) -> None:
    """What the assertion itself must say, which is what is signed: for whom, where, until when and for which request (SAML 2.0 Profiles, section 4.1.4.2).
    pysaml2 lets pass what is left out, and reads no recipient."""
    conditions = assertion.conditions
    restrictions = [] if conditions is None else conditions.audience_restriction
    entity, places = client.config.entityid, client.service_urls(BINDING_HTTP_POST)
    is_for_us = bool(restrictions) and all(entity in [_text(one) for one in each.audience] for each in restrictions)
    bearers = [each.subject_confirmation_data for each in assertion.subject.subject_confirmation if each.method == SCM_BEARER]
    is_confirmed = any(
        data is not None and data.recipient in places and data.in_response_to == request and data.not_on_or_after
        for data in bearers
    )
    if not is_for_us or not is_confirmed:
        raise TokenRefused(
            Code.TOKEN_AUDIENCE, "the assertion does not say that it is for this exchange, for this sign-in and for a while"
        )


def _text(element: Any) -> str | None:
    return None if element is None else (element.text or "").strip()


def _subject(text: str | None, form: str | None) -> str:
    subject = (text or "").strip()
    if not 0 < len(subject) <= MAX_TEXT - 1 or not subject.isprintable():
        raise TokenRefused(Code.TOKEN_CLAIM, "the person's NameID is not a short line of text")
    if form is not None and form.rpartition(":")[2] in _UNFIT_NAMES:
        raise TokenRefused(Code.TOKEN_CLAIM, "the NameID is not lasting: let the provider send the format `persistent`")
    return subject


def _signed_in_at(text: str | None, wish: Wish, now: int) -> int:
    if not text:
        raise TokenRefused(Code.TOKEN_CLAIM, "the assertion does not say when the person signed in")
    at = calendar.timegm(str_to_time(text))
    if at > now + LEEWAY:
        raise TokenRefused(Code.TOKEN_CLAIM, "the assertion says that the person signs in later")
    if wish.max_age is not None and at < now - wish.max_age - LEEWAY:
        raise TokenRefused(Code.TOKEN_EXPIRED, "the person signed in at the provider too long ago")
    return min(at, now)


def _first(attributes: dict[str, list[str]], name: str) -> str | None:
    values = attributes.get(name) or []
    return values[0] if values and isinstance(values[0], str) else None


def _metadata(document: IdentityProvider, certificates: Sequence[str]) -> str:
    """What the document says, in the form that pysaml2 reads."""
    keys = "".join(
        '<md:KeyDescriptor use="signing"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>'
        f"{escape(_body(pem))}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>"
        for pem in certificates
    )
    return (
        '<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" '
        f"entityID={quoteattr(document.issuer)}>"
        f'<md:IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">{keys}'
        f'<md:SingleSignOnService Binding="{BINDING_HTTP_REDIRECT}" Location={quoteattr(document.sso_url or "")}/>'
        "</md:IDPSSODescriptor></md:EntityDescriptor>"
    )


def _body(pem: str) -> str:
    return "".join(part for part in pem.splitlines() if part and not part.startswith("-----"))
