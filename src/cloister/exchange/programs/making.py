"""Puts the parts of this package together."""

from collections.abc import Callable
from dataclasses import dataclass

from cloister.exchange.administration import Administration
from cloister.exchange.attempts import Noting
from cloister.exchange.book import SessionBook
from cloister.exchange.changes import Changes
from cloister.exchange.enrol import Enrolment
from cloister.exchange.issuers import IssuerKeys
from cloister.exchange.programs.clusters import Clusters
from cloister.exchange.programs.delegations import Delegations
from cloister.exchange.programs.proofs import Proofs
from cloister.exchange.programs.service import Programs
from cloister.exchange.settings import Settings
from cloister.exchange.state import State
from cloister.exchange.verify import Verifier
from cloister.exchange.writer import Writer
from cloister.store.service import Store


@dataclass(frozen=True, slots=True)
class ProgramParts:
    service: Programs
    delegations: Delegations
    clusters: Clusters


def make_programs(
    settings: Settings,
    state: State,
    book: SessionBook,
    verifier: Verifier,
    changes: Changes,
    enrolment: Enrolment,
    administration: Administration,
    issuers: IssuerKeys,
    noting: Noting,
    store: Store,
    writer: Writer,
    clock: Callable[[], float],
) -> ProgramParts:
    delegations = Delegations(settings, state, changes, clock)
    proofs = Proofs(state, issuers, delegations, clock)
    service = Programs(
        settings, state, book, verifier, enrolment, administration, proofs, delegations, noting, store, writer, clock
    )
    changes.on_proofs_changed = service.end_unvouched
    return ProgramParts(service, delegations, Clusters(state, noting, store, writer, clock))
