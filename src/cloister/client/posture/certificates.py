"""Whether a certificate is in force and chains to a CA (RFC 5280 §6, without names, policies and revocation: it is a fact about a file, not a proof of
who holds its key)."""

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from cloister.client.posture.types import Unreadable

MAX_CHAIN = 8


def judge_certificate(pem: bytes, ca_pem: bytes, now: datetime) -> str:
    """`valid`, `expired` (or not in force yet), or `untrusted`. The first certificate of the file is meant, the others may stand between."""
    try:
        chain = x509.load_pem_x509_certificates(pem)
        roots = x509.load_pem_x509_certificates(ca_pem)
    except ValueError:
        raise Unreadable("the file holds no certificate in PEM") from None
    leaf, others = chain[0], chain[1:MAX_CHAIN]
    if not _in_force(leaf, now):
        return "expired"
    return "valid" if any(_chains(leaf, root, others, now) for root in roots[:MAX_CHAIN]) else "untrusted"


def _chains(certificate: x509.Certificate, root: x509.Certificate, between: list[x509.Certificate], now: datetime) -> bool:
    if not _in_force(root, now):
        return False
    if certificate == root or _issued(certificate, root):
        return True
    for at, issuer in enumerate(between):
        rest = between[:at] + between[at + 1 :]
        if _in_force(issuer, now) and _is_ca(issuer) and _issued(certificate, issuer) and _chains(issuer, root, rest, now):
            return True
    return False


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _in_force(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False
