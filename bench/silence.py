"""Connectors whose links to the exchange are black-holed: no reset, no error, only silence. Their carriers to the relay live on.

The exchange waits for the confirmation of a revocation, and then has the relay cut what the connector would still honour. The clients' links are
black-holed as well: otherwise they would end the flows themselves, and nothing would be seen of the relay. One black hole serves several trials, one
beginning soon after the other; it is over before a link counts as lost.
"""

import contextlib
import re
import subprocess
import threading
import time
from pathlib import Path

from deployment import DeploymentError
from netlab import Machine

from bench.run import EXCHANGE, HOSTS
from bench.seats import AgentsProcess, Seat, SharedDeployment, Site
from bench.watch import Service, open_tcp, split

RELAY = "10.77.0.2:7444"
SEATS = 12
APART = 0.15  # seconds between two revocations: the last flow is over before a link that is silent counts as lost (8 s)
ASK_EVERY = 0.002
ENDED = 3.5  # a flow that is asked and has been silent for so long has ended
GOES_ON = 6.0
TABLE = "inet cloister_bench"


def measure(directory: Path, trials: int) -> list[float]:
    """Seconds from the revocation to the last byte at the client, by trial."""
    machine = Machine("bench", directory)
    deployment = SharedDeployment(machine, EXCHANGE, directory)
    times: list[float] = []
    with contextlib.ExitStack() as stack:
        stack.callback(machine.end)
        stack.callback(deployment.close)
        deployment.start_exchange("--no-relay")
        deployment.start_relay(machine, RELAY)
        agents = AgentsProcess(machine, deployment)
        site = Site(deployment, agents, HOSTS[0], min(SEATS, trials))
        for seat in site.seats:
            stack.callback(Service(HOSTS[0], *seat.ports).close)
        site.build()
        while len(times) < trials:
            for seat in site.seats:
                deployment.call("PUT", f"/groups/{seat.name}/members/{seat.name}")
            watches = [_Watch(seat) for seat in site.seats[: trials - len(times)]]
            with _black_hole(agents.pid):
                for watch in watches:
                    watch.start()
                    time.sleep(APART)
                    watch.revoked_at = time.monotonic()
                    deployment.call("DELETE", f"/groups/{watch.seat.name}/members/{watch.seat.name}")
                times += [watch.seconds() for watch in watches]
    return times


class _Watch(threading.Thread):
    """Asks through a flow of this seat until it is silent."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(daemon=True)
        self.seat = seat
        self.revoked_at = float("inf")
        self._flow = open_tcp(split(seat.doors["tcp"]), b"b")
        self._last = 0.0

    def run(self) -> None:
        with self._flow, contextlib.suppress(OSError):
            self._flow.settimeout(ENDED)
            while time.monotonic() < self.revoked_at + GOES_ON:
                self._flow.sendall(b"b")
                if not self._flow.recv(64):
                    return
                self._last = time.monotonic()
                time.sleep(ASK_EVERY)

    def seconds(self) -> float:
        """From the revocation to the last byte; GOES_ON if there was none by then."""
        self.join()
        return max(self._last - self.revoked_at, 0.0)


class _black_hole:  # noqa: N801  a context, used like a function
    """Drops every packet of the links between these processes and the exchange, both ways."""

    def __init__(self, *pids: int) -> None:
        self._ports = [port for pid in pids for port in _link_ports(pid)]

    def __enter__(self) -> None:
        port = EXCHANGE.rpartition(":")[2]
        rules = "".join(f"tcp sport {own} tcp dport {port} drop\ntcp sport {port} tcp dport {own} drop\n" for own in self._ports)
        table = f"table {TABLE} {{ chain output {{ type filter hook output priority filter; policy accept;\n{rules}}}\n}}\n"
        subprocess.run(["nft", "-f", "-"], input=table, text=True, check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["nft", "delete", "table", *TABLE.split()], check=True)


def _link_ports(pid: int) -> list[int]:
    """The local ports of this process's connections to the exchange."""
    lines = subprocess.run(["ss", "-tnpH", "dst", EXCHANGE], capture_output=True, text=True, check=True).stdout.splitlines()
    ports = [int(line.split()[3].rpartition(":")[2]) for line in lines if re.search(rf"pid={pid}\b", line)]
    if not ports:
        raise DeploymentError(f"the process {pid} has no link to `{EXCHANGE}`")
    return ports
