"""The benchmark's own service: where one part of it listened, the next one can."""

import socket

from bench.watch import Service
from tests.unit.bench.test_haproxy import free_ports


def test_ports_are_free_again_once_a_service_is_closed() -> None:
    tcp, udp, _ = free_ports()
    for _ in range(3):
        service = Service("127.0.0.1", tcp, udp)
        with socket.create_connection(("127.0.0.1", tcp)) as flow, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
            flow.sendall(b"b")
            assert flow.recv(1) == b"b"  # its threads wait for more
            channel.sendto(b"u", ("127.0.0.1", udp))
            assert channel.recv(1) == b"u"
        service.close()
