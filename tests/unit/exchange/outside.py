"""An outside service for tests: a real TLS server that answers as scripted, and the CA that vouches for it."""

import asyncio
import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.exchange.outgoing import Reach

HOST = "idp.test"
Answering = Callable[[str], bytes | Awaitable[bytes]]


def respond(body: bytes | dict[str, Any], status: int = 200, headers: str = "", *, length: int | None = None) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = len(raw) if length is None else length
    return f"HTTP/1.1 {status} X\r\ncontent-length: {size}\r\n{headers}\r\n".encode() + raw


@dataclass
class Outside:
    port: int
    ca_file: Path
    answers: dict[str, Any] = field(default_factory=dict)  # path → bytes, or a function of the whole request
    asked: list[str] = field(default_factory=list)
    connections: int = 0
    name: str = HOST

    @property
    def url(self) -> str:
        return f"https://{self.name}:{self.port}"

    @property
    def reach(self) -> Reach:
        return Reach(frozenset({self.name}), self.ca_file)

    def count(self, path: str) -> int:
        return sum(request.split(" ")[1] == path for request in self.asked)


async def resolve_to_loopback(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


@asynccontextmanager
async def outside(directory: Path, name: str = HOST) -> AsyncIterator[Outside]:
    ca_file, context = make_tls(directory, name)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            size = next((int(line.split(":")[1]) for line in head.lower().split("\r\n") if line.startswith("content-length")), 0)
            request = head + (await reader.readexactly(size)).decode()
            found.asked.append(request)
            answer = found.answers.get(request.split(" ")[1].split("?")[0], respond({}, 404))
            if callable(answer):
                answer = answer(request)
            if asyncio.iscoroutine(answer):
                answer = await answer
            writer.write(answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    found = Outside(server.sockets[0].getsockname()[1], ca_file, name=name)
    try:
        yield found
    finally:
        server.close()


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def make_tls(directory: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A CA of its own, and a server context with a certificate for `name`."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "outside")])

    def start(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    ca = (
        start(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, SHA256())
    )
    leaf = (
        start(x509.Name([]), key.public_key())
        .add_extension(x509.SubjectAlternativeName([_name(name)]), critical=True)
        .sign(ca_key, SHA256())
    )
    directory.mkdir(parents=True, exist_ok=True)
    ca_file, chain, key_file = (directory / part for part in ("ca.pem", "chain.pem", "key.pem"))
    ca_file.write_bytes(ca.public_bytes(Encoding.PEM))
    chain.write_bytes(leaf.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key_file)
    return ca_file, context
