"""The exchange's keys and how they change: pure transitions of one immutable `Keyring`. Where it lies on disk is `keystore.py`.

An *authority* is a root and the issuing CA below it. A planned rotation walks a new authority through three states, so that no agent ever
meets a chain that it cannot verify:

    announced   its root is among the trust anchors; it signs nothing
    active      it signs leaves; its issuing CA is also signed by the old root, for agents that slept through the announcement
    retired     still a trust anchor, until the last leaf it vouched for can no longer be renewed

`replace_compromised` has no overlap: what the old key vouched for is worth nothing from then on.
"""

import secrets
from dataclasses import dataclass, field, replace
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from cloister.trust.certificates import (
    Issuer,
    build_issuing,
    build_leaf,
    build_root,
    build_web_leaf,
    fingerprint,
    make_key,
    to_pem,
)
from cloister.trust.tickets import key_id, sign_ticket
from cloister.trust.types import Identity, TicketClaims

State = Literal["announced", "active", "retired"]
ISSUING_RENEWAL_SECONDS = 120 * 86400  # an issuing CA with less life left is replaced
MAX_AUTHORITIES = 4
MAX_TICKET_KEYS = 8


@dataclass(frozen=True, slots=True)
class Authority:
    """A root with its key, the issuing CA with its key; `cross` is the issuing CA signed by the previous root."""

    state: State
    since: int
    root: Issuer
    issuing: Issuer
    cross: x509.Certificate | None = None

    @property
    def id(self) -> str:
        return fingerprint(self.root.certificate)[:16]


@dataclass(frozen=True, slots=True)
class TicketKey:
    state: State
    since: int
    key: ed25519.Ed25519PrivateKey
    kid: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kid", key_id(self.key.public_key()))  # read for every ticket


@dataclass(frozen=True, slots=True)
class Keyring:
    """Everything the exchange signs with. Exactly one authority and one ticket key are active. `epoch` grows by one with each restore."""

    trust_domain: str
    epoch: int
    control_id: str
    relay_id: str
    authorities: tuple[Authority, ...]
    ticket_keys: tuple[TicketKey, ...]

    def __post_init__(self) -> None:
        for items in (self.authorities, self.ticket_keys):
            if sum(item.state == "active" for item in items) != 1:
                raise ValueError("exactly one authority and one ticket key are active")
        if len(self.authorities) > MAX_AUTHORITIES or len(self.ticket_keys) > MAX_TICKET_KEYS:
            raise ValueError("too many keys: an earlier rotation is not finished")

    @property
    def authority(self) -> Authority:
        return next(item for item in self.authorities if item.state == "active")

    @property
    def ticket_key(self) -> TicketKey:
        return next(item for item in self.ticket_keys if item.state == "active")

    @property
    def control(self) -> Identity:
        return Identity(self.trust_domain, "control", self.control_id)

    @property
    def relay(self) -> Identity:
        return Identity(self.trust_domain, "relay", self.relay_id)

    @property
    def root_sha256(self) -> str:
        """What provisioning keys and login lines pin."""
        return fingerprint(self.authority.root.certificate)

    def roots_pem(self) -> str:
        """The trust anchors of every leg, active first."""
        ordered = sorted(self.authorities, key=lambda item: item.state != "active")
        return to_pem(*(item.root.certificate for item in ordered))

    def ticket_verification_keys(self) -> dict[str, bytes]:
        return {item.kid: item.key.public_key().public_bytes_raw() for item in self.ticket_keys}

    def issue(self, public_key: ec.EllipticCurvePublicKey, identity: Identity, now: int) -> tuple[x509.Certificate, str]:
        """A leaf and the chain that its holder shows (leaf, issuing), PEM."""
        if identity.trust_domain != self.trust_domain:
            raise ValueError(f"the identity `{identity.uri}` is of another exchange")
        leaf = build_leaf(self.authority.issuing, public_key, identity, now)
        return leaf, to_pem(leaf, self.authority.issuing.certificate)

    def issue_own(self, public_key: ec.EllipticCurvePublicKey, identity: Identity, now: int) -> tuple[x509.Certificate, str]:
        """The same for the exchange itself. Its chain goes on with the cross-signed issuing CA, for agents that know only the old root, and the
        roots, so that first contact can compare a fingerprint."""
        leaf, chain = self.issue(public_key, identity, now)
        return leaf, chain + self._cross_pem() + self.roots_pem()

    def issue_web(self, public_key: ec.EllipticCurvePublicKey, host: str, now: int) -> str:
        leaf = build_web_leaf(self.authority.issuing, public_key, host, now)
        return to_pem(leaf, self.authority.issuing.certificate) + self._cross_pem()

    def sign_ticket(self, claims: TicketClaims) -> str:
        return sign_ticket(self.ticket_key.key, self.ticket_key.kid, claims)

    def _cross_pem(self) -> str:
        return to_pem(self.authority.cross) if self.authority.cross else ""


def create_keyring(now: int) -> Keyring:
    """The keys of a new exchange."""
    domain = f"{secrets.token_hex(8)}.cloister"
    return Keyring(
        trust_domain=domain,
        epoch=1,
        control_id=secrets.token_hex(8),
        relay_id=secrets.token_hex(8),
        authorities=(_make_authority(domain, "active", now),),
        ticket_keys=(_make_ticket_key("active", now),),
    )


def announce_authority(keyring: Keyring, now: int) -> Keyring:
    """First step of a planned rotation: a new root that agents learn before anything is signed below it. Idempotent."""
    if any(item.state == "announced" for item in keyring.authorities):
        return keyring
    return replace(keyring, authorities=(*keyring.authorities, _make_authority(keyring.trust_domain, "announced", now)))


def activate_authority(keyring: Keyring, now: int) -> Keyring:
    """Second step: the announced authority signs from now on; the old one only verifies. No-op when none is announced."""
    new = next((item for item in keyring.authorities if item.state == "announced"), None)
    if new is None:
        return keyring
    old = keyring.authority
    cross = build_issuing(old.root, new.issuing.key.public_key(), keyring.trust_domain, now)
    changed = {
        new.id: replace(new, state="active", since=now, cross=cross),
        old.id: replace(old, state="retired", since=now, cross=None),
    }
    return replace(keyring, authorities=tuple(changed.get(item.id, item) for item in keyring.authorities))


def remove_retired_authorities(keyring: Keyring, retired_before: int) -> Keyring:
    """Last step: authorities retired before this time are no trust anchors any more."""
    kept = tuple(item for item in keyring.authorities if item.state != "retired" or item.since >= retired_before)
    if len(kept) == len(keyring.authorities):
        return keyring
    if not any(item.state == "retired" for item in kept):
        kept = tuple(replace(item, cross=None) for item in kept)
    return replace(keyring, authorities=kept)


def replace_compromised(keyring: Keyring, now: int) -> Keyring:
    """A new authority and a new ticket key at once; nothing of the old ones verifies any more."""
    return replace(
        keyring,
        authorities=(_make_authority(keyring.trust_domain, "active", now),),
        ticket_keys=(_make_ticket_key("active", now),),
    )


def renew_issuing(keyring: Keyring, now: int) -> Keyring:
    """Replace the active issuing CA when it is about to end. The trust anchors stay, so nobody notices."""
    authority = keyring.authority
    if authority.issuing.certificate.not_valid_after_utc.timestamp() - now > ISSUING_RENEWAL_SECONDS:
        return keyring
    key = make_key()
    certificate = build_issuing(authority.root, key.public_key(), keyring.trust_domain, now)
    renewed = replace(authority, issuing=Issuer(certificate, key), cross=None)
    return replace(keyring, authorities=tuple(renewed if item.id == authority.id else item for item in keyring.authorities))


def announce_ticket_key(keyring: Keyring, now: int) -> Keyring:
    """A ticket key that verifiers learn before anything is signed with it. Idempotent."""
    if any(item.state == "announced" for item in keyring.ticket_keys):
        return keyring
    return replace(keyring, ticket_keys=(*keyring.ticket_keys, _make_ticket_key("announced", now)))


def activate_ticket_key(keyring: Keyring, now: int) -> Keyring:
    new = next((item for item in keyring.ticket_keys if item.state == "announced"), None)
    if new is None:
        return keyring
    changed = {
        new.kid: replace(new, state="active", since=now),
        keyring.ticket_key.kid: replace(keyring.ticket_key, state="retired", since=now),
    }
    return replace(keyring, ticket_keys=tuple(changed.get(item.kid, item) for item in keyring.ticket_keys))


def remove_retired_ticket_keys(keyring: Keyring, retired_before: int) -> Keyring:
    kept = tuple(item for item in keyring.ticket_keys if item.state != "retired" or item.since >= retired_before)
    return keyring if len(kept) == len(keyring.ticket_keys) else replace(keyring, ticket_keys=kept)


def start_epoch(keyring: Keyring, now: int) -> Keyring:
    """After a restore: the ticket key is new, so that every ticket made before is void."""
    return replace(keyring, epoch=keyring.epoch + 1, ticket_keys=(_make_ticket_key("active", now),))


def _make_authority(trust_domain: str, state: State, now: int) -> Authority:
    root_key, issuing_key = make_key(), make_key()
    root = Issuer(build_root(root_key, trust_domain, now), root_key)
    issuing = Issuer(build_issuing(root, issuing_key.public_key(), trust_domain, now), issuing_key)
    return Authority(state, now, root, issuing)


def _make_ticket_key(state: State, now: int) -> TicketKey:
    return TicketKey(state, now, ed25519.Ed25519PrivateKey.generate())
