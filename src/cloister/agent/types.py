"""Who an agent is: the identity that enrolment gave it, parsed."""

import hashlib
import itertools
import re
from dataclasses import dataclass, replace
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from cloister.agent.errors import AgentError
from cloister.model.reasons import Code

_MISMATCH = (ValueError, TypeError, InvalidSignature)  # what cryptography raises, by the kind of mismatch
Role = Literal["connector", "client", "relay"]
_SPIFFE = re.compile(r"spiffe://([0-9a-f]{16}\.cloister)/(control|relay|connector|client)/([0-9a-f]{16})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Identity:
    """A key, the certificate chain for it (leaf, issuing), and the exchange that vouched. Only `read_identity` makes one."""

    role: Role
    agent: str
    exchange: str  # trust domain
    address: str  # `host:port` of the exchange
    chain_pem: str
    key_pem: str
    roots_pem: str
    api: str
    not_before: int
    not_after: int

    def __repr__(self) -> str:
        return f"Identity(role={self.role!r}, agent={self.agent!r}, exchange={self.exchange!r}, address={self.address!r})"

    def with_chain(self, chain_pem: str) -> "Identity":
        """The same agent with a renewed chain; refuses a chain for another key, role, agent or exchange."""
        renewed = read_identity(
            role=self.role, address=self.address, chain_pem=chain_pem, key_pem=self.key_pem, roots_pem=self.roots_pem, api=self.api
        )
        if (renewed.agent, renewed.exchange) != (self.agent, self.exchange):
            raise AgentError(Code.ROLE_MISMATCH, f"the renewed certificate names `{renewed.agent}`, not `{self.agent}`")
        return renewed

    def with_roots(self, roots_pem: str) -> "Identity":
        _read_certificates(roots_pem)
        return replace(self, roots_pem=roots_pem)


def read_identity(*, role: Role, address: str, chain_pem: str, key_pem: str, roots_pem: str, api: str = "") -> Identity:
    """Parse what enrolment, a renewal or the disk gave: the leaf is for this very key and role and signed by the issuer that follows it.

    That the chain ends at a known root is not asked here: after a planned rotation the renewed chain may arrive before the new root
    (an agent that slept through the announcement). Its peers judge it, and `check_anchored` does at enrolment.
    """
    leaf, *issuers = _read_certificates(chain_pem)
    _read_certificates(roots_pem)
    key = load_pem_private_key(key_pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AgentError(Code.CSR_INVALID, "the key on disk is not a P-256 key; remove the state directory and enrol again")
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        raise AgentError(Code.CSR_INVALID, "the certificate is for another key; remove the state directory and enrol again")
    trust_domain, leaf_role, agent = _read_spiffe_id(leaf)
    if leaf_role != role:
        raise AgentError(Code.ROLE_MISMATCH, f"the certificate is for a {leaf_role}, not for a {role}; use a key made for a {role}")
    if not issuers or not _is_issued_by(leaf, issuers[0]):
        raise AgentError(Code.ROOT_MISMATCH, "the certificate chain does not hold together")
    return Identity(
        role=role,
        agent=agent,
        exchange=trust_domain,
        address=address,
        chain_pem=chain_pem,
        key_pem=key_pem,
        roots_pem=roots_pem,
        api=api,
        not_before=int(leaf.not_valid_before_utc.timestamp()),
        not_after=int(leaf.not_valid_after_utc.timestamp()),
    )


def root_fingerprints(roots_pem: str) -> frozenset[str]:
    """SHA-256 of each root's DER, hex."""
    return frozenset(hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest() for root in _read_certificates(roots_pem))


def _read_certificates(pem: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise AgentError(
            Code.CSR_INVALID, "a certificate of this identity cannot be read; remove the state directory and enrol again"
        ) from error


def _read_spiffe_id(leaf: x509.Certificate) -> tuple[str, str, str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise AgentError(Code.ROLE_MISMATCH, "the certificate names no agent") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    found = _SPIFFE.fullmatch(uris[0]) if len(uris) == 1 else None
    if found is None:
        raise AgentError(Code.ROLE_MISMATCH, "the certificate names no agent of Cloister")
    return found[1], found[2], found[3]


def check_anchored(identity: Identity) -> None:
    """Refuse an identity whose chain does not lead to one of its roots. Validity in time is judged by the peers, on every handshake."""
    chain, roots = _read_certificates(identity.chain_pem), _read_certificates(identity.roots_pem)
    linked = all(_is_issued_by(child, parent) for child, parent in itertools.pairwise(chain))
    if not linked or not any(_is_issued_by(chain[-1], root) for root in roots):
        raise AgentError(Code.ROOT_MISMATCH, "the certificate chain does not lead to the exchange's root")


def _is_issued_by(child: x509.Certificate, parent: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(parent)
    except _MISMATCH:
        return False
    return True
