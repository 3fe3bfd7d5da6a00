"""A laboratory with Cloister deployed in it: an exchange, one connector in the closed cluster, one person at a laptop."""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deployment import Deployment
from netlab import Host, Lab

DOMAIN = "lab.internal"
GROUP = "lab"
PERSON = "ada"


def trials(full: int = 200) -> int:
    """How often a trial check is tried: all with FULL=1, else TRIALS (default 20)."""
    return full if os.environ.get("FULL") else int(os.environ.get("TRIALS", "20"))


@dataclass
class Town:
    lab: Lab
    deployment: Deployment
    captures: contextlib.ExitStack
    legs: dict[str, Path]  # host → the capture of its leg, complete after `end_captures`
    addresses: dict[str, str] = field(default_factory=dict)  # host name → address in the private network

    @property
    def laptop(self) -> Host:
        return self.lab.laptop

    def end_captures(self) -> dict[str, Path]:
        self.captures.close()
        return self.legs

    def add_service(
        self, name: str, port: int, serve: Callable[[socket.socket], None], *, segment: bool = True, protocol: str = "tcp"
    ) -> str:
        """A service at a name of its own in the private network, and a segment for it; returns the name."""
        host = f"{name}.{DOMAIN}"
        address = self.address_of(host)
        if protocol == "tcp":
            listener = self.lab.services.inside(lambda: socket.create_server((address, port), backlog=1024))
            threading.Thread(target=_accept, args=(listener, serve), daemon=True).start()
        else:
            channel = self.lab.services.inside(lambda: _bind_datagrams(address, port))
            threading.Thread(target=serve, args=(channel,), daemon=True).start()
        if segment:
            self.add_segment(f"{name}-{port}", host, port, protocol)
        return host

    def address_of(self, host: str) -> str:
        if host not in self.addresses:
            self.addresses[host] = self.lab.service_address(11 + len(self.addresses))
            lines = "".join(f"{address} {name}\n" for name, address in self.addresses.items())
            self.lab.cluster.write_file("hosts", f"127.0.0.1 localhost\n{lines}")
        return self.addresses[host]

    def add_segment(self, name: str, host: str, port: int, protocol: str = "tcp") -> None:
        self.deployment.apply(
            f"kind: segment\nname: {name}\nhosts: [{host}]\nports: [{port}]\nprotocol: {protocol}\ngroups: [{GROUP}]\n"
        )

    def permit(self, *segments: str) -> None:
        """The one rule of the town: whoever is in its group may reach these segments."""
        rule = "kind: rule\nname: town\neffect: permit\nwho: {groups: [people]}\n"
        self.deployment.apply(f"{rule}what: {{segments: [{', '.join(segments)}]}}\n")

    def take_out(self, person: str = PERSON) -> None:
        self.deployment.call("DELETE", f"/groups/people/members/{person}")

    def put_back(self, person: str = PERSON) -> None:
        self.deployment.call("PUT", f"/groups/people/members/{person}")


@contextlib.contextmanager
def town(prefix: str, *, own_relays: bool = False, captured: Sequence[str] = ()) -> Iterator[Town]:
    """Up to the connector's link; services, rules and the person's client are the test's.

    `own_relays`: the exchange carries nothing; two relays do, one beside it and one on a host of its own.
    `captured`: the legs of these hosts are captured from before the first process on.
    """
    with Lab(prefix=f"{prefix}-{os.getpid()}", relay=own_relays) as lab, contextlib.ExitStack() as captures:
        legs = {name: captures.enter_context(lab.capture(name)) for name in captured}
        deployment = Deployment(lab.inet, f"{lab.inet.address}:7443", lab.directory)
        deployment.start_exchange(*(["--no-relay"] if own_relays else []))
        for machine in (lab.inet, lab.relay) if own_relays else ():
            deployment.start_relay(machine, f"{machine.address}:7444", f"relay-{machine.name}")
        deployment.add_user(PERSON)
        deployment.apply(
            f"kind: connector-group\nname: {GROUP}\nsuffixes: [{DOMAIN}]\n---\nkind: group\nname: people\nusers: [{PERSON}]\n"
        )
        deployment.start_connector(lab.cluster, GROUP)
        deployment.sign_in(lab.laptop, PERSON)
        try:
            yield Town(lab, deployment, captures, legs)
        except BaseException:
            for log in sorted(lab.directory.glob("*.log")):
                print(f"---- {log.name}\n{log.read_text(errors='replace')[-4000:]}", file=sys.stderr)
            raise
        finally:
            deployment.close()


def echo(connection: socket.socket) -> None:
    """Send back what comes; end the other half when the peer ends its own."""
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def drip(connection: socket.socket) -> None:
    """Send for ever, as fast as the peer takes it."""
    block = b"x" * 16384
    while True:
        connection.sendall(block)


def echo_datagrams(channel: socket.socket) -> None:
    while True:
        data, peer = channel.recvfrom(65536)
        channel.sendto(data, peer)


def _accept(listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with listener, contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, serve), daemon=True).start()


def _serve(connection: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with connection, contextlib.suppress(OSError):
        serve(connection)


def _bind_datagrams(address: str, port: int) -> socket.socket:
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.bind((address, port))
    return channel
