"""What transmitters present to push, known by hash; and what is presented to them to poll, which has to be kept as it is."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from cloister.exchange.changes import Changes
from cloister.exchange.errors import Refusal
from cloister.exchange.signals.types import Transmitter
from cloister.model.reasons import Code
from cloister.store.service import Store
from cloister.store.signals import TransmitterSecret, list_transmitter_secrets, put_transmitter_secret
from cloister.store.types import Actor
from cloister.trust.files import make_private_directory, write_private
from cloister.trust.passwords import hash_secret, make_secret, secret_fits

PREFIX = "cl-signal-"
MAX_SECRET = 4096
_NOBODY = hash_secret("")


class TransmitterSecrets:
    def __init__(self, directory: Path, changes: Changes, store: Store, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._changes = changes
        self._clock = clock
        with store.read() as connection:
            self._hashes = {row.transmitter: row.secret_hash for row in list_transmitter_secrets(connection)}

    def fits(self, transmitter: str | None, secret: str) -> bool:
        """Whether this is the secret of that transmitter, in a time that tells neither."""
        stored = self._hashes.get(transmitter or "")
        return secret_fits(stored or _NOBODY, secret) and stored is not None

    async def make(self, actor: Actor, transmitter: Transmitter) -> str:
        """A new secret to push with, shown this once; the one before ends."""
        if transmitter.document.delivery != "push":
            raise Refusal(Code.ARGUMENT_INVALID, f"`{transmitter.name}` is polled: store the secret that it gave you")
        secret = PREFIX + make_secret()
        row = TransmitterSecret(transmitter.id, hash_secret(secret), int(self._clock()))
        entry = self._changes.entry(actor, "signal-transmitter.set_secret", transmitter.name)
        await self._changes.commit(entry, lambda change: put_transmitter_secret(change, row))
        self._hashes[transmitter.id] = row.secret_hash
        return secret

    async def store(self, actor: Actor, transmitter: Transmitter, secret: str) -> None:
        """The secret to poll with. It is in a file of its own and goes to the transmitter's URL and nowhere else."""
        poll = transmitter.document.poll
        if poll is None or poll.secret_file is not None:
            raise Refusal(Code.ARGUMENT_INVALID, f"`{transmitter.name}` takes no stored secret: it pushes, or names a file")
        if not _is_secret(secret):
            raise Refusal(Code.ARGUMENT_INVALID, f"a secret is one line of at most `{MAX_SECRET}` characters of ASCII")
        entry = self._changes.entry(actor, "signal-transmitter.set_secret", transmitter.name)
        await self._changes.commit(entry, lambda _: None)
        make_private_directory(self._directory)
        await asyncio.to_thread(write_private, self._path(transmitter), secret.encode())

    async def read(self, transmitter: Transmitter) -> str | None:
        """The secret to poll with; None: there is none. One that is named and cannot be read is a refusal."""
        named = transmitter.document.poll.secret_file if transmitter.document.poll is not None else None
        path = self._path(transmitter) if named is None else Path(named)
        try:
            text = await asyncio.to_thread(lambda: path.read_text("ascii")[: MAX_SECRET + 2])
        except FileNotFoundError:
            if named is None:
                return None
            raise _unreadable(transmitter) from None
        except (OSError, UnicodeDecodeError):
            raise _unreadable(transmitter) from None
        secret = text.rstrip("\r\n")
        if not _is_secret(secret):
            raise _unreadable(transmitter)
        return secret

    def _path(self, transmitter: Transmitter) -> Path:
        return self._directory / transmitter.id  # a document made again under an old name inherits nothing


def _is_secret(secret: str) -> bool:
    return 0 < len(secret) <= MAX_SECRET and secret.isascii() and secret.isprintable()


def _unreadable(transmitter: Transmitter) -> Refusal:
    return Refusal(
        Code.ARGUMENT_INVALID, f"the secret of `{transmitter.name}` cannot be read", "check `secret_file` on the exchange"
    )
