"""Hands carriers over to a client that is not ours: what it says to the printed door goes to a connector's tunnel, untouched.

Usage: shim.py STATE HOST:PORT. Gets a session like any client, and for every connection at its door does the carrier's part of
ARCHITECTURE.md ("Carriers"): outer TLS to a relay, `join`, `go`; from then on both sides are raw bytes. Prints one JSON line:
`{"door": PORT, "session": …, "ticket": …}` and ends when it is terminated.
"""

import asyncio
import contextlib
import json
import ssl
import struct
import sys
from pathlib import Path

from cloister import _core
from cloister.agent.disk import StateDir
from cloister.agent.link import Link
from cloister.agent.pump import EventPump
from cloister.model.messages.from_agent import WantSession
from cloister.model.messages.from_exchange import FromExchange, Relays, Session

CHUNK = 1 << 16
PATIENCE = 15.0


class Shim:
    def __init__(self, state: Path, host: str, port: int) -> None:
        self._destination = (host, port)
        self._disk = StateDir(state)
        identity = self._disk.load_identity("client")
        assert identity is not None
        self._identity = identity
        self.relays: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.session: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        core = _core.Core()
        self._link = Link(core, self._disk, identity, on_message=self._on_message, on_up=self._on_up, on_down=lambda: None)
        self._pump = EventPump(core, self._on_event)

    def _on_event(self, event: _core.Event) -> None:
        self._link.handle(event)

    def _on_up(self) -> None:
        host, port = self._destination
        self._link.send(WantSession(ref=1, host=host, port=port, protocol="tcp"))

    def _on_message(self, message: FromExchange) -> None:
        match message:
            case Relays() if message.relays and not self.relays.done():
                self.relays.set_result(message.relays[0].address)
            case Session(ref=1) if not self.session.done():
                self.session.set_result(message)
            case _:
                pass

    async def carry(self, near_reader: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await self._open_carrier()
        await asyncio.gather(_pump_bytes(near_reader, far_writer), _pump_bytes(far_reader, near_writer))

    async def _open_carrier(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A carrier after `go`: the outer TLS is over, without a word, and what follows is the tunnel's."""
        host, _, port = (await self.relays).rpartition(":")
        session = await self.session
        reader, writer = await asyncio.open_connection(host, int(port))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # a relay is told by its SPIFFE id; this shim only needs the chain
        context.load_verify_locations(cadata=self._identity.roots_pem)
        context.set_alpn_protocols(["cloister-carrier/1"])
        certificate = self._disk.path / "shim.pem"
        certificate.write_text(self._identity.chain_pem + self._identity.key_pem)
        context.load_cert_chain(certificate)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        outer = context.wrap_bio(incoming, outgoing)

        async def more() -> None:
            writer.write(outgoing.read())
            data = await reader.read(CHUNK)
            if not data:
                raise ConnectionError("the relay hung up")
            incoming.write(data)

        while True:
            try:
                outer.do_handshake()
                break
            except ssl.SSLWantReadError:
                await more()
        join = json.dumps({"t": "join", "ticket": session.ticket, "connector": None, "wrapped": False}).encode()
        outer.write(struct.pack(">H", len(join)) + join)
        answer = b""
        while len(answer) < 2 or len(answer) < 2 + struct.unpack(">H", answer[:2])[0]:
            try:
                answer += outer.read(CHUNK)
            except ssl.SSLWantReadError:
                await more()
        frame = json.loads(answer[2:])
        if frame["t"] != "go":
            raise ConnectionError(f"the relay answered `{frame}`")
        if incoming.pending or outgoing.pending:
            raise ConnectionError("a byte of the next layer came before its turn")
        return reader, writer


async def _pump_bytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(state: str, destination: str) -> None:
    host, _, port = destination.rpartition(":")
    shim = Shim(Path(state), host, int(port))
    async with asyncio.timeout(PATIENCE):
        session = await shim.session
        await shim.relays
    server = await asyncio.start_server(shim.carry, "127.0.0.1", 0)
    door = server.sockets[0].getsockname()[1]
    print(json.dumps({"door": door, "session": session.session, "ticket": session.ticket}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
