"""The parts of signals and risk, handed to each other: called once, by the composition root."""

from collections.abc import Callable
from dataclasses import dataclass

from cloister.exchange.changes import Changes
from cloister.exchange.evidence import Evidence
from cloister.exchange.outgoing import Outgoing
from cloister.exchange.settings import Settings
from cloister.exchange.signals.groups import ClaimedGroups
from cloister.exchange.signals.keys import TransmitterKeys
from cloister.exchange.signals.poll import Poller
from cloister.exchange.signals.receiver import Receiver
from cloister.exchange.signals.risk import RiskScores
from cloister.exchange.signals.secrets import TransmitterSecrets
from cloister.exchange.signin.people import People
from cloister.exchange.state import State
from cloister.exchange.writer import Writer
from cloister.store.service import Store


@dataclass(frozen=True, slots=True)
class SignalParts:
    receiver: Receiver
    poller: Poller
    secrets: TransmitterSecrets
    risk: RiskScores


def make_signals(
    settings: Settings,
    outgoing: Outgoing,
    state: State,
    evidence: Evidence,
    changes: Changes,
    store: Store,
    writer: Writer,
    clock: Callable[[], float],
) -> SignalParts:
    secrets = TransmitterSecrets(settings.data / "secrets", changes, store, clock)
    keys, groups = TransmitterKeys(outgoing, clock), ClaimedGroups(state, People(state, changes))
    receiver = Receiver(state, evidence, changes, keys, secrets, groups, store, writer, clock)
    return SignalParts(receiver, Poller(receiver, secrets, outgoing, clock), secrets, RiskScores(state, evidence, clock))
