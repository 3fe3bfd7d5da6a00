"""Client secrets of identity providers: in a file of the operator's, or stored here through the API. They go out to the provider and nowhere else."""

import asyncio
from pathlib import Path

from cloister.exchange.errors import Refusal
from cloister.model.providers import IdentityProvider
from cloister.model.reasons import Code
from cloister.trust.files import make_private_directory, write_private

MAX_SECRET = 4096


class ProviderSecrets:
    """One file per document id, 0600 in a directory of 0700: a document made again under an old name has another id and inherits nothing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def read(self, id: str, provider: IdentityProvider) -> str | None:
        """The secret, or None for a public client (PKCE alone). A file that is named and cannot be read is a refusal, never a public client."""
        named = provider.client_secret_file
        path = self._path(id) if named is None else Path(named)
        try:
            text = await asyncio.to_thread(lambda: path.read_text("utf-8")[: MAX_SECRET + 2])
        except FileNotFoundError:
            if named is None:
                return None
            raise self._unreadable(provider) from None
        except (OSError, UnicodeDecodeError):
            raise self._unreadable(provider) from None
        secret = text.rstrip("\r\n")
        if not 0 < len(secret) <= MAX_SECRET or not secret.isprintable():
            raise self._unreadable(provider)
        return secret

    async def store(self, id: str, secret: str) -> None:
        if not 0 < len(secret) <= MAX_SECRET or not secret.isprintable():
            raise Refusal(Code.ARGUMENT_INVALID, f"a client secret is one line of at most `{MAX_SECRET}` characters")
        make_private_directory(self._directory)
        await asyncio.to_thread(write_private, self._path(id), secret.encode())

    def _path(self, id: str) -> Path:
        return self._directory / id

    def _unreadable(self, provider: IdentityProvider) -> Refusal:
        return Refusal(
            Code.ARGUMENT_INVALID,
            f"the client secret of `{provider.name}` cannot be read",
            "check `client_secret_file` on the exchange",
        )
