"""The one shape that a response may have, checked before its signature is (cases 1, 10).

A wrapping attack needs a second assertion, a second element with the same id, or a signature that speaks of something else than where it stands (Somorovsky
et al., "On Breaking SAML", 2012). Here there is exactly one assertion, a child of the response; ids are unique; each signature is a child of what it signs and
refers to just that; nothing is transformed but by enveloped-signature and exclusive canonicalisation; no DTD, no encryption, no comments inside texts.
"""

import re
from xml.etree.ElementTree import Element

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from cloister.identity.tokens.types import TokenRefused
from cloister.model.reasons import Code

MAX_BYTES = 256 * 1024
MAX_ELEMENTS = 5_000
MAX_DEPTH = 32

_DECLARATION = re.compile(rb"""\s*(?:<\?xml\s(?:[^?>]*?\sencoding\s*=\s*["']([A-Za-z0-9._-]+)["'])?[^?>]*\?>)?""")

SAML = "{urn:oasis:names:tc:SAML:2.0:assertion}"
SAMLP = "{urn:oasis:names:tc:SAML:2.0:protocol}"
DS = "{http://www.w3.org/2000/09/xmldsig#}"

SIGNATURES = frozenset(
    {
        "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
        "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384",
        "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512",
        "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256",
        "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384",
        "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512",
    }
)
DIGESTS = frozenset(
    {
        "http://www.w3.org/2001/04/xmlenc#sha256",
        "http://www.w3.org/2001/04/xmldsig-more#sha384",
        "http://www.w3.org/2001/04/xmlenc#sha512",
    }
)
TRANSFORMS = frozenset({"http://www.w3.org/2000/09/xmldsig#enveloped-signature", "http://www.w3.org/2001/10/xml-exc-c14n#"})


def check_structure(text: bytes) -> None:
    """Raises TokenRefused if this is anything but one response with one signed assertion."""
    root = _parse(text)
    if root.tag != f"{SAMLP}Response":
        raise _refuse("it is no SAML 2.0 response")
    elements = list(root.iter())
    if len(elements) > MAX_ELEMENTS or _is_deeper(root, MAX_DEPTH):
        raise _refuse("it is too large")
    assertions = [element for element in elements if element.tag == f"{SAML}Assertion"]
    if len(assertions) != 1 or assertions[0] not in list(root):
        raise _refuse("it has not exactly one assertion, as a child of the response")
    if any(element.tag == f"{SAML}EncryptedAssertion" or element.tag.endswith("}EncryptedData") for element in elements):
        raise _refuse("it is encrypted, which is not accepted here")
    ids = [
        value
        for element in elements
        for name, value in element.attrib.items()
        if name.rpartition("}")[2].lower() in ("id", "assertionid")
    ]
    if len(set(ids)) != len(ids) or any(not value or value.strip() != value for value in ids):
        raise _refuse("an id in it stands twice")
    _check_signatures(root, assertions[0], elements)
    subjects = [element for element in elements if element.tag in (f"{SAML}Subject", f"{SAML}NameID", f"{SAML}AuthnStatement")]
    if sum(element.tag == f"{SAML}Subject" for element in subjects) != 1 or len(subjects) != 3:
        raise _refuse("it speaks of not exactly one person and one sign-in")


def _check_signatures(root: Element, assertion: Element, elements: list[Element]) -> None:
    signatures = [element for element in elements if element.tag == f"{DS}Signature"]
    own = [child for child in assertion if child.tag == f"{DS}Signature"]
    outer = [child for child in root if child.tag == f"{DS}Signature"]
    if len(own) != 1:
        raise _refuse("its assertion is not signed")
    if len(outer) > 1 or len(signatures) != len(own) + len(outer):
        raise _refuse("it has a signature where none belongs")
    for signature, signed in [(own[0], assertion), *((item, root) for item in outer)]:
        if any(child.tag == f"{DS}Object" for child in signature.iter()):
            raise _refuse("a signature in it carries something")
        references = [child for child in signature.iter() if child.tag == f"{DS}Reference"]
        if len(references) != 1 or references[0].get("URI") != f"#{signed.get('ID')}" or not signed.get("ID"):
            raise _refuse("a signature in it speaks of something else than where it stands")
        for kind, accepted in (
            ("SignatureMethod", SIGNATURES),
            ("DigestMethod", DIGESTS),
            ("Transform", TRANSFORMS),
            ("CanonicalizationMethod", TRANSFORMS),
        ):
            found = [child.get("Algorithm") for child in signature.iter() if child.tag == f"{DS}{kind}"]
            if not set(found) <= accepted or (kind in ("SignatureMethod", "DigestMethod") and len(found) != 1):
                raise TokenRefused(Code.TOKEN_ALGORITHM, "the response is signed in a way that is not accepted here")


def _parse(text: bytes) -> Element:
    if len(text) > MAX_BYTES:
        raise _refuse(f"it is longer than `{MAX_BYTES}` bytes")
    head = _DECLARATION.match(text)
    if head is None or (head[1] or b"utf-8").lower() != b"utf-8" or b"\0" in text:
        raise _refuse("it is not in UTF-8")  # in any other encoding what is verified and what is read may be two texts (case 19)
    if b"<!--" in text or b"<?" in text[head.end() :]:
        raise _refuse("it has comments or processing instructions")  # what stands around them is read in two ways (CVE-2017-11427)
    try:
        root: Element = fromstring(text, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, RecursionError):
        raise _refuse("it is no plain XML") from None
    return root


def _is_deeper(root: Element, depth: int) -> bool:
    level = [root]
    for _ in range(depth):
        level = [child for element in level for child in element]
    return bool(level)


def _refuse(what: str) -> TokenRefused:
    return TokenRefused(Code.TOKEN_MALFORMED, f"the provider's SAML response cannot be accepted: {what}")
