"""Chains for tests: a root, an issuing CA and leaves as ARCHITECTURE.md says they are."""

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

TRUST_DOMAIN = "00112233445566aa.cloister"
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@dataclass
class Authority:
    root_key: ec.EllipticCurvePrivateKey
    root: x509.Certificate
    issuing_key: ec.EllipticCurvePrivateKey
    issuing: x509.Certificate

    @property
    def roots_pem(self) -> str:
        return self.root.public_bytes(Encoding.PEM).decode()

    def chain(
        self, key: ec.EllipticCurvePrivateKey, uri: str, *, not_before: datetime.datetime = START, life: datetime.timedelta = DAY
    ) -> str:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.issuing.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_before + life)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True)
        )
        leaf = builder.sign(self.issuing_key, SHA256())
        return (leaf.public_bytes(Encoding.PEM) + self.issuing.public_bytes(Encoding.PEM)).decode()


def make_authority() -> Authority:
    root_key, issuing_key = new_key(), new_key()
    root = _authority("root", root_key, "root", root_key)
    return Authority(root_key, root, issuing_key, _authority("issuing", issuing_key, "root", root_key))


def spiffe_id(role: str, agent: str = "0123456789abcdef") -> str:
    return f"spiffe://{TRUST_DOMAIN}/{role}/{agent}"


def _authority(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(START)
        .not_valid_after(START + 365 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(issuer_key, SHA256())
    )
