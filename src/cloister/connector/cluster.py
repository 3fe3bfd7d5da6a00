"""The keys with which the cluster around this connector signs service-account tokens: read from its API server, told to the exchange.

The exchange dials no cluster. Where it has registered this cluster's keys and lets the group report, it follows their rotation by this.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args
from urllib.parse import urlsplit

from cloister.agent.errors import AgentError
from cloister.agent.waking import woken
from cloister.model.jwk import SECRET_MEMBERS
from cloister.model.messages.common import MAX_CLUSTER_KEYS, KeyMember
from cloister.model.messages.from_agent import ClusterKeys
from cloister.model.messages.from_exchange import KeysTaken
from cloister.model.reasons import Code

log = logging.getLogger("cloister.connector")

LOOK_EVERY = 60.0  # seconds between two looks at the API server
TELL_EVERY = 1200.0  # and between two reports of the same: connectors of one group may see a rotation at different moments
DEADLINE = 10.0
MAX_BYTES = 64 << 10
MAX_TOKEN_BYTES = 16 << 10
PATH = "/openid/v1/jwks"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # Kubernetes, "Accessing the Kubernetes API from a Pod"

Jwk = dict[KeyMember, str]


class KeysUnreadable(Exception):
    """Why there is nothing to report; never with any part of an answer or a token in it."""


@dataclass(frozen=True, slots=True)
class ApiServer:
    """Where the keys are, and what this pod was given to ask for them with."""

    url: str
    account: Path = ACCOUNT

    def read(self) -> list[Jwk]:
        """The keys now, over TLS that the cluster's own CA vouches for. Raises KeysUnreadable."""
        import httpx

        try:
            with open(self.account / "token", encoding="ascii") as file:
                token = file.read(MAX_TOKEN_BYTES).strip()
            with (
                httpx.Client(verify=_context(self.account / "ca.crt"), timeout=DEADLINE, trust_env=False) as web,
                web.stream("GET", self.url, headers={"authorization": f"Bearer {token}", "accept": "application/json"}) as answer,
            ):
                if answer.status_code != 200:
                    raise KeysUnreadable(f"the API server answered with status `{answer.status_code}`")
                body = b""
                for part in answer.iter_bytes(MAX_BYTES):
                    body += part
                    if len(body) > MAX_BYTES:
                        raise KeysUnreadable(f"the API server's answer has more than `{MAX_BYTES}` bytes")
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise KeysUnreadable(f"the API server cannot be asked: {type(error).__name__}") from None
        return read_jwks(body)


class Cluster(Protocol):
    def read(self) -> list[Jwk]: ...


class Sender(Protocol):
    """What is needed of a link."""

    @property
    def is_up(self) -> bool: ...

    def send(self, message: ClusterKeys) -> bool: ...


class KeyReports:
    """Looks now and then, and tells what is new, again on each link, and now and then what is not."""

    def __init__(self, link: Sender, cluster: Cluster, look_every: float = LOOK_EVERY) -> None:
        self._link = link
        self._cluster = cluster
        self._look_every = look_every
        self._told: list[Jwk] | None = None
        self._told_at = float("-inf")
        self._why = ""
        self._wake = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="cluster-keys")

    def on_up(self) -> None:
        self._told = None
        self._wake.set()

    def on_taken(self, answer: KeysTaken) -> None:
        if answer.code == Code.OK:
            self._complain("")
        else:
            self._told_at = float("inf")  # the same again would be refused again, until the next link
            self._complain(f"the exchange does not take the keys of this cluster: {answer.message} [{answer.code}]")

    def close(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await woken(self._wake, self._look_every)
            if not self._link.is_up:
                continue
            try:
                keys = await asyncio.to_thread(self._cluster.read)
            except KeysUnreadable as error:
                self._complain(f"the keys of this cluster are not reported: {error}")
                continue
            is_due = keys != self._told or loop.time() - self._told_at >= TELL_EVERY
            if is_due and self._link.send(ClusterKeys(keys=keys)):
                self._told, self._told_at = keys, loop.time()

    def _complain(self, why: str) -> None:
        """Once for each reason: it is asked again every minute."""
        if why and why != self._why:
            log.warning("%s", why)
        self._why = why


def find_cluster(choice: str, environment: Mapping[str, str], account: Path = ACCOUNT) -> ApiServer | None:
    """What `--cluster` means here. `auto`: the API server of the pod's own cluster, if the pod was given the means to ask it."""
    if choice == "off":
        return None
    if choice == "auto":
        host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not (account / "token").exists():
            return None
        return ApiServer(f"https://{f'[{host}]' if ':' in host else host}:{port}{PATH}", account)
    try:
        parts = urlsplit(choice)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme != "https" or not parts.hostname or "@" in choice:
        raise AgentError(
            Code.ARGUMENT_INVALID,
            f"`--cluster {choice[:256]}` is no `https` URL",
            "write `auto`, `off` or `https://HOST/openid/v1/jwks`",
        )
    return ApiServer(choice, account)


def read_jwks(body: bytes) -> list[Jwk]:
    """The public members of each key (RFC 7517), in a steady order. Raises KeysUnreadable; a set with a secret in it is not passed on at all."""
    try:
        listed = json.loads(body)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeysUnreadable("the API server's answer is no JSON Web Key Set") from None
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_CLUSTER_KEYS:
        raise KeysUnreadable(f"the API server lists no key, or more than `{MAX_CLUSTER_KEYS}`")
    return sorted((_public(key) for key in listed), key=lambda key: sorted(key.items()))


def _public(key: Any) -> Jwk:
    if not isinstance(key, dict):
        raise KeysUnreadable("the API server lists something that is no key")
    if not SECRET_MEMBERS.isdisjoint(key):
        raise KeysUnreadable("the API server gives out secret parts of a key: whoever may ask it has them")
    return {name: value for name in get_args(KeyMember) if isinstance(value := key.get(name), str) and 0 < len(value) <= 2048}


def _context(ca_file: Path) -> Any:
    import ssl

    return ssl.create_default_context(cafile=str(ca_file))
