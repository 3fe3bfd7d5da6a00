"""Signing in: find out which exchange this is before anything secret is sent, then enrol this machine with a password."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import httpx
from pydantic import ValidationError

from cloister.agent.disk import StateDir
from cloister.agent.enrol import Proof, enrol
from cloister.agent.errors import AgentError
from cloister.agent.rules import read_proxy
from cloister.agent.types import Identity, root_fingerprints
from cloister.client.errors import NotRunning
from cloister.client.talk import ask
from cloister.model.first_contact import WELL_KNOWN_PATH, ExchangeTarget, WellKnown
from cloister.model.messages.from_exchange import SignInStarted
from cloister.model.reasons import Code

WELL_KNOWN_DEADLINE = 10.0
MAX_WELL_KNOWN_BYTES = 65536


def recognise(target: ExchangeTarget, state: StateDir) -> ExchangeTarget:
    """The target with the fingerprint of its root: as given, as known from an earlier sign-in, or as its public web certificate vouches."""
    if target.root_sha256 is not None:
        return target
    known = state.load_identity("client")
    if known is not None and known.address == target.address:
        return ExchangeTarget(target.host, target.port, min(root_fingerprints(known.roots_pem)))  # any root in force will do
    return ExchangeTarget(target.host, target.port, fetch_fingerprint(target))


def fetch_fingerprint(target: ExchangeTarget) -> str:
    """GET the well-known document, trusting only what this system trusts for the web. Sends nothing but the request."""
    refusal = AgentError(
        Code.ROOT_MISMATCH,
        f"nothing vouches for `{target.address}`: its web certificate is not publicly trusted, and no fingerprint was given",
        f"ask your administrator for the whole line `cloister login {target.address}#sha256-…`",
    )
    try:
        with (
            httpx.Client(timeout=WELL_KNOWN_DEADLINE, follow_redirects=False) as web,
            web.stream("GET", f"https://{target.address}{WELL_KNOWN_PATH}") as response,
        ):
            if response.status_code != 200:
                raise refusal
            body = b""
            for part in response.iter_bytes():
                body += part
                if len(body) > MAX_WELL_KNOWN_BYTES:
                    raise refusal
        return WellKnown.model_validate_json(body).root_sha256
    except httpx.ConnectError as error:
        if "CERTIFICATE" in str(error).upper():
            raise refusal from error
        raise AgentError(
            Code.EXCHANGE_UNREACHABLE, f"the exchange `{target.address}` cannot be reached", "check the address and the network"
        ) from error
    except httpx.HTTPError as error:
        raise AgentError(
            Code.EXCHANGE_UNREACHABLE, f"the exchange `{target.address}` cannot be reached", "check the address and the network"
        ) from error
    except ValidationError as error:
        raise refusal from error


@dataclass(frozen=True, slots=True)
class SignedIn:
    identity: Identity
    has_stopped_client: bool  # a running client acted for the sign-in of before


async def sign_in(
    state: StateDir, target: ExchangeTarget, proof: Proof, on_started: Callable[[SignInStarted], None] | None = None
) -> SignedIn:
    """Enrol this machine for whom the proof proves. Raises AgentError when refused; then everything is as before.

    A tunnel never carries two principals: a client that runs on the sign-in of before is stopped.
    """
    state.open()
    is_running = _is_running(state)
    if not is_running:
        state.lock()
    try:
        known = state.load_identity("client")
        if known is not None and known.address != target.address and not is_running:
            state.forget()  # another exchange never sees the key of this one
        elif known is not None and known.address != target.address:
            raise AgentError(Code.CONFLICT, f"the running client is signed in to `{known.address}`", "run `cloister logout` first")
        identity = await enrol(
            state,
            target,
            "client",
            proof,
            proxy=read_proxy(os.environ),
            on_started=on_started,
        )
    finally:
        state.unlock()
    return SignedIn(identity, has_stopped_client=is_running and stop_running(state))


def sign_out(state: StateDir) -> bool:
    """End the running client, if any, and remove key and identity. False if nobody was signed in."""
    if not state.path.exists():
        return False
    stop_running(state)
    state.lock()
    try:
        was_signed_in = (state.path / "identity.json").exists()
        state.forget()
    finally:
        state.unlock()
    return was_signed_in


def stop_running(state: StateDir) -> bool:
    """Ask the running client to stop and wait until it has. False if none runs."""
    try:
        with ask(state.path, {"op": "down"}) as conversation:
            conversation.first()
            for _ in conversation.answers():
                pass  # the connection closes when the process has stopped
    except NotRunning:
        return False
    return True


def _is_running(state: StateDir) -> bool:
    try:
        with ask(state.path, {"op": "status"}) as conversation:
            conversation.first()
    except NotRunning:
        return False
    return True
