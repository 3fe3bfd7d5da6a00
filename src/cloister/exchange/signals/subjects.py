"""From whom an event names to whom it is about here. Only whom the transmitter's document lets it speak of; nobody where more than one would fit."""

from collections.abc import Callable, Iterable

from cloister.exchange.signals.types import Concerned
from cloister.exchange.state import Library, State
from cloister.identity.signals.types import Account, Email, EventSubject, Identifier, IssuerSubject, Opaque
from cloister.model.documents import Device, Document, User
from cloister.model.transmitters import SignalTransmitter, SignalUsers

SUBJECT = "subject"
EMAIL = "email"


def find_concerned(state: State, transmitter: SignalTransmitter, subject: EventSubject, *, is_device: bool) -> Concerned | None:
    """Everything that is named must be found, or nobody is concerned. `is_device`: the event speaks of a device, so a plain opaque id is one's."""
    if subject.foreign or not _is_own_tenant(transmitter, subject.tenant):
        return None
    names_device = (
        is_device or transmitter.users is None or (isinstance(subject.plain, Opaque) and transmitter.users.opaque is None)
    )
    user_named = subject.user or (None if names_device else subject.plain)
    device_named = subject.device or (subject.plain if names_device else None)
    user = None if user_named is None else _find_user(state.library, transmitter.users, user_named)
    device = None if device_named is None else _find_device(state.library, transmitter, device_named)
    if (user_named is not None and user is None) or (device_named is not None and device is None):
        return None
    if subject.session is None:
        agents = None if user is None or device is None else _agents(state, lambda id: _is_of(state, id, user, device))
        return Concerned(user, device, agents) if user or device else None
    if transmitter.users is None or not isinstance(subject.session, Opaque):
        return None
    session, issuer = subject.session.id, transmitter.users.issuer
    agents = _agents(state, lambda id: _has_session(state, id, session, issuer) and _is_of(state, id, user, device))
    return Concerned(user, device, agents) if agents else None


def _is_own_tenant(transmitter: SignalTransmitter, tenant: Identifier | None) -> bool:
    return tenant is None or (isinstance(tenant, Opaque) and tenant.id == transmitter.tenant)


def _find_user(library: Library, users: SignalUsers | None, named: Identifier) -> str | None:
    if users is None:
        return None
    match named:
        case IssuerSubject(issuer, subject):
            return None if issuer != users.issuer else _only(_users(library, users, lambda user: subject_of(user) == subject))
        case Email(address):
            mail = address.lower()
            if users.email_domain is None or mail.rpartition("@")[2] != users.email_domain:
                return None
            return _only(_users(library, users, lambda user: user.labels.get(EMAIL, user.name).lower() == mail))
        case Opaque(id) | Account(id):
            label = users.opaque
            if label is None:
                return None
            key = subject_of if label == SUBJECT else lambda user: user.labels.get(label)
            return _only(_users(library, users, lambda user: key(user) == id))


def subject_of(user: User) -> str:
    return user.subject if user.subject is not None else user.name


def _users(library: Library, users: SignalUsers, fits: Callable[[User], bool]) -> Iterable[str]:
    for id, document in library.parsed.items():
        if isinstance(document, User) and document.issuer == users.issuer and fits(document):
            yield id


def _find_device(library: Library, transmitter: SignalTransmitter, named: Identifier) -> str | None:
    devices = transmitter.devices
    if devices is None or not isinstance(named, Opaque):
        return None

    def is_meant(document: Document) -> bool:
        if not isinstance(document, Device) or document.labels.get(devices.label) != named.id:
            return False
        return all(document.labels.get(key) == value for key, value in devices.labels.items())

    return _only(id for id, document in library.parsed.items() if is_meant(document))


def _only(ids: Iterable[str]) -> str | None:
    found = list(ids)
    return found[0] if len(found) == 1 else None


def _agents(state: State, fits: Callable[[str], bool]) -> tuple[str, ...]:
    return tuple(id for id, agent in state.agents.items() if agent.role == "client" and agent.revoked_at is None and fits(id))


def _is_of(state: State, id: str, user: str | None, device: str | None) -> bool:
    agent = state.agents[id]
    return user in (None, agent.principal) and device in (None, agent.device)


def _has_session(state: State, id: str, session: str, issuer: str) -> bool:
    """A session is named by the identity provider's own id of it, so it is one of its users'."""
    agent = state.agents[id]
    user = state.parsed.get(agent.principal or "")
    return agent.sign_in_session == session and isinstance(user, User) and user.issuer == issuer
