"""Case 70: the service's real address never shows on the client's side: not in answers, errors, status, logs, or on the wire."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Deployment
from netlab import Lab, permitted

pytestmark = pytest.mark.skipif(permitted() is not None, reason=permitted() or "")

DOCUMENTS = """
kind: connector-group
name: lab
suffixes: [lab.internal]
---
kind: segment
name: web
hosts: [web.lab.internal]
ports: [8080]
groups: [lab]
---
kind: segment
name: dead
hosts: [dead.lab.internal]
ports: [8081]
groups: [lab]
---
kind: segment
name: lost
hosts: [lost.lab.internal]
ports: [8082]
groups: [lab]
---
kind: segment
name: forbidden
hosts: [metadata.lab.internal]
ports: [80]
groups: [lab]
---
kind: rule
name: ada
effect: permit
who: {users: [ada]}
what: {segments: [web, dead, lost, forbidden]}
"""

SERVICE = """
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Page).serve_forever()
"""


class Planted:
    """A cluster whose names lead to addresses that stand nowhere else."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.addresses = [lab.service_address(77), lab.service_address(78), "10.91.0.199", "169.254.169.254"]
        names = ["web", "dead", "lost", "metadata"]
        lab.cluster.write_file("hosts", "".join(f"{a} {n}.lab.internal\n" for a, n in zip(self.addresses, names, strict=True)))
        lab.services.start("web", "python3", "-c", SERVICE)
        self.cloister = Deployment(lab.inet, f"{lab.inet.address}:443", directory)
        self.cloister.start_exchange()
        self.cloister.add_user("ada")
        self.cloister.apply(DOCUMENTS)
        self.cloister.start_connector(lab.cluster, "lab")
        self.cloister.sign_in(lab.laptop, "ada")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    with Lab() as lab:
        planted = Planted(lab, tmp_path_factory.mktemp("planted"))
        yield planted
        planted.cloister.close()


def _traces(addresses: list[str], text: bytes) -> list[str]:
    """Addresses found as text, packed, or as a reverse name."""
    found = []
    for address in addresses:
        packed = ipaddress.ip_address(address).packed
        forms = (address.encode(), packed, packed.hex().encode(), ".".join(reversed(address.split("."))).encode())
        if any(form in text for form in forms):
            found.append(address)
    return found


def test_case_70_no_surface_of_the_client_shows_a_real_address(planted: Planted) -> None:
    lab, cloister = planted.lab, planted.cloister
    seen = b""
    with lab.capture("laptop") as packets:
        proxy = cloister.proxy(lab.laptop, "ada")
        for name, port in (("web", 8080), ("dead", 8081), ("lost", 8082), ("metadata", 80), ("nowhere", 1)):
            destination = f"{name}.lab.internal:{port}"
            page = lab.laptop.run("curl", "-sv", "-m", "20", "-x", f"socks5h://{proxy}", f"http://{destination}/", check=False)
            tunnel = lab.laptop.run("curl", "-sv", "-m", "20", "-p", "-x", f"http://{proxy}", f"http://{destination}/", check=False)
            explained = cloister.client(lab.laptop, "ada", "explain", destination)
            connected = cloister.client(lab.laptop, "ada", "--verbose", "connect", destination, input="GET / HTTP/1.0\r\n\r\n")
            if name == "web":
                assert page.stdout == tunnel.stdout == "hello"
                assert connected.stdout.endswith("hello")
            for result in (page, tunnel, explained, connected):
                seen += (result.stdout + result.stderr).encode()
        for command in (("status",), ("status", "--json"), ("apps", "--json")):
            result = cloister.client(lab.laptop, "ada", *command)
            seen += (result.stdout + result.stderr).encode()
        seen += lab.laptop.log("proxy-ada").read_bytes()
    assert _traces(planted.addresses, seen) == []
    assert _traces(planted.addresses, packets.read_bytes()) == []
    state = cloister.client_state("ada")
    assert all(_traces(planted.addresses, path.read_bytes()) == [] for path in state.rglob("*") if path.is_file())


def test_the_search_would_find_them(planted: Planted) -> None:
    connector = planted.lab.cluster
    text = connector.run("getent", "hosts", "web.lab.internal", check=False).stdout.encode()
    assert _traces(planted.addresses, text) == [planted.addresses[0]]
