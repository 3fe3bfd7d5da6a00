"""The relay, run: a listener for carriers in the core, and a link over which the exchange orders cuts."""

import logging
from dataclasses import dataclass

from cloister import _core
from cloister.agent import process
from cloister.agent.disk import StateDir
from cloister.model.messages.from_agent import Advertise, CutDone, Draining, WantCarrier
from cloister.model.messages.from_exchange import Cut, FromExchange, Trust, Unblock

log = logging.getLogger("cloister.relay")


@dataclass(frozen=True, slots=True)
class RelaySettings:
    agent: process.AgentSettings
    listen: str  # `host:port`
    advertise: str  # `host:port` that connectors and clients dial


async def run(settings: RelaySettings) -> None:
    """Run until a signal has drained it. Raises AgentError when the exchange refuses this relay for good."""
    await process.run(settings.agent, "relay", lambda core: RelayService(core, settings))


class RelayService(process.Daemon):
    def __init__(self, core: _core.Core, settings: RelaySettings) -> None:
        super().__init__(core, settings.agent)
        self._settings = settings
        self._server: _core.Server

    def start(self, state: StateDir) -> None:  # noqa: ARG002 (a relay keeps nothing of its own)
        self._server = self.core.serve(self._settings.listen, links=False, carriers=True)
        log.info("carriers are served on `%s`, advertised as `%s`", self._server.address, self._settings.advertise)

    def take(self, event: "_core.Event") -> None:
        match event:
            case _core.CarrierWanted(connector=connector):
                self.link.send(WantCarrier(connector=connector))
            case _:
                pass  # of no concern here: the core already acted

    def on_up(self) -> None:
        self.link.send(Advertise(address=self._settings.advertise))
        process.notify_ready()

    def on_down(self) -> None:
        pass  # what is joined goes on without the exchange

    def obey(self, message: FromExchange) -> None:
        match message:
            case Cut(ref=ref, client=client, connector=connector, block=block):
                carriers = self._server.cut(client, connector)
                if block and connector is not None:
                    self._server.block(client, connector)  # cuts once more: nothing that joined in between stays
                self.link.send(CutDone(ref=ref, carriers=carriers))
                log.info("cut %d carriers of client `%s`", carriers, client)
            case Trust(revoked_agents=revoked):
                for agent in revoked:
                    self._server.drop_agent(agent)
            case Unblock(client=client, connector=connector):
                self._server.unblock(client, connector)
            case _:
                pass  # the set of relays is for connectors and clients

    async def drain(self, signals: process.Signals) -> None:
        """Take no new carrier, say so, and give joined ones their grace."""
        self._server.drain()
        self.link.send(Draining())
        log.info("draining: joined carriers get up to %.0f s", self.grace)
        await process.wait_until_idle(lambda: self.core.stats().get("carriers_joined", 0), self.grace, signals)

    def close(self) -> None:
        pass  # the core closes the listener
