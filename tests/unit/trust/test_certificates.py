"""Laws of the certificates that the exchange issues."""

import base64
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from cloister.trust.certificates import (
    LEAF_SECONDS,
    MAX_CSR_CHARS,
    CsrRefused,
    build_leaf,
    fingerprint,
    make_key,
    read_csr,
    to_pem,
)
from cloister.trust.keyring import Keyring, create_keyring
from cloister.trust.types import CONNECTOR_DNS_NAME, ROLES, Identity, Role, parse_identity

NOW = 1_800_000_000


@pytest.fixture(scope="module")
def keyring() -> Keyring:
    return create_keyring(NOW)


def _encode(request: x509.CertificateSigningRequest) -> str:
    return base64.b64encode(request.public_bytes(serialization.Encoding.DER)).decode()


def _request(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, *extensions: x509.ExtensionType
) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "spiffe://evil/control/0000000000000000")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return _encode(builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()))


@pytest.mark.parametrize("role", ROLES)
def test_leaf_says_exactly_the_proved_identity_for_a_day(keyring: Keyring, role: Role) -> None:
    identity = Identity(keyring.trust_domain, role, "00112233445566aa")
    leaf, chain = keyring.issue(make_key().public_key(), identity, NOW)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [identity.uri]
    assert names.value.get_values_for_type(x509.DNSName) == ([CONNECTOR_DNS_NAME] if role == "connector" else [])
    assert parse_identity(identity.uri) == identity
    assert leaf.not_valid_after_utc == datetime.datetime.fromtimestamp(NOW + LEAF_SECONDS, datetime.UTC)
    assert leaf.not_valid_before_utc < datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert chain == to_pem(leaf, keyring.authority.issuing.certificate)


def test_chain_is_signed_up_to_the_root_with_path_lengths(keyring: Keyring) -> None:
    authority = keyring.authority
    leaf, _ = keyring.issue(make_key().public_key(), keyring.control, NOW)
    leaf.verify_directly_issued_by(authority.issuing.certificate)
    authority.issuing.certificate.verify_directly_issued_by(authority.root.certificate)
    authority.root.certificate.verify_directly_issued_by(authority.root.certificate)
    lengths = [
        item.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        for item in (authority.root, authority.issuing)
    ]
    assert lengths == [1, 0]


def test_case_28_serials_are_unique(keyring: Keyring) -> None:
    key = make_key().public_key()
    issued = [build_leaf(keyring.authority.issuing, key, keyring.relay, NOW) for _ in range(300)]
    assert len({leaf.serial_number for leaf in issued}) == len({fingerprint(leaf) for leaf in issued}) == 300


def test_case_24_greedy_request_contributes_its_key_only(keyring: Keyring) -> None:
    key = make_key()
    text = _request(
        key,
        x509.BasicConstraints(ca=True, path_length=5),
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(keyring.control.uri), x509.DNSName("example.com")]),
        x509.KeyUsage(True, True, True, True, True, True, True, False, False),
        x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CODE_SIGNING]),
    )
    public_key = read_csr(text)
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert public_key == key.public_key()
    identity = Identity(keyring.trust_domain, "client", "00112233445566aa")
    leaf, _ = keyring.issue(public_key, identity, NOW)
    plain, _ = keyring.issue(make_key().public_key(), identity, NOW)
    assert [extension.oid for extension in leaf.extensions] == [extension.oid for extension in plain.extensions]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert b"example.com" not in leaf.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ec.generate_private_key(ec.SECP224R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=lambda key: type(key).__name__,
)
def test_case_24_any_key_but_p256_is_refused(key: ec.EllipticCurvePrivateKey) -> None:
    assert isinstance(read_csr(_request(key)), CsrRefused)


def test_case_24_bad_self_signature_is_refused() -> None:
    der = bytearray(base64.b64decode(_request(make_key())))
    der[-1] ^= 1
    assert isinstance(read_csr(base64.b64encode(der).decode()), CsrRefused)


def test_case_24_trailing_bytes_are_refused() -> None:
    der = base64.b64decode(_request(make_key()))
    assert isinstance(read_csr(base64.b64encode(der + b"\0").decode()), CsrRefused)


def test_case_24_duplicated_extension_changes_nothing(keyring: Keyring) -> None:
    key = make_key()
    der = base64.b64decode(_request(key, x509.BasicConstraints(ca=True, path_length=None), x509.ExtendedKeyUsage([])))
    answer = read_csr(base64.b64encode(der).decode())
    assert isinstance(answer, ec.EllipticCurvePublicKey)


def test_case_24_oversize_is_refused_unparsed() -> None:
    assert isinstance(read_csr("A" * (MAX_CSR_CHARS + 1)), CsrRefused)
    assert isinstance(read_csr("A" * (1 << 20)), CsrRefused)


@pytest.mark.parametrize("text", ["", "!", "AAAA", "=", "é"])
def test_case_24_garbage_is_refused(text: str) -> None:
    assert isinstance(read_csr(text), CsrRefused)


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://0123456789abcdef.cloister/admin/0123456789abcdef",
        "spiffe://0123456789abcdef.cloister/client/0123456789ABCDEF",
        "spiffe://0123456789abcdef.cloister/client/0123456789abcdef/x",
        "spiffe://0123456789abcdef.cloister/client/0123456789abcdef\n",
        "https://0123456789abcdef.cloister/client/0123456789abcdef",
    ],
)
def test_anything_but_our_form_is_no_identity(uri: str) -> None:
    assert parse_identity(uri) is None


def test_identity_of_another_exchange_is_never_issued(keyring: Keyring) -> None:
    with pytest.raises(ValueError, match="another exchange"):
        keyring.issue(make_key().public_key(), Identity("0" * 16 + ".cloister", "client", "00112233445566aa"), NOW)
