"""Directories: who may provision users of which issuer, by one bearer token each (RFC 6750). Only the token's hash is stored."""

import dataclasses
import re
import secrets
from collections.abc import Callable
from typing import Literal

from cloister.exchange.attempts import Counter, group_of
from cloister.exchange.changes import Changes
from cloister.exchange.errors import Refusal, not_found
from cloister.exchange.settings import Limits
from cloister.exchange.state import State
from cloister.exchange.writer import Writer
from cloister.model.reasons import Code
from cloister.store import directories as rows
from cloister.store.service import Store
from cloister.store.types import Actor, AuditEntry, Directory, SubjectAttribute
from cloister.trust.passwords import hash_secret, make_secret, secret_fits

PREFIX = "cl-scim-"
LOCAL = "local"  # the issuer of this exchange's own accounts

_TOKEN = re.compile(r"cl-scim-([0-9a-f]{16})-([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_NOBODY = hash_secret(make_secret())

Judgement = Directory | Literal["unknown", "too_many"]


class Directories:
    def __init__(
        self, limits: Limits, state: State, changes: Changes, store: Store, writer: Writer, clock: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._state = state
        self._changes = changes
        self._store = store
        self._writer = writer
        self._clock = clock
        self._per_source = Counter(limits.attempts_per_source)
        self._per_directory = Counter(limits.attempts_per_account)
        self._in_all = Counter(limits.attempts_in_all)

    # ------------------------------------------------------------ administrators

    def list(self) -> list[Directory]:
        return sorted(self._state.directories.directories.values(), key=lambda directory: directory.name)

    async def create(self, actor: Actor, name: str, issuer: str, subject: SubjectAttribute) -> tuple[Directory, str]:
        """The directory, and its token that is shown this once."""
        if not _NAME.fullmatch(name):
            raise Refusal(Code.ARGUMENT_INVALID, f"`{name[:64]}` is no name of a directory", "use 1 to 32 of `a-z 0-9 -`")
        if not issuer.isprintable() or not 1 <= len(issuer) <= 256 or issuer == LOCAL:
            raise Refusal(
                Code.ARGUMENT_INVALID, "the issuer is not one line of text, or it is `local`", "name the identity provider"
            )
        now = int(self._clock())
        directory, token = _with_token(Directory(secrets.token_hex(8), name, issuer, subject, "", now, actor.name, now))

        def check() -> None:
            known = self._state.directories.directories
            if any(name == other.name or issuer == other.issuer for other in known.values()):
                raise Refusal(
                    Code.CONFLICT, f"a directory `{name}` or one for this issuer exists already", "rotate its token instead"
                )
            if len(known) >= self._limits.directories:
                raise Refusal(Code.LIMIT_REACHED, f"there are at most `{self._limits.directories}` directories")

        await self._put(actor, "directory.create", directory, check)
        return directory, token

    async def rotate(self, actor: Actor, name: str) -> tuple[Directory, str]:
        """A new token; the old one is worth nothing from now on. A revoked directory is in use again."""
        now = int(self._clock())
        directory, token = _with_token(dataclasses.replace(self._named(name), rotated_at=now, revoked_at=None))
        await self._put(actor, "directory.rotate", directory)
        return directory, token

    async def revoke(self, actor: Actor, name: str) -> None:
        """The token is worth nothing from now on. Users and groups stay as they are: end them with a kill switch, or delete them."""
        directory = self._named(name)
        if directory.revoked_at is None:
            revoked = dataclasses.replace(directory, revoked_at=int(self._clock()), token_hash=hash_secret(make_secret()))
            await self._put(actor, "directory.revoke", revoked)

    def _named(self, name: str) -> Directory:
        directory = self._state.directories.named(name)
        if directory is None:
            raise not_found("directory", name)
        return directory

    async def _put(self, actor: Actor, action: str, directory: Directory, check: Callable[[], None] = lambda: None) -> None:
        entry = self._changes.entry(actor, action, f"directory {directory.name}", {"issuer": directory.issuer})
        await self._changes.commit(entry, lambda change: rows.put_directory(change, directory), check)
        self._state.directories.directories[directory.id] = directory

    # ------------------------------------------------------------ requests

    def judge(self, secret: str, source: str) -> Judgement:
        """Whose token this is. Failures are counted per source, per directory and in all (case 16); one who guesses locks out only the own
        address, never the directory, whose token works whatever others try."""
        now, group = self._clock(), group_of(source)
        if not self._per_source.allows(group, now):
            return "too_many"
        found = _TOKEN.fullmatch(secret)
        directory = self._state.directories.directories.get(found[1]) if found is not None else None
        fits = secret_fits(_NOBODY if directory is None else directory.token_hash, found[2] if found is not None else "")
        if directory is not None and fits and directory.revoked_at is None:
            return directory
        capped = not self._in_all.allows("", now) or (directory is not None and not self._per_directory.allows(directory.id, now))
        self._per_source.add(group, now)
        self._in_all.add("", now)
        if directory is not None:
            self._per_directory.add(directory.id, now)
        if not capped:
            name = "" if directory is None else directory.name
            entry = AuditEntry(int(now), Actor("", source), "directory.refused", f"directory {name}", code=Code.NOT_AUTHENTICATED)
            self._writer.start(lambda: self._store.record(entry))
        return "too_many" if capped else "unknown"


def _with_token(directory: Directory) -> tuple[Directory, str]:
    secret = make_secret()
    return dataclasses.replace(directory, token_hash=hash_secret(secret)), f"{PREFIX}{directory.id}-{secret}"
