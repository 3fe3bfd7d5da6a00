"""The typed face of the Rust core.

Verbs never block; what happens later arrives as events, in batches, after one wake-up of `Core.fileno()`.
Addresses are `host:port` text (`[::1]:443` for IPv6), times are Unix seconds, durations are seconds unless the name says otherwise,
ids are the bare 16-hex ids of ARCHITECTURE.md. Malformed arguments raise `CoreError`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypeAlias, final

__version__: str
SOURCE_DIGEST: str  # of the Rust sources this extension was built from; checked in cloister/__init__.py

class CoreError(ValueError):
    """A refused argument or a failed set-up; `code` is a reason code."""

    code: str

# ------------------------------------------------------------------ events

@final
class LinkUp:
    """A link is established. On a server `agent` is the peer's proved SPIFFE id, or None on the enrolment ALPN."""

    link: int
    agent: str | None
    fingerprint: str | None  # SHA-256 of the peer's leaf, hex
    not_after: int | None  # of the peer's leaf; may be past on a renewal link
    thumbprint: str | None  # RFC 7638 thumbprint of the peer's key, base64url
    address: str  # the peer's address as seen here

@final
class LinkMessage:
    link: int
    body: bytes  # one JSON object

@final
class LinkDown:
    """The link ended. A dialled link reconnects by itself with jittered backoff unless it was closed by `close`."""

    link: int
    reason: str  # reason code
    detail: str
    retry_in: float | None  # dialled links: seconds to the next attempt

@final
class CarrierWanted:
    """Relay: a join waits and no carrier of this connector is parked."""

    connector: str

@final
class SessionWanted:
    """Client: flows wait for a session to this destination. Answer with `Client.grant` or `Client.refuse`."""

    request: int
    host: str
    port: int
    protocol: Literal["tcp", "udp"]

@final
class TunnelChanged:
    """Client: state of the tunnel to one connector."""

    connector: str
    relay: str
    state: Literal["connecting", "up", "suspended", "down"]
    detail: str

@final
class TicketRefused:
    """Client: connector or relay refused this session's ticket; ask control again."""

    session: str
    code: str

@final
class RecordsWritten:
    """Exchange: the journal now holds this connector's records up to `last`."""

    connector: str
    last: int
    count: int

@final
class ProbeDone:
    """Connector: the answer to `Connector.probe`."""

    segment: str
    healthy: bool
    rtt_us: int
    code: str

@final
class SessionsIdle:
    """Connector and client: no flow of these sessions is left here (sent once per change)."""

    sessions: list[str]

@final
class FlowEnded:
    """Client: a flow of `Client.connect` ended."""

    flow: int
    code: str  # reason code; `ok` for a normal end

Event: TypeAlias = (
    LinkUp
    | LinkMessage
    | LinkDown
    | CarrierWanted
    | SessionWanted
    | TunnelChanged
    | TicketRefused
    | RecordsWritten
    | ProbeDone
    | SessionsIdle
    | FlowEnded
)

# ------------------------------------------------------------------ the core

@final
class Core:
    """The runtime of one process: threads, identity, trust anchors, the event queue."""

    def __new__(cls, *, threads: int = 1, event_capacity: int = 65536) -> Core: ...
    def fileno(self) -> int:
        """An eventfd, readable while events wait."""
    def take_events(self, limit: int = 1024) -> list[Event]: ...
    def set_identity(self, role: Literal["control", "relay", "connector", "client"], chain_pem: str, key_pem: str) -> None:
        """Set or replace the certificate chain and PKCS#8 key of a role; new handshakes use it, old ones live on."""
    def set_trust(self, roots_pem: str, revoked_agents: Sequence[str] = ()) -> None:
        """Replace the trust anchors (one or more PEM certificates) and the agents refused on every leg."""
    def set_ticket_keys(self, keys: Mapping[str, bytes]) -> None:
        """Replace the ticket verification keys: kid → raw Ed25519 public key (32 bytes)."""
    def set_proxy(self, url: str | None, exemptions: str = "") -> None:
        """Outbound proxy (`http[s]://user:password@host:port`) for links and carriers, and a list as in NO_PROXY of what is dialled without it."""
    def serve(
        self,
        address: str,
        *,
        links: bool,
        carriers: bool,
        web_socket: str | None = None,
        web_chain_pem: str | None = None,
        web_key_pem: str | None = None,
        renewal_grace: int = 30 * 86400,
        limits: Mapping[str, int] = ...,
    ) -> Server:
        """Listen. `limits` overrides named bounds (`handshakes`, `handshakes_per_source`, `links`, `parked_per_connector`, `joins_per_client`, `carriers`)."""
    def dial_link(
        self,
        address: str,
        *,
        role: Literal["connector", "client", "relay"] | None,
        root_sha256: str | None = None,
    ) -> int:
        """Keep a link to the exchange; with role None, one enrolment link (no client certificate, no reconnect).

        `root_sha256` (hex) pins the root of the chain shown on an enrolment link; nothing is sent before it matched.
        """
    def send(self, link: int, body: bytes) -> bool:
        """Queue one message; False if the link is down or its queue is full (then the link is closed)."""
    def close_link(self, link: int, reason: str) -> None: ...
    def redial(self, link: int, reason: str) -> None:
        """End a dialled link's connection and dial again at once, keeping its number, with the identity and trust now set."""
    def open_journal(self, directory: str, *, max_bytes: int = 1 << 34) -> None:
        """Exchange: where records of all connectors are kept."""
    def connector(
        self, *, spool: str, spool_max_bytes: int = 256 << 20, link: int, settings: Mapping[str, int] = ...
    ) -> Connector: ...
    def client(self, *, settings: Mapping[str, int] = ...) -> Client:
        """`settings`: `owner`, the user id that may use the entrances (default: the one of this process)."""
    def stats(self) -> dict[str, int]:
        """Counters and gauges, by stable name (`links`, `carriers_parked`, `carriers_joined`, `tunnels`, `flows`, `bytes_in`, …)."""
    def shutdown(self, grace: float = 0.0) -> None:
        """Stop accepting, wait up to `grace` for flows, then end everything."""

@final
class Server:
    address: str  # as bound
    def set_web_certificate(self, chain_pem: str, key_pem: str) -> None: ...
    def cut(self, client: str, connector: str | None = None) -> int:
        """Relay: end every carrier of this client (to this connector); how many were cut."""
    def block(self, client: str, connector: str) -> None:
        """Relay: cut, and refuse joins of the pair until `unblock`."""
    def unblock(self, client: str, connector: str) -> None: ...
    def drop_agent(self, agent: str) -> int:
        """Cut links, parked and joined carriers of this agent, whatever its role."""
    def parked(self) -> dict[str, int]:
        """Relay: connector → carriers parked."""
    def drain(self) -> None:
        """Accept no new links, parks and joins; what is joined goes on."""
    def close(self) -> None: ...

@final
class Connector:
    """The connector's data plane: parked carriers, tunnels, grants, the last hop."""

    def set_relays(self, relays: Sequence[tuple[str, str]], spare: int = 2) -> None:
        """(relay id, address) pairs to park at; carriers at relays no longer named are dropped once unused."""
    def open_carrier(self, relay: str) -> None:
        """Park one more carrier there now."""
    def assign(self, segments_json: bytes) -> None:
        """Replace the segments served: JSON list of `Assignment` (model/messages). Flows no longer covered are reset."""
    def snapshot(self, generation: int, sessions: Sequence[str]) -> int:
        """Whole set of live sessions at `generation`; what is absent and not newer is revoked. Returns flows reset."""
    def revoke(self, generation: int, sessions: Sequence[str]) -> int:
        """Returns the number of flows reset; all are reset when it returns."""
    def probe(self, segment: str) -> None: ...
    def status(self) -> str:
        """JSON: tunnels, sessions with flows and bytes, spool fill."""
    def drain(self) -> None:
        """Leave the relays' parking; tunnels and flows go on."""

@final
class Client:
    """The client's data plane: local entrances, names, tunnels."""

    def set_catalogue(self, segments_json: bytes) -> None:
        """Replace what is visible: JSON list of `Visible` (model/messages)."""
    def set_relays(self, relays: Sequence[tuple[str, str]]) -> None:
        """(relay id, address)."""
    def grant(
        self,
        request: int | None,
        session: str,
        segment: str,
        ticket: str,
        connectors: Sequence[str],
        relays: Sequence[str],
        expires: int,
    ) -> None:
        """A session for a waiting request (or unasked: a renewal). Renewed tickets are sent on the tunnel by the core."""
    def refuse(self, request: int, code: str) -> None: ...
    def hold(self, request: int, code: str) -> None:
        """A person has to act first: the request's flows wait up to 120 s for `grant` or `refuse`, and then end with this code."""
    def end_session(self, session: str, code: str) -> int:
        """Reset its flows here; returns how many."""
    def serve_socks(self, address: str, *, secret: str | None = None) -> str:
        """SOCKS5 and HTTP CONNECT on one loopback port; returns the bound address. Only this uid may connect (or, with `secret`, who knows it)."""
    def forward(self, address: str, host: str, port: int, protocol: Literal["tcp", "udp"] = "tcp") -> str: ...
    def serve_dns(self, address: str, *, upstreams: Sequence[str], pool4: str, pool6: str, suffixes: Sequence[str]) -> str:
        """Answer for visible names with synthetic addresses; names below `suffixes` never leave; others go to `upstreams`. UDP and TCP."""
    def set_upstreams(self, upstreams: Sequence[str]) -> None:
        """Replace the upstreams given to `serve_dns`, when the host's network changes."""
    def set_suffixes(self, suffixes: Sequence[str]) -> None:
        """Replace the private suffixes given to `serve_dns`."""
    def capture(self, tcp4: str, tcp6: str) -> dict[str, int]:
        """TPROXY sockets for TCP and UDP on the given loopback addresses; returns the bound ports by name (`tcp4`, `udp4`, `tcp6`, `udp6`).

        Without IPv6 on this host the latter two are missing. Needs CAP_NET_ADMIN.
        """
    def captured(self) -> list[tuple[str, str, int, int]]:
        """(synthetic address, protocol, first port, last port) to be captured now: the pairs of visible, healthy segments in use."""
    def close_entrance(self, address: str) -> bool:
        """Stop listening at an address that `serve_socks`, `forward` or `serve_dns` returned; its flows go on. False if there is none."""
    def connect(self, host: str, port: int, fd: int) -> int:
        """One TCP flow over a connected stream socket (taken over); its number. Ends as `FlowEnded`."""
    def status(self) -> str:
        """JSON: sessions, tunnels, flows, entrances, addresses."""

# ------------------------------------------------------------------ pure functions

def thumbprint(certificate_pem: str) -> str:
    """RFC 7638 thumbprint of the P-256 key of a certificate, base64url without padding."""

def verify_ticket(token: str, keys: Mapping[str, bytes], now: int) -> str:
    """The verified claims as JSON; raises CoreError with code `ticket_*`."""

def verify_jws(token: str, key: bytes, algorithm: Literal["EdDSA"]) -> bytes:
    """The payload of a compact JWS verified with exactly this algorithm and raw key."""

def verify_chain(
    chain_der: Sequence[bytes], roots_der: Sequence[bytes], now: int, peer_name: str | None, usage: Literal["server", "client"]
) -> str | None:
    """The verification used on every leg, for tests with other people's chains; returns the leaf's SPIFFE id if it has one."""

def parse_host(text: str) -> str:
    """The one canonical form of a destination host, as used for decision and dial; raises CoreError `host_malformed`."""

def forbidden_address(text: str) -> str | None:
    """Why no segment may reach this address unless spelled out (`loopback`, `link_local`, `metadata`, …), or None."""

# ------------------------------------------------------------------ policy (crates/policy)

POLICY_SCHEMA: str  # what policies may speak of, in Cedar's syntax

PolicySegment: TypeAlias = tuple[str, str, str, dict[str, str]]  # id, name, protocol, labels
AskedPrincipal: TypeAlias = tuple[Literal["user", "workload"], str, str, Collection[str]]  # kind, id, name, all groups
AskedDevice: TypeAlias = tuple[str, str, dict[str, str], dict[str, str], Collection[str]]  # id, name, labels, posture, profiles
WallClock: TypeAlias = tuple[str, int]  # weekday, minute of the day
Question: TypeAlias = tuple[
    AskedPrincipal,
    AskedPrincipal | None,  # the program that acts for the principal
    AskedDevice | None,
    str,  # segment
    tuple[int, int, str],  # the sign-in's age in seconds, strength and issuer
    int,  # Unix seconds
    WallClock,
    dict[str, WallClock],  # by time zone
    Collection[str],  # networks
    int,  # places
    tuple[int, int],  # risk of the user and of the device
    Collection[str],  # rules that are approved
]
PolicyAnswer: TypeAlias = tuple[bool, list[str], list[tuple[str, str]]]
"""Whether it is allowed; the ids of the policies that determined it; id and message of every error, an empty id for a question that cannot be asked."""

@final
class PolicySet:
    """Parsed Cedar policies and the segments that they speak of, kept on the Rust side."""

    def __new__(cls, policies: Mapping[str, str], segments: Sequence[PolicySegment] = ()) -> PolicySet:
        """Policy id → Cedar text, each parsed as exactly one policy. Raises CoreError `policy_malformed` naming the id."""
    def decide(self, question: Question, policy_ids: Sequence[str] | None = None) -> PolicyAnswer:
        """By the policies with these ids, None for all. Any error in one of them denies."""
    def validate(self) -> list[tuple[str, str]]:
        """(policy id, message) of every schema violation."""

def check_condition(text: str) -> str | None:
    """None if `text` is exactly one Cedar expression, else the parser's message with its position."""
