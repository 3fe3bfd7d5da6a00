"""The resources: small servers that know how often they were reached. A write port echoes what is written, a read port tells its content."""

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field

from netlab import Machine

GREETING = b"content "
SETTLING = 0.03  # seconds without anything new


@dataclass
class Service:
    """One port. `reached` counts connections, `said` the bytes that came in."""

    host: str
    port: int
    listener: socket.socket
    reached: int = 0
    said: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with self.lock:
                    self.reached += 1
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(4096):
                with self.lock:
                    self.said += len(data)
                connection.sendall(GREETING + data)

    def settled(self) -> tuple[int, int]:
        """The traces, once what was on its way has arrived."""
        while True:
            before = self.traces
            time.sleep(SETTLING)
            if self.traces == before:
                return before

    @property
    def traces(self) -> tuple[int, int]:
        with self.lock:
            return self.reached, self.said


def serve(machine: Machine, host: str, port: int) -> Service:
    listener = machine.inside(lambda: socket.create_server((host, port), backlog=64))
    service = Service(host, port, listener)
    threading.Thread(target=service.serve, daemon=True).start()
    return service
