"""The parts of signing in, handed to each other: called once, by the composition root."""

from collections.abc import Callable
from dataclasses import dataclass

from cloister.exchange.administration import Administration
from cloister.exchange.attempts import Noting
from cloister.exchange.book import SessionBook
from cloister.exchange.changes import Changes
from cloister.exchange.enrol import Enrolment
from cloister.exchange.issuers import IssuerKeys
from cloister.exchange.links import Switchboard
from cloister.exchange.outgoing import Outgoing
from cloister.exchange.sessions import Sessions
from cloister.exchange.settings import Settings
from cloister.exchange.signin.attempts import PendingAttempts
from cloister.exchange.signin.browsers import Browsers
from cloister.exchange.signin.departures import Departures
from cloister.exchange.signin.ended import EndedSignIns
from cloister.exchange.signin.oidc import OidcClient
from cloister.exchange.signin.people import People
from cloister.exchange.signin.saml import SamlProvider
from cloister.exchange.signin.secrets import ProviderSecrets
from cloister.exchange.signin.service import SignIns
from cloister.exchange.signin.stepup import StepUps
from cloister.exchange.state import State
from cloister.exchange.verify import Verifier
from cloister.exchange.writer import Writer
from cloister.model.reasons import Code
from cloister.store.service import Store
from cloister.store.types import Agent


@dataclass(frozen=True, slots=True)
class SignInParts:
    service: SignIns
    departures: Departures
    browsers: Browsers
    secrets: ProviderSecrets


def make_sign_ins(
    settings: Settings,
    outgoing: Outgoing,
    issuers: IssuerKeys,
    state: State,
    book: SessionBook,
    switchboard: Switchboard,
    sessions: Sessions,
    verifier: Verifier,
    changes: Changes,
    enrolment: Enrolment,
    administration: Administration,
    store: Store,
    writer: Writer,
    clock: Callable[[], float],
) -> SignInParts:
    secrets = ProviderSecrets(settings.data / "secrets")
    oidc = OidcClient(outgoing, issuers, secrets, clock)

    def put(agent: Agent) -> None:
        """A sign-in changed: in force at once, for what is open and for what waits."""
        state.agents[agent.id] = agent
        verifier.check(book.of_client(agent.id), Code.STEP_UP_REQUIRED)

    step_ups = StepUps(state, changes, sessions.needed_strength, put, clock)
    people = People(state, changes)
    noting = Noting(settings.limits.refusals_noted_per_source, settings.limits.refusals_noted)
    pending, saml = PendingAttempts(clock), SamlProvider(clock)
    ended = EndedSignIns()
    service = SignIns(state, pending, oidc, saml, people, step_ups, enrolment, administration, ended, noting, store, writer, clock)
    departures = Departures(settings.limits, state, switchboard, service, oidc, administration, ended, clock)
    changes.check_provider = oidc.check_document
    return SignInParts(service, departures, Browsers(), secrets)
