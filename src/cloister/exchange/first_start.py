"""What a first start makes: the keys, and one administrator."""

import asyncio
import secrets
from dataclasses import dataclass

from cloister.exchange.changes import Changes
from cloister.exchange.settings import Settings
from cloister.exchange.state import State
from cloister.model.documents import User
from cloister.store.service import Store
from cloister.store.types import Actor
from cloister.trust.keyring import Keyring, create_keyring
from cloister.trust.keystore import load_keyring, save_keyring
from cloister.trust.passwords import hash_password

FIRST_ADMINISTRATOR = "admin"


@dataclass(frozen=True, slots=True)
class FirstAdministrator:
    """The password is shown once and is stored nowhere."""

    name: str
    password: str


def load_or_create_keyring(settings: Settings, store: Store, now: int) -> Keyring:
    keyring = load_keyring(settings.keys)
    if keyring is not None:
        return keyring
    if store.has_agents():
        raise FileNotFoundError(f"the keys in `{settings.keys}` are gone but the database is not: restore a backup")
    keyring = create_keyring(now)
    save_keyring(settings.keys, keyring)
    return keyring


async def make_first_administrator(state: State, changes: Changes) -> FirstAdministrator | None:
    """Only where there has never been an account; there is no default secret anywhere (case 30)."""
    if state.accounts:
        return None
    password = secrets.token_urlsafe(18)
    hashed = await asyncio.to_thread(hash_password, password)
    await changes.create_user(Actor("exchange"), User(name=FIRST_ADMINISTRATOR, display="Administrator"), "admin", hashed)
    return FirstAdministrator(FIRST_ADMINISTRATOR, password)
