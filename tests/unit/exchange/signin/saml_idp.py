"""A SAML identity provider of pysaml2's own, with a key made here, and the wrapping attacks on what it signs."""

import base64
import datetime
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from saml2 import BINDING_HTTP_POST, class_name
from saml2.config import IdPConfig
from saml2.saml import NAMEID_FORMAT_PERSISTENT, NameID
from saml2.samlp import response_from_string
from saml2.server import Server
from saml2.sigver import pre_signature_part, signed_instance_factory
from saml2.xmldsig import DIGEST_SHA256, SIG_RSA_SHA256

ENTITY = "https://idp.example/saml"
SSO = "https://idp.example/saml/sso"
PASSWORD_CLASS = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"
MFA_CLASS = "https://refeds.org/profile/mfa"


@dataclass
class SamlIdp:
    server: Any
    certificate: Path
    sp: str
    acs: str

    def document(self, **changes: Any) -> str:
        fields = {
            "kind": "identity-provider",
            "name": "acme",
            "protocol": "saml",
            "issuer": ENTITY,
            "sso_url": SSO,
            "certificate_files": [str(self.certificate)],
            "username": "uid",
            "display": "displayName",
            "groups": {"claim": "groups"},
            "acr": {"mfa": [MFA_CLASS]},
            **changes,
        }
        return json.dumps({key: value for key, value in fields.items() if value is not ...})

    def answer(self, url: str, subject: str = "u-1", **changes: Any) -> tuple[str, str]:
        """The response (XML) and the relay state for the request in this URL, as an honest provider would make it but for `changes`."""
        query = parse_qs(urlsplit(url).query)
        request = zlib.decompress(base64.b64decode(query["SAMLRequest"][0]), -15).decode()
        found = re.search(r' ID="([^"]+)"', request)
        assert found is not None
        given: dict[str, Any] = {
            "identity": {"uid": ["ada"], "displayName": ["Ada Example"], "groups": ["science"]},
            "in_response_to": found[1],
            "destination": self.acs,
            "sp_entity_id": self.sp,
            "name_id": NameID(format=NAMEID_FORMAT_PERSISTENT, text=subject),
            "authn": {"class_ref": PASSWORD_CLASS, "authn_auth": ENTITY},
            "sign_response": False,
            "sign_assertion": True,
            "sign_alg": SIG_RSA_SHA256,
            "digest_alg": DIGEST_SHA256,
            **changes,
        }
        return str(self.server.create_authn_response(**given)), query["RelayState"][0]

    def signed(self, response: str, change: Callable[[Any], object]) -> str:
        """A response whose assertion was not signed yet, changed by the provider itself before it signs."""
        made = response_from_string(response)
        assertion = made.assertion[0]
        change(made)
        assertion.signature = pre_signature_part(
            assertion.id, self.server.sec.my_cert, 1, sign_alg=SIG_RSA_SHA256, digest_alg=DIGEST_SHA256
        )
        return str(signed_instance_factory(made, self.server.sec, [(class_name(assertion), assertion.id)]))


def make_idp(directory: Path, base: str, *, entity: str = ENTITY) -> SamlIdp:
    directory.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "idp.example")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, SHA256())
    )
    key_file, cert_file = directory / "idp.key", directory / "idp.pem"
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    sp, acs = f"{base}/sign-in/saml/acme", f"{base}/sign-in/acs/acme"
    metadata = (
        f'<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{sp}">'
        '<md:SPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">'
        f'<md:AssertionConsumerService Binding="{BINDING_HTTP_POST}" Location="{acs}" index="1"/>'
        "</md:SPSSODescriptor></md:EntityDescriptor>"
    )
    settings = {
        "entityid": entity,
        "key_file": str(key_file),
        "cert_file": str(cert_file),
        "xmlsec_binary": "/usr/bin/xmlsec1",
        "metadata": {"inline": [metadata]},
        "service": {"idp": {"endpoints": {"single_sign_on_service": []}, "policy": {"default": {"lifetime": {"minutes": 5}}}}},
    }
    return SamlIdp(Server(config=IdPConfig().load(settings)), cert_file, sp, acs)


ASSERTION = re.compile(r"<(\w+):Assertion .*?</\1:Assertion>", re.DOTALL)
SIGNATURE = re.compile(r"<(\w+):Signature[ >].*?</\1:Signature>", re.DOTALL)


def wrap(response: str, number: int) -> str:
    """Wrapping attack 1 to 8 (Somorovsky et al. 2012; numbered as in SAML Raider): the signature stays good, another person is named."""
    found = ASSERTION.search(response)
    assert found is not None
    honest = found[0]
    signature_match = SIGNATURE.search(honest)
    assert signature_match is not None
    signature, bare = signature_match[0], SIGNATURE.sub("", honest, count=1)
    evil = re.sub(r' ID="[^"]+"', ' ID="_evil"', bare, count=1).replace(">u-1<", ">admin<")
    close = re.search(r"</\w+:Assertion>$", evil)
    assert close is not None
    inside = evil[: close.start()]
    rest = response.replace(honest, "\0")
    evil_signed = re.sub(r"(</\w+:Issuer>)", lambda match: match[1] + signature, evil, count=1)
    match number:
        case 1:  # an evil response around the honest one, which it carries at its end
            return (
                re.sub(r' ID="[^"]+"', ' ID="_evil-response"', rest, count=1)
                .replace("\0", evil)
                .replace("</ns0:Response>", f"{_body(response)}</ns0:Response>")
            )
        case 2:  # the same with the honest one in front
            return rest.replace("\0", f"{_body(response)}{evil}")
        case 3:
            return rest.replace("\0", f"{evil}{honest}")
        case 4:
            return rest.replace("\0", f"{inside}{honest}{close[0]}")
        case 5:
            return rest.replace("\0", f"{evil_signed}{bare}")
        case 6:
            moved = re.sub(r"(</\w+:Signature>)", lambda match: bare + match[1], evil_signed, count=1)
            return rest.replace("\0", moved)
        case 7:
            return rest.replace(
                "\0", f'<ns0:Extensions xmlns:ns0="urn:oasis:names:tc:SAML:2.0:protocol">{honest}</ns0:Extensions>{evil}'
            )
        case _:
            object_ = f'<ds:Object xmlns:ds="http://www.w3.org/2000/09/xmldsig#">{bare}</ds:Object>'
            moved = re.sub(r"(</\w+:Signature>)", lambda match: object_ + match[1], evil_signed, count=1)
            return rest.replace("\0", moved)


def _body(response: str) -> str:
    return re.sub(r"^<\?xml.*?\?>\s*", "", response)
