"""The way back in for whoever owns the exchange's host and has lost an administrator's password."""

import os
import secrets
from pathlib import Path

from cloister.exchange.backup import DATABASE, need_exchange
from cloister.exchange.errors import Refusal
from cloister.model.reasons import Code
from cloister.store import documents as document_rows
from cloister.store.service import Store
from cloister.store.types import Actor, AuditEntry
from cloister.trust.files import lock_directory
from cloister.trust.passwords import hash_password


def reset_password(data: Path, name: str, now: int) -> str:
    """Give an administrator a new password, which is returned and stored nowhere; the account's tokens end.

    The exchange must not run meanwhile: it decides on accounts in its memory.
    """
    need_exchange(data)
    lock = lock_directory(data)
    if lock is None:
        raise Refusal(Code.CONFLICT, f"an exchange runs on `{data}`", "stop it, reset the password, and start it again")
    try:
        with Store.open(data / DATABASE) as store:
            return _reset(store, name, now)
    finally:
        os.close(lock)


def _reset(store: Store, name: str, now: int) -> str:
    with store.read() as connection:
        users = {document.id: document for document in document_rows.list_documents(connection) if document.kind == "user"}
        accounts = [account for account in document_rows.list_accounts(connection) if account.role == "admin"]
    administrators = {user.name: user for account in accounts if (user := users.get(account.user)) is not None}
    user = administrators.get(name)
    if user is None:
        known = ", ".join(f"`{other}`" for other in sorted(administrators)) or "none"
        raise Refusal(Code.NOT_FOUND, f"there is no administrator `{name}`", f"administrators of this exchange: {known}")
    if user.fields.get("disabled"):
        raise Refusal(Code.USER_DISABLED, f"the administrator `{name}` is disabled", "let another administrator enable the account")
    password = secrets.token_urlsafe(18)
    hashed = hash_password(password)
    with store.change(AuditEntry(now, Actor("operator"), "user.reset_password", f"user {name}")) as change:
        document_rows.put_account(change, user.id, "admin", hashed, now)
    return password
