"""The REST API as the CLI uses it: the exchange is recognised first, then a token is sent; refusals become one sentence."""

import hashlib
import json
import os
import ssl
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.client.errors import ClientError
from cloister.model.first_contact import WELL_KNOWN_PATH, ExchangeTarget
from cloister.model.reasons import Code

DEADLINE = 30.0
MAX_ROOT_BYTES = 65536
FILE_NAME = "administrator.json"


@dataclass(frozen=True, slots=True)
class Administrator:
    """A sign-in of an administrator: where, the pinned root if any, and the token (a secret)."""

    address: str
    root_pem: str
    user: str
    token: str
    expires_at: int

    def __repr__(self) -> str:
        return f"Administrator(address={self.address!r}, user={self.user!r})"


def has_signed_in(directory: Path) -> bool:
    return (directory / FILE_NAME).exists()


def load_administrator(directory: Path) -> Administrator:
    try:
        fields = json.loads((directory / FILE_NAME).read_text())
        return Administrator(**fields)
    except FileNotFoundError:
        raise ClientError(
            Code.NOT_AUTHENTICATED,
            "nobody has signed in to the exchange's API on this machine",
            "run `cloister admin sign-in HOST`, with any account",
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise ClientError(
            Code.NOT_AUTHENTICATED, "the administrator's sign-in cannot be read", "run `cloister admin sign-in HOST` again"
        ) from error


def save_administrator(directory: Path, administrator: Administrator) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=directory)
    with open(handle, "w") as file:
        json.dump(asdict(administrator), file)
    os.replace(temporary, directory / FILE_NAME)


def forget_administrator(directory: Path) -> None:
    with suppress(FileNotFoundError):
        (directory / FILE_NAME).unlink()


def fetch_root(target: ExchangeTarget) -> str:
    """The root certificate that the fingerprint names, PEM; "" without a fingerprint (then the web's public trust must do).

    It is fetched from whoever answers, and is believed because its SHA-256 is the fingerprint. Nothing secret is sent.
    """
    if target.root_sha256 is None:
        return ""
    try:
        with (
            httpx.Client(verify=False, timeout=DEADLINE, follow_redirects=False) as web,  # noqa: S501 (the fingerprint decides)
            web.stream("GET", f"https://{target.address}{WELL_KNOWN_PATH}/root.pem") as response,
        ):
            body = b""
            for part in response.iter_bytes():
                body += part
                if len(body) > MAX_ROOT_BYTES:
                    break
        for root in x509.load_pem_x509_certificates(body):
            der = root.public_bytes(Encoding.DER)
            if hashlib.sha256(der).hexdigest() == target.root_sha256:
                return root.public_bytes(Encoding.PEM).decode()
    except httpx.HTTPError as error:
        raise _unreachable(target.address) from error
    except ValueError:
        pass
    raise ClientError(
        Code.ROOT_MISMATCH,
        f"`{target.address}` is not the exchange that the fingerprint names; nothing secret was sent",
        "check the address and the fingerprint",
    )


class Api:
    """One exchange's API. Verifies the web certificate against the pinned root and what this system trusts."""

    def __init__(self, address: str, root_pem: str, token: str = "") -> None:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if root_pem:
            context.load_verify_locations(cadata=root_pem)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._address = address
        self._web = httpx.Client(
            base_url=f"https://{address}/api/v1", verify=context, timeout=DEADLINE, follow_redirects=False, headers=headers
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._web.close()

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, Any] | None = None,
        content: bytes | None = None,
    ) -> Any:
        """The answer's JSON, or its text if it is not JSON. Raises ClientError with the exchange's own words."""
        wanted = {key: value for key, value in (query or {}).items() if value is not None}
        headers = {"content-type": "application/yaml"} if content is not None else {}
        try:
            response = self._web.request(method, path, json=body, content=content, params=wanted, headers=headers)
        except httpx.ConnectError as error:
            if "CERTIFICATE" in str(error).upper():
                raise ClientError(
                    Code.ROOT_MISMATCH,
                    f"nothing vouches for `{self._address}`: its web certificate is not trusted here",
                    "sign in with the whole line `cloister admin sign-in HOST#sha256-…`",
                ) from error
            raise _unreachable(self._address) from error
        except httpx.HTTPError as error:
            raise _unreachable(self._address) from error
        if response.status_code >= 400:
            raise _refusal(response)
        if response.headers.get("content-type", "").startswith("application/json"):
            return response.json()
        return response.text


def _refusal(response: httpx.Response) -> ClientError:
    try:
        fields = response.json()
        return ClientError(
            str(fields["code"]), str(fields["message"]), str(fields.get("remedy", "")), list(fields.get("errors", []))
        )
    except (ValueError, KeyError, TypeError):
        return ClientError(Code.INTERNAL, f"the exchange answered with status {response.status_code}", "look at its log")


def _unreachable(address: str) -> ClientError:
    return ClientError(
        Code.EXCHANGE_UNREACHABLE, f"the exchange `{address}` cannot be reached", "check the address and the network"
    )
