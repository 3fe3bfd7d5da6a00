"""The baseline is what the issue of the benchmark says it is; a change here changes every ratio."""

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from bench import setups

CONFIGURATION = (Path(setups.__file__).parent / "haproxy.cfg").read_text()


def free_ports() -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in setups.ROLES]
        return [socket.getsockname()[1] for socket in held]


def test_threads_and_buffers_are_the_defaults_and_tickets_are_on() -> None:
    assert not re.search(r"nbthread|tune\.|no-tls-tickets|no-ssl-reuse|cpu-map", CONFIGURATION)


def test_both_hops_are_tls_1_3_with_a_verified_certificate() -> None:
    assert CONFIGURATION.count("ssl verify required ca-file") == 2
    assert CONFIGURATION.count("ssl-min-ver TLSv1.3") == 2
    assert "mode tcp" in CONFIGURATION


@pytest.mark.skipif(
    shutil.which("haproxy", path="/usr/sbin:/usr/bin") is None, reason="`haproxy` is missing; `make test` installs it"
)
def test_bytes_and_half_close_survive_both_hops(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as sink,
        setups.haproxy(tmp_path, f"127.0.0.1:{sink.getsockname()[1]}", free_ports()) as setup,
    ):
        assert set(setup.processes) == set(setups.ROLES)
        sink.settimeout(10)
        host, port = setup.address.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as flow:
            flow.sendall(b"question")
            flow.shutdown(socket.SHUT_WR)
            received = b""
            while not received:  # knocks that asked whether the chain is up come through first, empty or as a reset
                accepted, _ = sink.accept()
                with accepted, contextlib.suppress(ConnectionError):
                    received = accepted.makefile("rb").read()
                    accepted.sendall(b"answer")
            assert received == b"question"
            assert flow.makefile("rb").read() == b"answer"


def test_certificates_are_p256_and_of_one_ca(tmp_path: Path) -> None:
    setups.make_certificates(tmp_path)
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    assert len(context.get_ca_certs()) == 1
    for role in ("middle", "connector"):
        text = subprocess.run(
            ["openssl", "x509", "-noout", "-text", "-in", tmp_path / f"{role}.pem"], capture_output=True, text=True, check=True
        )
        assert "prime256v1" in text.stdout
