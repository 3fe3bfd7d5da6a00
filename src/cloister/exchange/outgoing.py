"""The one way in which the exchange asks URLs that administrators set: providers, keys, webhooks (case 93).

Plain `https` to public addresses. An internal address, or `http`, only where the document lists that very host. The name is resolved once and
the connection goes to an address that was checked, so a name that changes its mind in between gains nothing. No redirect is followed, no
proxy of the environment used, nothing decompressed; size, time and number are bounded.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from cloister.exchange.errors import Refusal
from cloister.identity.strict_json import NotStrict, read_object
from cloister.model.addresses import forbidden_address
from cloister.model.hosts import Address, address_of, parse_host
from cloister.model.reasons import Code

MAX_ANSWER_BYTES = 1 << 20
MAX_URL_CHARS = 4096
MAX_ADDRESSES = 8
MAX_SECONDS = 10.0
CONNECT_SECONDS = 3.0
MAX_AT_ONCE = 64
MAX_WAITING = 512

_NEVER = frozenset({"metadata", "multicast", "broadcast", "unspecified", "embedded_ipv4"})
"""Not even where listed: nobody's provider stands there."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: judged by the address inside

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a document lets its URLs reach: `internal` hosts may have any address that is not absurd, and may be asked over `http`."""

    internal: frozenset[str] = frozenset()
    ca_file: Path | None = None


PUBLIC = Reach()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: httpx.Headers
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The JSON object of the body, read strictly; `outgoing_failed` if it is none."""
        try:
            return read_object(self.body)
        except NotStrict as error:
            raise Refusal(Code.OUTGOING_FAILED, f"the answer is {error}") from None


@dataclass(frozen=True, slots=True)
class _Place:
    """A URL taken apart: what is checked is what is dialled."""

    url: httpx.URL
    host: str
    port: int
    shown: str


class Outgoing:
    """Every failure is a `Refusal`: `url_forbidden` before anything was sent, `outgoing_failed` after."""

    def __init__(self, resolve: Resolve | None = None, *, seconds: float = MAX_SECONDS) -> None:
        self._resolve = resolve or _resolve
        self._seconds = seconds
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._waiting = 0
        self._contexts: dict[tuple[Path, int] | None, ssl.SSLContext] = {}

    async def get_json(self, url: str, reach: Reach = PUBLIC) -> dict[str, Any]:
        """GET a JSON object; any status but 200 is a failure."""
        answer = await self.send("GET", url, reach, headers={"accept": "application/json"})
        if answer.status != 200:
            raise Refusal(Code.OUTGOING_FAILED, f"`{shown_url(url)}` answered with status `{answer.status}`")
        return answer.json()

    async def send(
        self,
        method: Literal["GET", "POST"],
        url: str,
        reach: Reach = PUBLIC,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """One request, one answer. Redirects are failures like any other status that the caller does not expect."""
        place = check_url(url, reach)
        if self._waiting >= MAX_WAITING:
            raise Refusal(Code.LIMIT_REACHED, "too many requests to outside services wait")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._seconds), self._slots:
                addresses = await self._addresses(place, reach)
                return await self._ask(method, place, addresses, reach, headers or {}, content, max_bytes)
        except TimeoutError:
            raise Refusal(Code.OUTGOING_FAILED, f"`{place.shown}` did not answer within `{self._seconds:g}` s") from None
        finally:
            self._waiting -= 1

    # ------------------------------------------------------------

    async def _addresses(self, place: _Place, reach: Reach) -> list[Address]:
        """Where the name leads, all of it checked: one forbidden address refuses the name."""
        literal = address_of(place.host)
        if literal is not None:
            found: list[Address] = [literal]
        else:
            try:
                texts = await self._resolve(place.host, place.port)
            except OSError:
                raise Refusal(Code.OUTGOING_FAILED, f"the name of `{place.shown}` cannot be resolved") from None
            found = [ipaddress.ip_address(text) for text in dict.fromkeys(texts)]
        if not found:
            raise Refusal(Code.OUTGOING_FAILED, f"the name of `{place.shown}` has no address")
        for address in found:
            if not is_permitted(address, listed=place.host in reach.internal):
                raise Refusal(Code.URL_FORBIDDEN, f"`{place.shown}` leads to an address where the exchange does not go")
        return found[:MAX_ADDRESSES]

    async def _ask(
        self,
        method: str,
        place: _Place,
        addresses: Sequence[Address],
        reach: Reach,
        headers: Mapping[str, str],
        content: bytes | None,
        max_bytes: int,
    ) -> Answer:
        """No pool: a connection vouches for one name, and is never used for another at the same address."""
        verify: ssl.SSLContext | bool = self._context(reach.ca_file) if place.url.scheme == "https" else False
        transport = httpx.AsyncHTTPTransport(verify=verify, limits=httpx.Limits(max_keepalive_connections=0))
        timeout = httpx.Timeout(self._seconds, connect=CONNECT_SECONDS)
        sent = {"host": place.url.netloc.decode("ascii"), "accept-encoding": "identity", "connection": "close", **headers}
        async with httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False, follow_redirects=False) as client:
            for number, address in enumerate(addresses, 1):
                request = client.build_request(
                    method,
                    place.url.copy_with(host=str(address)),
                    headers=sent,
                    content=content,
                    extensions={} if address_of(place.host) is not None else {"sni_hostname": place.host},
                )
                try:
                    return await _read(await client.send(request, stream=True), place, max_bytes)
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    if number == len(addresses):
                        raise Refusal(Code.OUTGOING_FAILED, f"`{place.shown}` cannot be reached: {_why(error)}") from None
                except httpx.HTTPError as error:
                    raise Refusal(Code.OUTGOING_FAILED, f"`{place.shown}` broke off: {_why(error)}") from None
        raise Refusal(Code.OUTGOING_FAILED, f"`{place.shown}` cannot be reached")

    def _context(self, ca_file: Path | None) -> ssl.SSLContext:
        try:
            key = None if ca_file is None else (ca_file, ca_file.stat().st_mtime_ns)
            if key not in self._contexts:
                if len(self._contexts) >= MAX_AT_ONCE:
                    self._contexts.clear()
                self._contexts[key] = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
            return self._contexts[key]
        except (OSError, ssl.SSLError):
            raise Refusal(Code.ARGUMENT_INVALID, f"the CA file `{ca_file}` cannot be read", "name a PEM file") from None


def check_url(url: str, reach: Reach) -> _Place:
    """Take a URL apart, once. What names a place that is forbidden on its face is refused here, before anything is resolved."""
    if len(url) > MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise Refusal(Code.URL_FORBIDDEN, "this is not a URL that can be asked")
    try:
        parsed = httpx.URL(url)
        host = parse_host(parsed.host)
    except (httpx.InvalidURL, ValueError):
        raise Refusal(Code.URL_FORBIDDEN, f"`{shown_url(url)}` has no host that can be asked") from None
    if parsed.userinfo or parsed.fragment:
        raise Refusal(Code.URL_FORBIDDEN, "a URL with a user or a fragment is not asked")
    if parsed.scheme != "https" and not (parsed.scheme == "http" and host in reach.internal):
        raise Refusal(Code.URL_FORBIDDEN, f"`{shown_url(url)}` is not `https`")
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    return _Place(parsed.copy_with(host=host), host, port, shown_url(url))


def is_permitted(address: Address, *, listed: bool) -> bool:
    """Whether a URL may lead to this address: public ones always, internal ones where its host is listed, some never."""
    if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
        return is_permitted(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF), listed=listed)
    why = forbidden_address(address)
    if why in _NEVER or address.is_multicast or address.is_unspecified:
        return False
    return listed or (why is None and address.is_global)


def shown_url(url: str) -> str:
    """The URL without query and fragment, which may hold secrets, and short enough for a sentence."""
    plain = url.split("?", 1)[0].split("#", 1)[0]
    return "".join(character for character in plain if character.isprintable())[:200]


async def _read(response: httpx.Response, place: _Place, max_bytes: int) -> Answer:
    try:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Refusal(Code.OUTGOING_FAILED, f"`{place.shown}` answers in an encoding that was not asked for")
        body = bytearray()
        async for part in response.aiter_raw():
            body += part
            if len(body) > max_bytes:
                raise Refusal(Code.OUTGOING_FAILED, f"`{place.shown}` answers with more than `{max_bytes}` bytes")
    finally:
        await response.aclose()
    return Answer(response.status_code, response.headers, bytes(body))


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _why(error: httpx.HTTPError) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "its certificate is not trusted"
    if "SSL" in str(error):
        return "it does not speak TLS as it should"
    if isinstance(error, httpx.TimeoutException):
        return "it does not answer in time"
    return "the connection fails" if isinstance(error, httpx.ConnectError) else "the connection ended"
