"""The relays: the embedded one and those that run alone. Where carriers go, and the orders to cut them."""

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection

from cloister import _core
from cloister.exchange.links import LiveLink, Switchboard
from cloister.exchange.writer import Writer
from cloister.model.messages.common import RelayAddress
from cloister.model.messages.from_exchange import Cut, OpenCarrier, Relays, Unblock
from cloister.store import sessions as session_rows
from cloister.store.service import Store
from cloister.store.types import RelayBlock


class RelaySet:
    """Knows every relay that carries for this exchange. `embedded` is None when the exchange runs control only."""

    def __init__(self, switchboard: Switchboard, store: Store, writer: Writer, clock: Callable[[], float]) -> None:
        self._switchboard = switchboard
        self._store = store
        self._writer = writer
        self._clock = clock
        self._server: _core.Server | None = None
        self._embedded: RelayAddress | None = None
        self._known: dict[str, str] = {}  # standalone relays that have been up since the start: agent → address
        self._blocks: dict[tuple[str, str], RelayBlock] = {}
        self._ref = 0

    def attach(self, server: _core.Server, embedded: RelayAddress | None) -> None:
        """The listener is up: what was blocked before a restart is blocked again."""
        self._embedded = embedded
        self._server = server if embedded is not None else None
        with self._store.read() as connection:
            self._blocks = {(block.client, block.connector): block for block in session_rows.list_blocks(connection)}
        if self._server is not None:
            for block in self._blocks.values():
                if not block.cleared:
                    self._server.block(block.client, block.connector)

    # ------------------------------------------------------------ where carriers go

    def message(self) -> Relays:
        """Every relay, those that are up first."""
        addresses = [self._embedded] if self._embedded is not None else []
        up = {link.agent for link in self._switchboard.of_role("relay")}
        for agent, address in sorted(self._known.items(), key=lambda item: (item[0] not in up, item[0])):
            addresses.append(RelayAddress(id=agent, address=address))
        return Relays(relays=addresses)

    def ids(self) -> list[str]:
        """For a session: relays that can be told to cut, in the order of preference."""
        ready = [link for link in self._switchboard.of_role("relay") if link.advertised and not link.draining]
        return ([self._embedded.id] if self._embedded is not None else []) + sorted(link.agent for link in ready)

    def advertise(self, link: LiveLink, address: str) -> None:
        """A relay says where it is reached, and is told what it must refuse and what it need not refuse any more."""
        link.advertised = address
        self._known[link.agent] = address
        for block in list(self._blocks.values()):
            if not block.cleared:
                self._order_cut(link, block.client, block.connector, block=True)
            elif link.agent in block.owed:
                self._switchboard.send(link, Unblock(client=block.client, connector=block.connector))
                self._put(replace(block, owed=tuple(agent for agent in block.owed if agent != link.agent)))

    def forget(self, agent: str) -> None:
        """A relay was revoked."""
        self._known.pop(agent, None)

    def want_carrier(self, connector: str, relay: str) -> None:
        """A join waits at this relay: ask the connector for one more carrier."""
        self._switchboard.send_to(connector, OpenCarrier(relay=relay))

    @property
    def embedded_id(self) -> str | None:
        return None if self._embedded is None else self._embedded.id

    # ------------------------------------------------------------ cutting

    def cut_client(self, client: str) -> None:
        """End every carrier of a client, wherever it goes."""
        if self._server is not None:
            self._server.cut(client)
        for link in self._switchboard.of_role("relay"):
            self._order_cut(link, client, None, block=False)

    def block(self, client: str, connector: str, generation: int, until: int) -> None:
        """Cut this pair, and refuse its joins until `unblock`: the connector has not confirmed what was revoked at `generation`."""
        known = self._blocks.get((client, connector))
        if known is not None and not known.cleared:  # it stands for the longest ticket of all that were revoked for this pair
            generation, until = max(generation, known.generation), max(until, known.until)
            if (generation, until) == (known.generation, known.until):
                return
        if self._server is not None:
            self._server.block(client, connector)
        for link in self._switchboard.of_role("relay"):
            self._order_cut(link, client, connector, block=True)
        self._put(RelayBlock(client, connector, generation, until))

    def reconciled(self, connector: str, generation: int) -> None:
        """The connector has confirmed everything up to `generation`."""
        for block in [block for block in self._blocks.values() if block.connector == connector]:
            if not block.cleared and block.generation <= generation:
                self._clear(block)

    def expire(self, now: float) -> None:
        """No ticket that a block is about can be accepted any more."""
        for block in list(self._blocks.values()):
            if block.until <= now and not block.cleared:
                self._clear(block)

    def _clear(self, block: RelayBlock) -> None:
        if self._server is not None:
            self._server.unblock(block.client, block.connector)
        told = set()
        for link in self._switchboard.of_role("relay"):
            if self._switchboard.send(link, Unblock(client=block.client, connector=block.connector)):
                told.add(link.agent)
        self._put(replace(block, cleared=True, owed=tuple(sorted(self._known.keys() - told))))

    def _put(self, block: RelayBlock) -> None:
        if block.cleared and not block.owed:
            self._blocks.pop((block.client, block.connector), None)
            self._write(lambda connection: session_rows.delete_block(connection, block.client, block.connector))
        else:
            self._blocks[block.client, block.connector] = block
            self._write(lambda connection: session_rows.put_block(connection, block))

    def _write(self, work: Callable[[Connection], None]) -> None:
        def run() -> None:
            with self._store.note() as connection:
                work(connection)

        self._writer.start(run)

    def _order_cut(self, link: LiveLink, client: str, connector: str | None, *, block: bool) -> None:
        self._ref += 1
        self._switchboard.send(link, Cut(ref=self._ref, client=client, connector=connector, block=block))
