"""A local port that leads through a SOCKS5 proxy (RFC 1928) to one destination, for tools that cannot speak to a proxy themselves."""

import contextlib
import socket
import struct
import threading

CHUNK = 1 << 16


class ProxyRefusal(ConnectionError):
    """The proxy answered, and not with success."""


def reach(proxy: str, host: str, port: int, timeout: float) -> socket.socket:
    """One connection to `host:port` through the proxy. The name goes to the proxy as it is; nothing is resolved here."""
    at, _, number = proxy.rpartition(":")
    flow = socket.create_connection((at, int(number)), timeout=timeout)
    try:
        flow.sendall(b"\x05\x01\x00")
        if _exactly(flow, 2) != b"\x05\x00":
            raise ProxyRefusal("the proxy wants another way to sign in")
        name = host.encode()
        flow.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", port))
        _, code, _, form = _exactly(flow, 4)
        _exactly(flow, {1: 4, 4: 16}.get(form) or _exactly(flow, 1)[0])
        _exactly(flow, 2)
        if code != 0:
            raise ProxyRefusal(f"the proxy answered with code {code}")
    except BaseException:
        flow.close()
        raise
    return flow


def open_door(proxy: str, host: str, port: int) -> int:
    """Listen on a loopback port as long as this process lives; returns the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener, proxy, host, port), daemon=True).start()
    number: int = listener.getsockname()[1]
    return number


def _accept(listener: socket.socket, proxy: str, host: str, port: int) -> None:
    while True:
        near, _ = listener.accept()
        threading.Thread(target=_carry, args=(near, proxy, host, port), daemon=True).start()


def _carry(near: socket.socket, proxy: str, host: str, port: int) -> None:
    try:
        far = reach(proxy, host, port, timeout=20)
    except OSError:
        _reset(near)
        return
    far.settimeout(None)
    broken = threading.Event()
    pumps = [threading.Thread(target=_pump, args=(*pair, broken), daemon=True) for pair in ((near, far), (far, near))]
    for pump in pumps:
        pump.start()
    for pump in pumps:
        pump.join()
    for flow in (near, far):
        if broken.is_set():
            _reset(flow)
        flow.close()


def _pump(source: socket.socket, target: socket.socket, broken: threading.Event) -> None:
    """Until the end of one direction. A reset on one side becomes a reset on both, once the other pump is awake too."""
    try:
        while data := source.recv(CHUNK):
            target.sendall(data)
        if not broken.is_set():
            target.shutdown(socket.SHUT_WR)
    except OSError:
        broken.set()
        for flow in (source, target):
            with contextlib.suppress(OSError):
                flow.shutdown(socket.SHUT_RD)


def _reset(flow: socket.socket) -> None:
    """End with a reset instead of an end of file."""
    flow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    flow.close()


def _exactly(flow: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = flow.recv(count - len(data))
        if not part:
            raise ProxyRefusal("the proxy hung up")
        data += part
    return data
