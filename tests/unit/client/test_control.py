import asyncio
import json
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cloister.client import control
from cloister.client.control import Channel, ControlServer
from cloister.client.errors import ClientError, NotRunning
from cloister.client.talk import ask, socket_path
from cloister.client.types import MAX_REQUEST_BYTES, Down, OpenFlow, Request, Status


async def _answer(request: Request, channel: Channel) -> None:
    match request:
        case Status():
            await channel.answer({"link": "up"})
        case OpenFlow():
            with socket.socket(fileno=channel.take_descriptor()) as flow:
                flow.sendall(b"hello")
            await channel.answer({"ended": "ok"})
        case Down():
            await channel.answer({"ok": True})
            await channel.closed()
        case _:
            raise ClientError("not_found", "no such thing", "look elsewhere")


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[Path]:
    deep = tmp_path / ("d" * 100) / ("e" * 100)  # longer than sockaddr_un holds
    deep.mkdir(parents=True)
    server = ControlServer(deep, os.getuid(), _answer)
    server.open()
    yield deep
    await server.close()
    assert not (deep / "control.sock").exists()


async def _ask_first(directory: Path, request: dict[str, object]) -> dict[str, object]:
    def talk() -> dict[str, object]:
        with ask(directory, request) as conversation:
            return conversation.first()

    return await asyncio.to_thread(talk)


async def test_socket_is_for_its_owner_only(directory: Path) -> None:
    assert stat.S_IMODE((directory / "control.sock").stat().st_mode) == 0o600


async def test_request_gets_its_answer(directory: Path) -> None:
    assert await _ask_first(directory, {"op": "status"}) == {"link": "up"}


async def test_refusal_arrives_as_one(directory: Path) -> None:
    with pytest.raises(ClientError) as caught:
        await _ask_first(directory, {"op": "apps"})
    assert (caught.value.code, caught.value.remedy) == ("not_found", "look elsewhere")


async def test_who_asks_while_no_descriptor_is_free_waits(directory: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as asking, socket_path(directory) as path:
        asking.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (asking.fileno() + 1, hard))
        taken = list(_every_descriptor())
        asking.connect(path)
        for _ in range(3):  # it tries, in vain
            await asyncio.sleep(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
        asking.sendall(b'{"op": "status"}\n')
        async with asyncio.timeout(5):
            assert json.loads(await asyncio.get_running_loop().sock_recv(asking, 4096)) == {"link": "up"}


def _every_descriptor() -> Iterator[int]:
    """All that are left."""
    with suppress(OSError):
        while True:
            yield os.dup(0)


async def test_what_is_opened_as_soon_as_it_stops_to_listen_is_heard(tmp_path: Path) -> None:
    server = ControlServer(tmp_path, os.getuid(), _answer)
    server.open()
    assert await _ask_first(tmp_path, {"op": "status"}) == {"link": "up"}  # it waits for the next one
    server.stop_listening()
    reading, writing = os.pipe()  # the lowest numbers that are free
    heard = asyncio.Event()
    asyncio.get_running_loop().add_reader(reading, heard.set)
    await server.close()
    os.write(writing, b"x")
    async with asyncio.timeout(5):
        await heard.wait()
    asyncio.get_running_loop().remove_reader(reading)
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    "request_body",
    [
        {},
        {"op": "no"},
        {"op": "status", "extra": 1},
        {"op": "connect", "host": "a", "port": 0},
        {"op": "connect", "host": "", "port": 1},
    ],
)
async def test_malformed_request_is_refused(directory: Path, request_body: dict[str, object]) -> None:
    with pytest.raises(ClientError) as caught:
        await _ask_first(directory, request_body)
    assert caught.value.code == "argument_invalid"


async def test_oversized_request_is_cut(directory: Path) -> None:
    with pytest.raises((ClientError, OSError)):
        await _ask_first(directory, {"op": "status", "x": "a" * (MAX_REQUEST_BYTES + 1)})


async def test_flow_socket_travels_with_the_request(directory: Path) -> None:
    ours, theirs = socket.socketpair()

    def talk() -> bytes:
        with ours, ask(directory, {"op": "connect", "host": "a", "port": 1}, [theirs.fileno()]) as conversation:
            theirs.close()
            assert conversation.first() == {"ended": "ok"}
            return ours.recv(16)

    assert await asyncio.to_thread(talk) == b"hello"


async def test_flow_without_a_socket_is_refused(directory: Path) -> None:
    with pytest.raises(ClientError):
        await _ask_first(directory, {"op": "connect", "host": "a", "port": 1})


async def test_unsent_descriptors_do_not_leak(directory: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(8):
        ours, theirs = socket.socketpair()

        def talk(theirs: socket.socket = theirs) -> None:
            with ask(directory, {"op": "status"}, [theirs.fileno()]) as conversation:
                conversation.first()
                list(conversation.answers())

        await asyncio.to_thread(talk)
        ours.close()
        theirs.close()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_no_process_is_told_apart_from_a_dead_socket(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        await _ask_first(tmp_path / "nowhere", {"op": "status"})
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "control.sock"))
    dead.close()
    with pytest.raises(NotRunning):
        await _ask_first(tmp_path, {"op": "status"})


_OTHER_USER = """
import os, socket, sys
os.chdir(sys.argv[1])
os.setuid(65534)
channel = socket.socket(socket.AF_UNIX)
try:
    channel.connect("control.sock")
    channel.sendall(b'{"op": "status"}\\n')
    print(channel.recv(100))
except OSError as error:
    print(error.errno)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", [0o600, 0o666])
async def test_case_67_another_user_is_refused_even_where_the_mode_would_let_in(directory: Path, mode: int) -> None:
    (directory / "control.sock").chmod(mode)
    result = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", _OTHER_USER, str(directory)], capture_output=True, text=True, check=True
    )
    assert "link" not in result.stdout
    assert result.stdout.strip()


async def test_connections_are_bounded(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CONNECTIONS", 2)
    held = [await asyncio.to_thread(ask, directory, {"op": "down"}) for _ in range(2)]
    for conversation in held:
        assert await asyncio.to_thread(conversation.first) == {"ok": True}
    with pytest.raises((ClientError, OSError)):
        await _ask_first(directory, {"op": "status"})
    for conversation in held:
        conversation.close()
