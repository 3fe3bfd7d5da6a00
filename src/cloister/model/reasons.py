"""The closed list of reason codes: what a refusal, an end or an error is called, what a person is told, and what to do next.

Codes are stable: a code is never renamed or reused. The table in docs/reference/reason-codes.md is made from this list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    message: str  # one sentence; may hold {placeholders}
    remedy: str


class Code(StrEnum):
    # flows and sessions
    OK = "ok"
    NOT_FOUND = "not_found"
    DENIED_BY_DEFAULT = "denied_by_default"
    FORBIDDEN_BY_RULE = "forbidden_by_rule"
    CONDITION_FAILED = "condition_failed"
    EVALUATION_ERROR = "evaluation_error"
    STEP_UP_REQUIRED = "step_up_required"
    APPROVAL_REQUIRED = "approval_required"
    APPROVAL_DENIED = "approval_denied"
    APPROVAL_EXPIRED = "approval_expired"
    POSTURE_FAILED = "posture_failed"
    RISK_TOO_HIGH = "risk_too_high"
    OUTSIDE_NETWORK = "outside_network"
    SIGNED_OUT = "signed_out"
    SIGNAL_RECEIVED = "signal_received"
    SESSION_LIMIT = "session_limit"
    IDLE_LIMIT = "idle_limit"
    POLICY_CHANGED = "policy_changed"
    GROUP_CHANGED = "group_changed"
    SEGMENT_CHANGED = "segment_changed"
    USER_DISABLED = "user_disabled"
    DEVICE_REVOKED = "device_revoked"
    SESSION_REVOKED = "session_revoked"
    SESSION_EXPIRED = "session_expired"
    KILL_SWITCH = "kill_switch"
    NO_CONNECTOR = "no_connector"
    SEGMENT_UNHEALTHY = "segment_unhealthy"
    EXCHANGE_UNREACHABLE = "exchange_unreachable"
    STATE_TOO_OLD = "state_too_old"
    NOT_CAPTURED = "not_captured"
    # the last hop
    HOST_MALFORMED = "host_malformed"
    NOT_IN_SEGMENT = "not_in_segment"
    ADDRESS_FORBIDDEN = "address_forbidden"
    NAME_UNRESOLVED = "name_unresolved"
    DIAL_REFUSED = "dial_refused"
    DIAL_TIMEOUT = "dial_timeout"
    DIAL_UNREACHABLE = "dial_unreachable"
    SERVICE_RESET = "service_reset"
    CLIENT_RESET = "client_reset"
    RECORDS_FULL = "records_full"
    TOO_MANY_FLOWS = "too_many_flows"
    # tickets, carriers, tunnels
    TICKET_MALFORMED = "ticket_malformed"
    TICKET_SIGNATURE = "ticket_signature"
    TICKET_KEY_UNKNOWN = "ticket_key_unknown"
    TICKET_EXPIRED = "ticket_expired"
    TICKET_AUDIENCE = "ticket_audience"
    TICKET_NOT_YOURS = "ticket_not_yours"
    TICKET_REVOKED = "ticket_revoked"
    TICKET_MISSING = "ticket_missing"
    SNAPSHOT_MISSING = "snapshot_missing"
    NO_CARRIER = "no_carrier"
    TOO_MANY_JOINS = "too_many_joins"
    JOIN_BLOCKED = "join_blocked"
    TUNNEL_LOST = "tunnel_lost"
    TUNNEL_FENCED = "tunnel_fenced"
    TUNNEL_UNKNOWN = "tunnel_unknown"
    DRAINING = "draining"
    # links and enrolment
    PEER_SILENT = "peer_silent"
    PROTOCOL_ERROR = "protocol_error"
    MESSAGE_MALFORMED = "message_malformed"
    MESSAGE_UNEXPECTED = "message_unexpected"
    VERSION_UNSUPPORTED = "version_unsupported"
    QUEUE_FULL = "queue_full"
    HANDSHAKE_FAILED = "handshake_failed"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    ROLE_MISMATCH = "role_mismatch"
    AGENT_REVOKED = "agent_revoked"
    AGENT_UNKNOWN = "agent_unknown"
    AGENT_UNCONFIRMED = "agent_unconfirmed"
    AGENT_TWIN = "agent_twin"
    CERTIFICATE_EXPIRED = "certificate_expired"
    ROOT_MISMATCH = "root_mismatch"
    KEY_INVALID = "key_invalid"
    KEY_USED_UP = "key_used_up"
    KEY_EXPIRED = "key_expired"
    KEY_REVOKED = "key_revoked"
    CSR_INVALID = "csr_invalid"
    SIGN_IN_FAILED = "sign_in_failed"
    SIGN_IN_EXPIRED = "sign_in_expired"
    SIGN_IN_MISMATCH = "sign_in_mismatch"
    SIGN_IN_PENDING = "sign_in_pending"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    PROXY_REFUSED = "proxy_refused"
    STOPPED = "stopped"
    REPLACED = "replaced"
    # proofs of other issuers, and what the exchange asks outside
    TOKEN_MALFORMED = "token_malformed"
    TOKEN_ALGORITHM = "token_algorithm"
    TOKEN_KEY_UNKNOWN = "token_key_unknown"
    TOKEN_SIGNATURE = "token_signature"
    TOKEN_TYPE = "token_type"
    TOKEN_ISSUER = "token_issuer"
    TOKEN_AUDIENCE = "token_audience"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_CLAIM = "token_claim"
    TOKEN_REPLAYED = "token_replayed"
    WORKLOAD_UNKNOWN = "workload_unknown"
    WORKLOAD_AMBIGUOUS = "workload_ambiguous"
    PROOF_ENDED = "proof_ended"
    DELEGATION_INVALID = "delegation_invalid"
    PROVIDER_MISMATCH = "provider_mismatch"
    URL_FORBIDDEN = "url_forbidden"
    OUTGOING_FAILED = "outgoing_failed"
    # documents, API, settings
    DOCUMENT_MALFORMED = "document_malformed"
    DOCUMENT_TIE = "document_tie"
    REFERENCE_UNKNOWN = "reference_unknown"
    POLICY_MALFORMED = "policy_malformed"
    CONFLICT = "conflict"
    NOT_AUTHENTICATED = "not_authenticated"
    NOT_AUTHORISED = "not_authorised"
    TOO_LARGE = "too_large"
    ARGUMENT_INVALID = "argument_invalid"
    LIMIT_REACHED = "limit_reached"
    INTERNAL = "internal"


_TABLE: tuple[tuple[Code, str, str], ...] = (
    (Code.OK, "all is well", ""),
    (Code.NOT_FOUND, "there is no such name here", "check the spelling, or ask your administrator for access"),
    (Code.DENIED_BY_DEFAULT, "no rule permits this", "ask your administrator for access"),
    (Code.FORBIDDEN_BY_RULE, "a rule forbids this", "ask your administrator why"),
    (
        Code.CONDITION_FAILED,
        "a condition of the rule is not met now",
        "ask your administrator; `cloister posture` shows what this device reports",
    ),
    (Code.EVALUATION_ERROR, "a rule could not be evaluated, so access is denied", "tell your administrator which name you tried"),
    (Code.STEP_UP_REQUIRED, "a stronger or more recent sign-in is needed", "run `cloister login --step-up`"),
    (
        Code.APPROVAL_REQUIRED,
        "somebody has to approve this first",
        "run `cloister request NAME --reason TEXT`, or wait for the answer",
    ),
    (Code.APPROVAL_DENIED, "the request was turned down", "ask the approver why"),
    (Code.APPROVAL_EXPIRED, "the approval has ended", "run `cloister request NAME --reason TEXT` again"),
    (Code.POSTURE_FAILED, "the device does not fulfil what the rule asks of it", "see `cloister posture` for what is missing"),
    (Code.RISK_TOO_HIGH, "the risk score is too high for this", "ask your security team"),
    (
        Code.OUTSIDE_NETWORK,
        "this is not permitted from the network you are in",
        "come from a network that the rule names, or ask your administrator which",
    ),
    (Code.SIGNED_OUT, "you were signed out", "run `cloister login` again"),
    (Code.SIGNAL_RECEIVED, "your identity provider or security system ended this", "ask your security team"),
    (Code.SESSION_LIMIT, "the session has lasted as long as the rule permits", "connect again"),
    (Code.IDLE_LIMIT, "the session carried nothing for too long", "connect again"),
    (Code.POLICY_CHANGED, "the policy changed and no longer permits this", "ask your administrator for access"),
    (Code.GROUP_CHANGED, "your groups changed and no longer permit this", "ask your administrator for access"),
    (Code.SEGMENT_CHANGED, "the application was changed or removed", "see `cloister apps` for what is there now"),
    (Code.USER_DISABLED, "this account is disabled", "ask your administrator"),
    (Code.DEVICE_REVOKED, "this device was revoked", "ask your administrator, then run `cloister login` again"),
    (Code.SESSION_REVOKED, "an administrator ended this session", "ask your administrator"),
    (Code.SESSION_EXPIRED, "the session ended", "connect again"),
    (Code.KILL_SWITCH, "access is switched off at the moment", "wait for your administrator's word"),
    (
        Code.NO_CONNECTOR,
        "no connector that serves this is up",
        "tell your administrator; it works again when the connector is back",
    ),
    (Code.SEGMENT_UNHEALTHY, "the service does not answer its health check", "tell the owner of the service"),
    (Code.EXCHANGE_UNREACHABLE, "the exchange cannot be reached", "check the address and the network; it is tried again by itself"),
    (Code.STATE_TOO_OLD, "the exchange cannot decide on facts this old", "try again in a moment"),
    (Code.NOT_CAPTURED, "this address and port lead nowhere", "use a name and port of `cloister apps`"),
    (Code.HOST_MALFORMED, "this is not a host name or address", "write a plain name such as `jupyter.lab.internal`"),
    (Code.NOT_IN_SEGMENT, "the application does not include this host and port", "see `cloister apps` for its hosts and ports"),
    (Code.ADDRESS_FORBIDDEN, "the name leads to an address that no application may reach", "tell the owner of the service"),
    (Code.NAME_UNRESOLVED, "the connector cannot resolve the name", "tell the owner of the service"),
    (Code.DIAL_REFUSED, "the service refused the connection", "check that the service is running"),
    (Code.DIAL_TIMEOUT, "the service did not answer in time", "check that the service is running"),
    (Code.DIAL_UNREACHABLE, "the connector has no way to the service", "tell the owner of the service"),
    (Code.SERVICE_RESET, "the service reset the connection", "look at the log of the service"),
    (Code.CLIENT_RESET, "the client reset the connection", ""),
    (
        Code.RECORDS_FULL,
        "the connector cannot write access records, so it takes no new flow",
        "check the disk and the link of the connector",
    ),
    (Code.TOO_MANY_FLOWS, "too many flows are open", "close some, or raise the limit"),
    (Code.TICKET_MALFORMED, "the ticket cannot be read", "try again"),
    (Code.TICKET_SIGNATURE, "the ticket is not signed by the exchange", "try again"),
    (Code.TICKET_KEY_UNKNOWN, "the ticket is signed with a key that is not known here", "try again in a moment"),
    (Code.TICKET_EXPIRED, "the ticket has expired", "check this machine's clock and try again"),
    (Code.TICKET_AUDIENCE, "the ticket is for something else", "try again"),
    (Code.TICKET_NOT_YOURS, "the ticket belongs to another key", "run `cloister login` again"),
    (Code.TICKET_REVOKED, "the session of this ticket was revoked", "ask your administrator"),
    (Code.TICKET_MISSING, "no ticket was presented", "try again"),
    (Code.SNAPSHOT_MISSING, "the connector has just started and knows no session yet", "try again in a moment"),
    (Code.NO_CARRIER, "no connector answered at the relay", "try again; tell your administrator if it stays so"),
    (Code.TOO_MANY_JOINS, "this device opens too many connections at once", "try again in a moment"),
    (Code.JOIN_BLOCKED, "the relay keeps this device from the connector until it has caught up", "try again in a moment"),
    (Code.TUNNEL_LOST, "the connection to the connector was lost for too long", "connect again"),
    (Code.TUNNEL_FENCED, "a newer connection took the place of this one", ""),
    (Code.TUNNEL_UNKNOWN, "the connector does not know this tunnel any more", "connect again"),
    (Code.DRAINING, "this part is about to stop and takes no new work", "try again in a moment"),
    (Code.PEER_SILENT, "the other side fell silent", "check the network"),
    (Code.PROTOCOL_ERROR, "the other side broke the protocol", "check that both sides run versions that fit"),
    (Code.MESSAGE_MALFORMED, "a message could not be read", "check that both sides run versions that fit"),
    (Code.MESSAGE_UNEXPECTED, "a message came that has no place there", "check that both sides run versions that fit"),
    (Code.VERSION_UNSUPPORTED, "the exchange does not speak this version", "update this agent or the exchange"),
    (Code.QUEUE_FULL, "too much waits to be sent", "check the network"),
    (Code.HANDSHAKE_FAILED, "the TLS handshake failed", "check the address; a proxy that opens TLS must let this one pass"),
    (Code.HANDSHAKE_TIMEOUT, "the TLS handshake took too long", "check the network"),
    (Code.ROLE_MISMATCH, "the certificate is for another role", "enrol with a key made for this role"),
    (Code.AGENT_REVOKED, "this agent was revoked", "ask your administrator, then enrol again"),
    (Code.AGENT_UNKNOWN, "the exchange does not know this agent", "enrol again"),
    (
        Code.AGENT_UNCONFIRMED,
        "the exchange was restored and has not confirmed this agent yet",
        "ask your administrator to confirm it",
    ),
    (
        Code.AGENT_TWIN,
        "another process uses the same identity",
        "stop the other one; if it is not yours, tell your administrator at once",
    ),
    (Code.CERTIFICATE_EXPIRED, "the certificate has expired", "it renews by itself within 30 days; after that, enrol again"),
    (
        Code.ROOT_MISMATCH,
        "this is not the exchange that was expected",
        "check the address and the fingerprint; nothing secret was sent",
    ),
    (Code.KEY_INVALID, "the provisioning key is not known", "make a new one with `cloister create key`"),
    (Code.KEY_USED_UP, "the provisioning key has no use left", "make a new one with `cloister create key`"),
    (Code.KEY_EXPIRED, "the provisioning key has expired", "make a new one with `cloister create key`"),
    (Code.KEY_REVOKED, "the provisioning key was revoked", "make a new one with `cloister create key`"),
    (Code.CSR_INVALID, "the certificate request is not acceptable", "remove the state directory and enrol again"),
    (Code.SIGN_IN_FAILED, "user name or password is wrong", "try again"),
    (Code.SIGN_IN_EXPIRED, "this sign-in is over, or nobody waits for it any more", "start again in the terminal"),
    (
        Code.SIGN_IN_MISMATCH,
        "this answer belongs to another sign-in, another browser or another person",
        "start again in the terminal, in one browser, as the same person",
    ),
    (Code.SIGN_IN_PENDING, "the person has not signed in yet", "ask again"),
    (Code.TOO_MANY_ATTEMPTS, "too many attempts", "wait a minute, then try again"),
    (
        Code.PROXY_REFUSED,
        "the outbound proxy refused the connection, or nobody vouches for its certificate",
        "check HTTPS_PROXY, what the proxy permits and, for an https proxy, SSL_CERT_FILE",
    ),
    (Code.STOPPED, "it was stopped", ""),
    (Code.REPLACED, "a newer one took its place", ""),
    (Code.TOKEN_MALFORMED, "the token cannot be read", "sign in again, or make a new token"),
    (
        Code.TOKEN_ALGORITHM,
        "the token is signed with an algorithm that is not configured",
        "compare `algorithms` with the issuer's",
    ),
    (
        Code.TOKEN_KEY_UNKNOWN,
        "the token's key is not one of its issuer's keys",
        "try again; tell your administrator if it stays so",
    ),
    (Code.TOKEN_SIGNATURE, "the token is not signed by its issuer", "sign in again, or make a new token"),
    (Code.TOKEN_TYPE, "the token is of a kind that has no place here", "present the token that was asked for"),
    (Code.TOKEN_ISSUER, "the token is of another issuer", "compare `issuer` with the token's `iss`"),
    (Code.TOKEN_AUDIENCE, "the token is for somebody else", "ask its issuer for one with the audience that is configured here"),
    (Code.TOKEN_EXPIRED, "the token is not good at this time", "make a new one; compare the clocks"),
    (Code.TOKEN_CLAIM, "a claim of the token is missing or of the wrong form", "compare what the issuer puts into its tokens"),
    (Code.TOKEN_REPLAYED, "the token was presented before", "make a new one"),
    (
        Code.WORKLOAD_UNKNOWN,
        "the token is good, but no workload is described that it speaks of",
        "compare `issuer`, `subject` and `claims` of the workload with the token's claims",
    ),
    (
        Code.WORKLOAD_AMBIGUOUS,
        "the token fits several workloads or issuers",
        "make their `subject` or `claims` more specific, so that exactly one fits",
    ),
    (Code.PROOF_ENDED, "what vouched for this program has ended", "start it again with a fresh token"),
    (
        Code.DELEGATION_INVALID,
        "nothing good says that this program may act for that person",
        "ask the person for a new one: `cloister delegate WORKLOAD --for 1h`",
    ),
    (Code.PROVIDER_MISMATCH, "the provider's own description contradicts its configuration", "compare `issuer` and the hosts"),
    (
        Code.URL_FORBIDDEN,
        "the URL leads where the exchange does not go",
        "use `https`, or list the host under `allow_internal` if it is meant",
    ),
    (Code.OUTGOING_FAILED, "an outside service did not answer as it should", "look at that service; it is tried again"),
    (Code.DOCUMENT_MALFORMED, "a document is not well formed", "see the positions named"),
    (Code.DOCUMENT_TIE, "two applications claim the same destination equally", "make one of them more specific"),
    (Code.REFERENCE_UNKNOWN, "a document names something that does not exist", "create it first, or correct the name"),
    (Code.POLICY_MALFORMED, "a rule cannot be compiled", "see the message and its position"),
    (Code.CONFLICT, "it was changed or exists already", "read the current state and try again"),
    (Code.NOT_AUTHENTICATED, "nobody is signed in", "run `cloister admin sign-in`"),
    (Code.NOT_AUTHORISED, "this account may not do that", "ask an administrator"),
    (Code.TOO_LARGE, "it is too large", "send less"),
    (Code.ARGUMENT_INVALID, "an argument is not valid", "see `--help`"),
    (Code.LIMIT_REACHED, "a limit is reached", "close or remove something, or raise the limit"),
    (Code.INTERNAL, "something failed inside Cloister", "look at the log and report it"),
)

REASONS: Mapping[str, Reason] = {code.value: Reason(code.value, message, remedy) for code, message, remedy in _TABLE}
"""Every code, with its sentence and what to do next."""


PENDING = frozenset({Code.STEP_UP_REQUIRED, Code.APPROVAL_REQUIRED})
"""Refusals that a person can turn into access while the flow waits: the question stays open for `PENDING_SECONDS`."""
PENDING_SECONDS = 120.0


def reason(code: str) -> Reason:
    """The reason of a code; of `internal` for a code that a newer peer made up."""
    return REASONS.get(code, REASONS[Code.INTERNAL])
