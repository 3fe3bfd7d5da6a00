"""What the routes are given: the parts of the exchange, and who is calling."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cloister.exchange.administration import Administration
from cloister.exchange.api_tokens import ApiTokens
from cloister.exchange.approvals import Approvals
from cloister.exchange.book import SessionBook
from cloister.exchange.changes import Changes
from cloister.exchange.devices.service import Devices
from cloister.exchange.directory import Directory
from cloister.exchange.enrol import Enrolment
from cloister.exchange.evidence import Evidence
from cloister.exchange.links import Switchboard
from cloister.exchange.programs.making import ProgramParts
from cloister.exchange.rotation import Rotation
from cloister.exchange.scim.directories import Directories
from cloister.exchange.scim.query import Searches
from cloister.exchange.scim.service import Scim
from cloister.exchange.sessions import Sessions
from cloister.exchange.settings import Settings
from cloister.exchange.signals.making import SignalParts
from cloister.exchange.signin.making import SignInParts
from cloister.exchange.state import State
from cloister.store.service import Store
from cloister.store.types import Account, Actor, ApiToken


@dataclass(frozen=True, slots=True)
class Parts:
    settings: Settings
    state: State
    book: SessionBook
    switchboard: Switchboard
    directory: Directory
    sessions: Sessions
    enrolment: Enrolment
    changes: Changes
    evidence: Evidence
    signals: SignalParts
    approvals: Approvals
    devices: Devices
    administration: Administration
    api_tokens: ApiTokens
    sign_ins: SignInParts
    programs: ProgramParts
    rotation: Rotation
    directories: Directories
    scim: Scim
    searches: Searches
    store: Store
    hashing: ThreadPoolExecutor
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Caller:
    """Made by the guard and by nothing else: a token that is good, and the account behind it."""

    token: ApiToken
    account: Account
    name: str
    actor: Actor
