"""The keys of transmitters: the document's own, or found by discovery (Shared Signals Framework 1.0, section 7)."""

from collections.abc import Callable
from pathlib import Path

from cloister.exchange.issuers import Issuer, IssuerKeys
from cloister.exchange.outgoing import Outgoing, Reach
from cloister.exchange.signals.types import Transmitter
from cloister.identity.tokens.keys import KeySet
from cloister.model.transmitters import SignalTransmitter

WELL_KNOWN = "/.well-known/ssf-configuration"


class TransmitterKeys:
    def __init__(self, outgoing: Outgoing, clock: Callable[[], float]) -> None:
        self._issuers = IssuerKeys(outgoing, clock)
        self._own: dict[str, tuple[SignalTransmitter, KeySet]] = {}

    async def of(self, transmitter: Transmitter, token: str) -> KeySet:
        """The keys that may have signed this token. Raises Refusal while the transmitter cannot be asked for them."""
        document = transmitter.document
        if not document.keys:
            return await self._issuers.keys_for(issuer_of(document), token)
        known = self._own.get(transmitter.id)
        if known is None or known[0] is not document:
            listed = [dict(key) for key in document.keys]
            known = self._own[transmitter.id] = (document, KeySet.from_jwks({"keys": listed}, frozenset(document.algorithms)))
        return known[1]

    def keep(self, transmitters: set[str]) -> None:
        for gone in self._own.keys() - transmitters:
            del self._own[gone]


def issuer_of(document: SignalTransmitter) -> Issuer:
    return Issuer(
        document.issuer,
        frozenset(document.algorithms),
        reach_of(document),
        frozenset(document.endpoint_hosts),
        well_known=WELL_KNOWN,
    )


def reach_of(document: SignalTransmitter) -> Reach:
    return Reach(frozenset(document.allow_internal), None if document.ca_file is None else Path(document.ca_file))
