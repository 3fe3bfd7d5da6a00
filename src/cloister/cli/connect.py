"""`cloister connect`: standard input and output over one flow, for ssh's ProxyCommand. Light: it runs for every connection."""

import os
import re
import socket
import threading
from contextlib import suppress
from pathlib import Path

from cloister.cli.exits import Exit, exit_code, tell_failure
from cloister.client.dirs import state_dir
from cloister.client.errors import ClientError, NotRunning
from cloister.client.talk import ask

CHUNK = 1 << 18
_DESTINATION = re.compile(r"([^\s\[\]:]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})", re.ASCII)


def read_destination(text: str) -> tuple[str, int]:
    """`NAME:PORT` → name (brackets of IPv6 removed), port. The connector's own parser judges the name."""
    found = _DESTINATION.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= 65535:
        raise ClientError(
            "argument_invalid", f"`{text[:256]}` is not a destination", "write `NAME:PORT`, for example `git.lab.internal:22`"
        )
    return found[1].strip("[]"), int(found[2])


def plain_destination(arguments: list[str]) -> str | None:
    """The destination if the command line is exactly `connect NAME:PORT`."""
    match arguments:
        case ["connect", text] if not text.startswith("-"):
            return text
    return None


def connect_quickly(text: str) -> int | None:
    """Use the running client; None if there is none, so that the long way starts one."""
    try:
        return connect(state_dir(), text)
    except NotRunning:
        return None
    except ClientError as error:
        tell_failure(error.code, error.message, error.remedy)
        return exit_code(error.code)


def connect(directory: Path, text: str) -> int:
    """Carry standard input and output until both directions have ended. Raises ClientError when refused."""
    host, port = read_destination(text)
    ours, theirs = socket.socketpair()
    try:
        conversation = ask(directory, {"op": "connect", "host": host, "port": port}, [theirs.fileno()])
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    with conversation, ours:
        threading.Thread(target=_send_input, args=(ours,), daemon=True).start()
        is_whole = _write_output(ours)
        if not is_whole or os.isatty(0):
            # Nobody reads any more, or a person sits there whom the other side has left: input has nowhere to go.
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
        conversation.first()
    return Exit.OK


def _send_input(flow: socket.socket) -> None:
    with suppress(OSError):
        while data := os.read(0, CHUNK):
            flow.sendall(data)
        flow.shutdown(socket.SHUT_WR)  # half-close: the other side may still answer


def _write_output(flow: socket.socket) -> bool:
    """Until the other side has ended; False if it or the reader of standard output broke off."""
    try:
        while data := flow.recv(CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
    except ConnectionError:
        return False
    return True
