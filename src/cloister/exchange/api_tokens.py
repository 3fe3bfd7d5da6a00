"""Tokens of the API: given at a sign-in, or to a source of facts."""

import secrets
from collections.abc import Callable

from cloister.exchange.changes import Changes
from cloister.exchange.errors import Refusal
from cloister.exchange.settings import Settings
from cloister.exchange.state import State
from cloister.exchange.writer import Writer
from cloister.store import sessions as session_rows
from cloister.store.service import Store
from cloister.store.types import Account, Actor, ApiToken
from cloister.trust.passwords import hash_secret, make_secret

TOKEN_PREFIX = "cl-api-"  # noqa: S105 (what a token starts with is no secret)


class ApiTokens:
    def __init__(
        self, settings: Settings, state: State, changes: Changes, store: Store, writer: Writer, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._state = state
        self._changes = changes
        self._store = store
        self._writer = writer
        self._clock = clock

    async def create(self, user: str, source: str, check: Callable[[], object]) -> tuple[ApiToken, str]:
        """A token of this deployment: random, of no meaning, known by its hash only. `check` raises Refusal if the sign-in does not stand any more: what
        ended all tokens of this user while this one was written down did not see it.
        """
        now = int(self._clock())
        secret = TOKEN_PREFIX + make_secret()
        token = ApiToken(secrets.token_hex(8), user, now, now + self._settings.token_seconds)
        limit = self._settings.limits.api_tokens_per_user

        actor = Actor(f"user:{self._state.name_of(user)}", source)
        entry = self._changes.entry(actor, "sign_in", token.id)

        def work() -> None:
            with self._store.note() as connection:
                session_rows.add_api_token(connection, token, hash_secret(secret), limit, now)
            self._store.record(entry)

        await self._writer.run(work)
        try:
            check()
        except Refusal:
            await self.delete(actor, token.id)
            raise
        return token, secret

    async def create_for_source(self, actor: Actor, user: str, source: str, seconds: int) -> tuple[ApiToken, str]:
        """For a service account: it may push the facts of one source, and nothing else."""
        now = int(self._clock())
        secret = TOKEN_PREFIX + make_secret()
        token = ApiToken(secrets.token_hex(8), user, now, now + seconds, source)
        limit = self._settings.limits.api_tokens_per_user
        entry = self._changes.entry(actor, "fact_source.create_token", source, {"account": self._state.name_of(user)})
        hashed = hash_secret(secret)
        await self._changes.commit(entry, lambda change: session_rows.add_api_token(change.connection, token, hashed, limit, now))
        return token, secret

    def find(self, secret: str) -> tuple[ApiToken, Account] | None:
        """The token and the account behind it, if both are good right now. The look-up is by hash, so it tells nothing by its time."""
        if not secret.startswith(TOKEN_PREFIX):
            return None
        with self._store.read() as connection:
            token = session_rows.find_api_token(connection, hash_secret(secret), int(self._clock()))
        account = None if token is None else self._state.accounts.get(token.user)
        if token is None or account is None or not self._state.is_active_principal(token.user):
            return None
        return token, account

    async def delete(self, actor: Actor, id: str) -> None:
        entry = self._changes.entry(actor, "sign_out", id)

        def work() -> None:
            with self._store.note() as connection:
                session_rows.delete_api_token(connection, id)
            self._store.record(entry)

        await self._writer.run(work)
