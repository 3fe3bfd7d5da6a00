"""Flows that are watched at both ends while their session ends: an idle one, a busy one, datagrams, and one being opened at that very moment.

All of them run in this process, service and client, so that every time is of one clock. What counts is the last byte that got through at either
end; for the idle flow, which carries none, the moment at which the socket learned of the end.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping

KINDS = ("idle TCP", "busy TCP", "UDP", "opening")
SIDES = ("client", "service")
Side = tuple[str, str]
"""Kind and side."""

ASK_EVERY = 0.005
SILENCE = 0.1  # what has said nothing for this long, while asked so often, has ended
ASKED = {"UDP": 10, "opening": 2}
PATIENCE = 6.0
OPEN_BEFORE = 0.5  # so long before an end that the clock brings do flows begin
LEAST_BEFORE = 0.05
LETTERS = {b"i": "idle TCP", b"b": "busy TCP", b"o": "opening"}


class Service:
    """Echoes TCP and UDP on one address, and notes when each kind was heard last."""

    def __init__(self, host: str, tcp: int, udp: int) -> None:
        self.last: dict[str, float] = {}
        self.idle_over = threading.Event()
        self._listener = socket.create_server((host, tcp), backlog=1024)
        self._channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._channel.bind((host, udp))
        threading.Thread(target=self._accept, daemon=True).start()
        threading.Thread(target=self._datagrams, daemon=True).start()

    def begin(self) -> None:
        self.last = {}
        self.idle_over.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        kind = ""
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connection.recv(64):
                kind = LETTERS.get(data[:1], "")
                if kind != "idle TCP":
                    self.last[kind] = time.monotonic()
                connection.sendall(data)
        if kind == "idle TCP":
            self.last[kind] = time.monotonic()
            self.idle_over.set()

    def _datagrams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = self._channel.recvfrom(64)
                if not data:
                    return
                self.last["UDP"] = time.monotonic()
                self._channel.sendto(data, peer)

    def close(self) -> None:
        release(self._listener)
        release(self._channel)


def release(listener: socket.socket) -> None:
    """Closing alone does not let go of the port while a thread waits for what comes there."""
    with contextlib.suppress(OSError):  # it wakes the thread, and says that datagrams have no connection to shut down
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


class Late(Exception):
    """The flows were not open when the clock brought the end: nothing was measured."""


class Trial:
    """One session with a flow of every kind, from their opening to the end of the last."""

    def __init__(self, service: Service, doors: Mapping[str, str]) -> None:
        self._service = service
        self._tcp, self._udp = split(doors["tcp"]), split(doors["udp"])
        self._last: dict[str, float] = {}
        self._unanswered = dict.fromkeys(ASKED, 0)
        self._stop, self._idle_over, self._busy_over = threading.Event(), threading.Event(), threading.Event()

    def run(self, act: Callable[[], object]) -> dict[Side, float]:
        """Seconds from before `act`, which ends the session, by kind and side."""

        def timed() -> float:
            started = time.monotonic()
            act()
            return started

        return self._run(timed)

    def run_until(self, moment: float) -> dict[Side, float]:
        """Seconds from a moment ahead (Unix time) at which the session ends by itself."""
        time.sleep(max(moment - time.time() - OPEN_BEFORE, 0.0))

        def wait() -> float:
            if moment - time.time() < LEAST_BEFORE:
                raise Late
            return time.monotonic() + moment - time.time()

        try:
            return self._run(wait, moment - time.time() - LEAST_BEFORE)
        except TimeoutError:
            raise Late from None

    def _run(self, act: Callable[[], float], patience: float = 5 * PATIENCE) -> dict[Side, float]:
        """`act` brings the end about and returns when that was or will be (monotonic clock). What goes on for PATIENCE counts as that."""
        self._service.begin()
        with contextlib.ExitStack() as opened:
            idle = opened.enter_context(open_tcp(self._tcp, b"i", patience))
            busy = opened.enter_context(open_tcp(self._tcp, b"b", patience))
            datagrams = opened.enter_context(open_udp(self._udp, patience))
            works = ((self._wait, (idle,)), (self._ask, (busy,)), (self._send, (datagrams,)), (self._open, ()))
            threads = [threading.Thread(target=work, args=arguments, daemon=True) for work, arguments in works]
            for thread in threads:
                thread.start()
            try:
                time.sleep(0.02)
                started = act()
                going_on = self._wait_for_the_end(started)
            finally:
                self._stop.set()
                for flow in (idle, busy):
                    with contextlib.suppress(OSError):
                        flow.shutdown(socket.SHUT_RDWR)  # wakes who still waits for it
        for thread in threads:
            thread.join()
        return {
            (kind, side): PATIENCE if kind in going_on else max(last.get(kind, 0.0) - started, 0.0)
            for side, last in self._sides()
            for kind in KINDS
        }

    def _sides(self) -> Iterator[tuple[str, dict[str, float]]]:
        yield "client", self._last
        yield "service", self._service.last

    def _wait_for_the_end(self, started: float) -> set[str]:
        """Kinds that go on."""
        until = started + PATIENCE
        going_on = set(KINDS)
        while going_on and time.monotonic() < until:
            time.sleep(0.01)
            going_on = {kind for kind in KINDS if not self._has_ended(kind, started)}
        return going_on

    def _has_ended(self, kind: str, started: float) -> bool:
        if kind in ASKED:
            heard = max(started, *(last.get(kind, 0.0) for _, last in self._sides()))
            return time.monotonic() > heard + SILENCE and self._unanswered[kind] >= ASKED[kind]
        over = {"idle TCP": self._idle_over, "busy TCP": self._busy_over}[kind].is_set()
        return over and (kind == "busy TCP" or self._service.idle_over.is_set())

    def _wait(self, flow: socket.socket) -> None:
        with contextlib.suppress(OSError):
            flow.settimeout(None)
            flow.recv(64)
        self._last["idle TCP"] = time.monotonic()
        self._idle_over.set()

    def _ask(self, flow: socket.socket) -> None:
        with contextlib.suppress(OSError):
            flow.settimeout(2 * PATIENCE)
            while not self._stop.is_set():
                flow.sendall(b"b")
                if not flow.recv(64):
                    break
                self._last["busy TCP"] = time.monotonic()
                time.sleep(ASK_EVERY)
        self._busy_over.set()

    def _send(self, channel: socket.socket) -> None:
        channel.settimeout(ASK_EVERY)
        while not self._stop.is_set():
            self._unanswered["UDP"] += 1
            with contextlib.suppress(OSError):
                channel.send(b"u")
                if channel.recv(64):
                    self._last["UDP"] = time.monotonic()
                    self._unanswered["UDP"] = 0
            time.sleep(ASK_EVERY)

    def _open(self) -> None:
        while not self._stop.is_set():
            self._unanswered["opening"] += 1
            with contextlib.suppress(OSError), socket.create_connection(self._tcp, timeout=0.5) as flow:
                flow.sendall(b"o")
                if flow.recv(64):
                    self._last["opening"] = time.monotonic()
                    self._unanswered["opening"] = 0
            time.sleep(ASK_EVERY)


def split(door: str) -> tuple[str, int]:
    """Host and port."""
    host, _, port = door.rpartition(":")
    return host, int(port)


def open_tcp(address: tuple[str, int], letter: bytes, patience: float = 5 * PATIENCE) -> socket.socket:
    """A flow that has carried a byte each way; until a change is everywhere, opening may be refused."""
    until = time.monotonic() + patience
    while (left := until - time.monotonic()) > 0:
        with contextlib.suppress(OSError):
            flow = socket.create_connection(address, timeout=min(left, PATIENCE))
            with contextlib.suppress(OSError):
                flow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                flow.sendall(letter)
                if flow.recv(64) == letter:
                    return flow
            flow.close()
        time.sleep(0.01)
    raise TimeoutError(f"no flow through {address}")


def open_udp(address: tuple[str, int], patience: float = 5 * PATIENCE) -> socket.socket:
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.connect(address)
    channel.settimeout(0.05)
    until = time.monotonic() + patience
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            channel.send(b"u")
            if channel.recv(64):
                return channel
    channel.close()
    raise TimeoutError(f"no datagram through {address}")
