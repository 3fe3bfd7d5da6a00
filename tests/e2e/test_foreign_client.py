"""An HTTP/2 CONNECT client that is not ours, curl's, talks to a connector's tunnel: standard HTTP/2 over TLS with two certificates."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netlab import permitted
from town import PERSON, Town, town

pytestmark = pytest.mark.skipif(permitted() is not None, reason=permitted() or "")

HERE = Path(__file__).parent


def answer_http(connection: socket.socket) -> None:
    """A minimal HTTP service: says how many bytes of body it was sent."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536)
    head, _, body = request.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    text = b"%d bytes of body" % len(body)
    connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))


@pytest.fixture(scope="module")
def place() -> Iterator[Town]:
    with town("foreign") as place:
        place.add_service("web", 8080, answer_http)
        place.add_service("web", 8081, answer_http)
        place.permit("web-8080")
        yield place


@pytest.fixture(scope="module")
def shim(place: Town) -> dict[str, Any]:
    state = place.deployment.client_state(PERSON)
    process = place.laptop.start("shim", sys.executable, HERE / "shim.py", state, "web.lab.internal:8080", stdout=subprocess.PIPE)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, place.laptop.log("shim").read_text()
    found: dict[str, Any] = json.loads(line)
    identity = json.loads((state / "identity.json").read_text())
    for name in ("chain", "roots"):
        (state / f"{name}.pem").write_text(identity[name])
    return found | {
        "certificate": str(state / "chain.pem"),
        "roots": str(state / "roots.pem"),
        "key": str(state / "key.pem"),
    }


def curl(place: Town, shim: dict[str, Any], url: str, *headers: str, body: str = "") -> dict[str, Any]:
    command = {key: shim[key] for key in ("door", "certificate", "key", "roots")} | {"url": url, "headers": headers, "body": body}
    result = place.laptop.run(sys.executable, HERE / "foreign.py", input=json.dumps(command))
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def credentials(shim: dict[str, Any]) -> tuple[str, str]:
    return f"cloister-session: {shim['session']}", f"cloister-ticket: {shim['ticket']}"


def test_foreign_client_reaches_what_its_ticket_names(place: Town, shim: dict[str, Any]) -> None:
    answer = curl(place, shim, "http://web.lab.internal:8080/", *credentials(shim), body="x" * 100_000)
    assert (answer["protocol"], answer["connect"], answer["error"]) == ("h2", "200", "")
    assert (answer["status"], answer["body"]) == (200, "100000 bytes of body")


def test_foreign_client_without_a_ticket_is_refused(place: Town, shim: dict[str, Any]) -> None:
    answer = curl(place, shim, "http://web.lab.internal:8080/")
    assert (answer["protocol"], answer["reason"]) == ("h2", "ticket_missing")
    assert answer["connect"].startswith("4")
    assert answer["body"] == ""


def test_foreign_client_reaches_no_other_port_with_its_ticket(place: Town, shim: dict[str, Any]) -> None:
    answer = curl(place, shim, "http://web.lab.internal:8081/", *credentials(shim))
    assert (answer["protocol"], answer["reason"]) == ("h2", "not_in_segment")
    assert answer["connect"].startswith("4")
    assert answer["body"] == ""
