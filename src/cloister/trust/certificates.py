"""Certificates (RFC 5280): every field is written here from what was proved; a request contributes its public key and nothing else."""

import base64
import binascii
import datetime
import hashlib
import ipaddress
import json
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloister.trust.types import CONNECTOR_DNS_NAME, Identity, Role

ROOT_SECONDS = 10 * 365 * 86400
ISSUING_SECONDS = 365 * 86400
LEAF_SECONDS = 86400
BACKDATE_SECONDS = 300  # a peer whose clock is up to five minutes late accepts a fresh leaf
MAX_CSR_CHARS = 8192

_USAGES: dict[Role, list[x509.ObjectIdentifier]] = {
    "control": [ExtendedKeyUsageOID.SERVER_AUTH],
    "relay": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    "connector": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    "client": [ExtendedKeyUsageOID.CLIENT_AUTH],
}


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA certificate and the key that signs for it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class CsrRefused:
    """Why a certificate request contributes nothing; safe to show."""

    message: str


def make_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def build_root(key: ec.EllipticCurvePrivateKey, trust_domain: str, now: int) -> x509.Certificate:
    name = _ca_name(trust_domain, "root", key.public_key())
    builder = _builder(name, name, key.public_key(), key.public_key(), now, ROOT_SECONDS)
    return _as_authority(builder, path_length=1).sign(key, hashes.SHA256())


def build_issuing(root: Issuer, public_key: ec.EllipticCurvePublicKey, trust_domain: str, now: int) -> x509.Certificate:
    name = _ca_name(trust_domain, "issuing", public_key)
    builder = _builder(name, root.certificate.subject, public_key, root.key.public_key(), now, ISSUING_SECONDS)
    return _as_authority(builder, path_length=0).sign(root.key, hashes.SHA256())


def build_leaf(issuer: Issuer, public_key: ec.EllipticCurvePublicKey, identity: Identity, now: int) -> x509.Certificate:
    """A leaf of 24 h whose one URI SAN is the proved identity."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
    if identity.role == "connector":
        names.append(x509.DNSName(CONNECTOR_DNS_NAME))
    return _sign_leaf(issuer, public_key, names, _USAGES[identity.role], now)


def build_web_leaf(issuer: Issuer, public_key: ec.EllipticCurvePublicKey, host: str, now: int) -> x509.Certificate:
    """The certificate of the web front when the operator has none. It has no URI SAN, so that it is nobody on an agents' leg."""
    return _sign_leaf(issuer, public_key, [_host_name(host)], [ExtendedKeyUsageOID.SERVER_AUTH], now)


def read_csr(text: str) -> ec.EllipticCurvePublicKey | CsrRefused:
    """The public key of a PKCS#10 request (RFC 2986; DER in base64) whose holder signed it. Names and extensions are never looked at."""
    if len(text) > MAX_CSR_CHARS:
        return CsrRefused(f"the certificate request is longer than `{MAX_CSR_CHARS}` characters")
    try:
        der = base64.b64decode(text, validate=True)
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
        signed = request.is_signature_valid
    except (binascii.Error, ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        return CsrRefused(f"the certificate request cannot be read: {type(error).__name__}")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return CsrRefused("the key of the certificate request is not P-256")
    if not signed or request.public_bytes(serialization.Encoding.DER) != der:
        return CsrRefused("the certificate request is not signed by its own key")
    return key


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER form, lower hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def thumbprint(public_key: ec.EllipticCurvePublicKey) -> str:
    """RFC 7638 thumbprint of a P-256 key, base64url without padding."""
    numbers = public_key.public_numbers()
    x, y = (base64url(value.to_bytes(32, "big")) for value in (numbers.x, numbers.y))
    canonical = json.dumps({"crv": "P-256", "kty": "EC", "x": x, "y": y}, separators=(",", ":"), sort_keys=True)
    return base64url(hashlib.sha256(canonical.encode()).digest())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def to_pem(*certificates: x509.Certificate) -> str:
    return "".join(certificate.public_bytes(serialization.Encoding.PEM).decode() for certificate in certificates)


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def _ca_name(trust_domain: str, purpose: str, public_key: ec.EllipticCurvePublicKey) -> x509.Name:
    # A name per key: path building never confuses the old CA with the new one during a rotation.
    key_id = x509.SubjectKeyIdentifier.from_public_key(public_key).digest[:4].hex()
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{trust_domain} {purpose} {key_id}")])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    now: int,
    seconds: int,
) -> x509.CertificateBuilder:
    start = datetime.datetime.fromtimestamp(now - BACKDATE_SECONDS, datetime.UTC)
    end = datetime.datetime.fromtimestamp(now + seconds, datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _as_authority(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True).add_extension(
        _key_usage(signs_certificates=True), critical=True
    )


def _sign_leaf(
    issuer: Issuer,
    public_key: ec.EllipticCurvePublicKey,
    names: list[x509.GeneralName],
    usages: list[x509.ObjectIdentifier],
    now: int,
) -> x509.Certificate:
    builder = (
        _builder(x509.Name([]), issuer.certificate.subject, public_key, issuer.key.public_key(), now, LEAF_SECONDS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=True)  # critical: the subject is empty (RFC 5280 §4.2.1.6)
    )
    return builder.sign(issuer.key, hashes.SHA256())


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return x509.DNSName(host)
