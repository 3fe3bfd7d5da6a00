"""Flows through the doors of devices: opened, asked, and looked at until they end."""

import contextlib
import itertools
import socket
import time
from dataclasses import dataclass

from netlab import Machine

from exam.services import GREETING

ANSWER_WAIT = 3.0  # seconds; a refusal resets the flow long before
REFUSAL_WAIT = 1.0  # a flow may wait for a stronger sign-in or an approval: what did not open until then is not open
END_WAIT = 3.0  # the longest that a session which must end may live on
KEEP_SECONDS = 0.15  # a session that must stay is asked all the while
_numbers = itertools.count(1)


@dataclass(slots=True)
class Flow:
    channel: socket.socket

    def answers(self, patience: float = ANSWER_WAIT) -> bool:
        """Whether the resource answers a question that was never asked before."""
        question = b"%d\n" % next(_numbers)
        expected = GREETING + question
        try:
            self.channel.settimeout(patience)
            self.channel.sendall(question)
            got = b""
            while len(got) < len(expected):
                part = self.channel.recv(4096)
                if not part:
                    return False
                got += part
        except OSError:
            return False
        return got == expected

    def goes_on(self) -> bool:
        until = time.monotonic() + KEEP_SECONDS
        while self.answers():
            if time.monotonic() >= until:
                return True
            time.sleep(0.01)
        return False

    def end(self) -> float | None:
        """Seconds until the flow is over; None if it is not within END_WAIT."""
        started = time.monotonic()
        while time.monotonic() < started + END_WAIT:
            if not self.answers(END_WAIT):
                return time.monotonic() - started
            time.sleep(0.005)
        return None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.channel.close()


def open_flow(machine: Machine, door: str, patience: float = ANSWER_WAIT) -> Flow | None:
    """A flow that the resource has answered on; None where it was refused."""
    host, _, port = door.rpartition(":")
    try:
        flow = Flow(machine.dial(host, int(port), timeout=patience))
    except OSError:
        return None
    if flow.answers(patience):
        return flow
    flow.close()
    return None
