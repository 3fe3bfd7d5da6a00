"""Enrolment: a key made here, a CSR, a proof, and in return a certificate chain. One short-lived link without a client certificate."""

import asyncio
import base64
import socket
from collections.abc import Callable
from contextlib import suppress

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from pydantic import ValidationError

from cloister import _core
from cloister.agent.disk import StateDir
from cloister.agent.errors import AgentError
from cloister.agent.pump import EventPump
from cloister.agent.rules import DIRECT, OutboundProxy
from cloister.agent.types import Identity, Role, check_anchored, read_identity, root_fingerprints
from cloister.model.first_contact import ExchangeTarget
from cloister.model.messages.common import Message, SignInMethod, write
from cloister.model.messages.from_agent import EnrolByKey, EnrolByPassword, EnrolBySignIn, EnrolByToken
from cloister.model.messages.from_exchange import Enrolled, Refused, SignInStarted, read_from_exchange
from cloister.model.reasons import REASONS, Code

DEADLINE = 30.0  # seconds for the whole enrolment; password hashing at the exchange may queue
SIGN_IN_DEADLINE = 660.0  # a person signs in at a provider within ten minutes

Proof = Callable[[str, str], Message]
"""(CSR as base64, host name) → the message that proves who asks."""


def by_key(key: str) -> Proof:
    return lambda csr, hostname: EnrolByKey(key=key, csr=csr, hostname=hostname)


def by_password(user: str, password: str) -> Proof:
    return lambda csr, hostname: EnrolByPassword(user=user, password=password, csr=csr, hostname=hostname)


def by_sign_in(provider: str, method: SignInMethod) -> Proof:
    """The proof is a sign-in at an identity provider, which a person makes while this waits; `on_started` of `enrol` is told where."""
    return lambda csr, hostname: EnrolBySignIn(provider=provider, method=method, csr=csr, hostname=hostname)


def by_token(token: str, subject_token: str | None = None) -> Proof:
    """A program's own token, and the word of the person it acts for."""
    return lambda csr, hostname: EnrolByToken(token=token, csr=csr, hostname=hostname, subject_token=subject_token)


async def enrol(
    state: StateDir,
    target: ExchangeTarget,
    role: Role,
    proof: Proof,
    *,
    proxy: OutboundProxy = DIRECT,
    on_started: Callable[[SignInStarted], None] | None = None,
) -> Identity:
    """Enrol and save the identity. `target` must name the root: without it nothing is sent. Raises AgentError when refused."""
    if target.root_sha256 is None:
        raise AgentError(
            Code.ROOT_MISMATCH, f"nothing vouches for `{target.address}`", "add `#sha256-…` of its root to the address"
        )
    key_pem = state.load_or_make_key()
    request = proof(make_csr(key_pem), socket.gethostname()[:255])
    answer = await _ask(target, request, proxy=proxy, on_started=on_started)
    if target.root_sha256 not in root_fingerprints(answer.roots):
        raise AgentError(Code.ROOT_MISMATCH, f"`{target.address}` answered with other roots than the one expected")
    identity = read_identity(
        role=role, address=target.address, chain_pem=answer.chain, key_pem=key_pem, roots_pem=answer.roots, api=answer.api
    )
    check_anchored(identity)
    if (identity.agent, identity.exchange) != (answer.agent, answer.exchange):
        raise AgentError(Code.ROLE_MISMATCH, "the certificate and the answer of the exchange name different agents")
    state.save_identity(identity)
    return identity


def make_csr(key_pem: str) -> str:
    """PKCS#10 for this key, DER in base64. It names nobody: identity comes from the proof alone."""
    key = load_pem_private_key(key_pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AgentError(Code.CSR_INVALID, "the key on disk is not a P-256 key; remove the state directory and enrol again")
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256())
    return base64.b64encode(csr.public_bytes(Encoding.DER)).decode()


async def _ask(
    target: ExchangeTarget, request: Message, *, proxy: OutboundProxy, on_started: Callable[[SignInStarted], None] | None
) -> Enrolled:
    core = _core.Core()
    answer: asyncio.Future[Enrolled | Refused] = asyncio.get_running_loop().create_future()
    core.set_proxy(proxy.url, proxy.exemptions)
    link = core.dial_link(target.address, role=None, root_sha256=target.root_sha256)

    def handle(event: "_core.Event") -> None:
        if answer.done():
            return
        match event:
            case _core.LinkUp(link=number) if number == link:
                core.send(link, write(request))
            case _core.LinkMessage(link=number) if number == link:
                try:
                    message = read_from_exchange(event.body)
                except ValidationError:
                    message = None
                if isinstance(message, SignInStarted) and on_started is not None:
                    on_started(message)
                elif isinstance(message, Enrolled | Refused):
                    answer.set_result(message)
                else:
                    answer.set_exception(
                        AgentError(Code.MESSAGE_UNEXPECTED, f"`{target.address}` gave an answer that cannot be read")
                    )
            case _core.LinkDown(link=number) if number == link:
                answer.set_exception(link_error(target.address, event.reason, event.detail))
            case _:
                pass

    pump = EventPump(core, handle)
    try:
        async with asyncio.timeout(DEADLINE if on_started is None else SIGN_IN_DEADLINE):
            message = await answer
    except TimeoutError as error:
        raise link_error(target.address, Code.EXCHANGE_UNREACHABLE, "no answer") from error
    finally:
        pump.close()
        with suppress(_core.CoreError):
            core.close_link(link, Code.STOPPED)
        core.shutdown()
    if isinstance(message, Refused):
        raise AgentError(message.code, message.message, message.remedy)
    return message


def link_error(address: str, reason: str, detail: str) -> AgentError:
    """Why there is no link, as a sentence for a person."""
    known = REASONS.get(reason)
    if reason == Code.ROOT_MISMATCH:
        return AgentError(
            reason,
            f"`{address}` is not the exchange that the fingerprint names; nothing was sent",
            "check the address and ask your administrator",
        )
    message = f"no link to the exchange `{address}`: {known.message if known else reason}" + (f" ({detail})" if detail else "")
    return AgentError(reason, message, known.remedy if known else "check the address and the network")
