"""Every administrative change: checked, committed with its audit row, then put in force, in that order and one at a time."""

import asyncio
import dataclasses
import itertools
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeVar

from cloister.exchange.book import SessionBook
from cloister.exchange.delta import (
    PRINCIPALS,
    Delta,
    check_delta,
    group_changes,
    groups_without,
    parse_again,
    touched_principals,
    update_library,
)
from cloister.exchange.errors import Refusal, not_found, refuse_errors
from cloister.exchange.members import with_said_members
from cloister.exchange.settings import Settings
from cloister.exchange.state import COMPILED, Generations, Library, State, changed_kinds, make_library, parse_row
from cloister.exchange.touched import touched_sessions
from cloister.exchange.verify import Verifier
from cloister.exchange.writer import Writer
from cloister.model.documents import MAX_MEMBERS, Document, Group, User, to_fields
from cloister.model.overlap import narrowed
from cloister.model.parse import Origins, ParseResult, parse_documents
from cloister.model.providers import IdentityProvider
from cloister.model.reasons import Code
from cloister.model.references import check_documents
from cloister.policy.check import check
from cloister.store import directories as directory_rows
from cloister.store import documents as document_rows
from cloister.store import sessions as session_rows
from cloister.store.service import Change, Store
from cloister.store.types import Account, AccountRole, Actor, AuditEntry, StoredDocument
from cloister.trust.passwords import MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS

T = TypeVar("T")
CHANGE_IT = "choose another name, or change the one there is"
TARGETS = 100  # documents that an audit row names
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did, or would do."""

    created: tuple[Key, ...]
    changed: tuple[Key, ...]
    deleted: tuple[Key, ...]
    generation: int
    notices: tuple[str, ...] = ()  # what is written and will not work as things are now


@dataclass(frozen=True, slots=True)
class Draft:
    """A change as whoever asks for it wants it. `ids` says under which id a document is written, for one that gets another name or whose id is known before.
    `also` is committed in the same transaction, `then` runs when it is in force, with its generation."""

    documents: Sequence[Document] = ()
    delete: Sequence[Key] = ()
    ids: Mapping[Key, str] = field(default_factory=dict)
    origins: Origins | None = None
    account: Account | None = None
    also: Callable[[Change], None] | None = None
    then: Callable[[int], None] | None = None
    target: str = ""
    detail: Mapping[str, object] = field(default_factory=dict)
    cause: Code | None = None  # what clients are told; default: by the kinds that changed


@dataclass(frozen=True, slots=True)
class _Plan:
    draft: Draft
    delta: Delta
    created: tuple[Key, ...]
    changed: tuple[Key, ...]

    @property
    def written(self) -> tuple[StoredDocument, ...]:
        return self.delta.written

    @property
    def removed(self) -> tuple[StoredDocument, ...]:
        return self.delta.removed


PROVING = frozenset({"token-issuer", "workload", "connector-group"})
"""Kinds of document that vouch for programs."""


class Changes:
    """Documents and accounts. `committed` hooks put other parts in step after the state was replaced."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        book: SessionBook,
        verifier: Verifier,
        generations: Generations,
        store: Store,
        writer: Writer,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._state = state
        self._book = book
        self._verifier = verifier
        self._generations = generations
        self._store = store
        self._writer = writer
        self._clock = clock
        self._lock = asyncio.Lock()
        self.on_proofs_changed: Callable[[], None] = lambda: None
        self.on_principals_gone: Callable[[AbstractSet[str]], None] = lambda _ids: None
        self.check_provider: Callable[[IdentityProvider], Awaitable[str]] | None = None

    # ------------------------------------------------------------ documents

    async def apply(self, actor: Actor, text: bytes, *, dry_run: bool, expected: int | None = None) -> Applied:
        """Write every document of a bundle, or none. Who is in a group by a sign-in or a directory stays in it. `expected` is the generation that
        the caller has seen (case 90)."""
        parsed = await self.read(text)
        notices = await self._check_providers(parsed.documents)

        def draft() -> Draft:
            self._check_expected(parsed.documents, (), expected, must_exist=None)
            return Draft(with_said_members(self._state, parsed.documents), origins=parsed.origins)

        applied = await self.edit(actor, "documents.apply", draft, dry_run=dry_run)
        return dataclasses.replace(applied, notices=notices)

    async def read(self, text: bytes) -> ParseResult:
        parsed = await asyncio.to_thread(parse_documents, text, "")
        refuse_errors(parsed.errors)
        return parsed

    async def write(
        self,
        actor: Actor,
        action: str,
        documents: Sequence[Document] | Callable[[], Sequence[Document]],
        *,
        delete: Sequence[Key] = (),
        origins: Origins | None = None,
        account: Account | None = None,
        dry_run: bool = False,
        expected: int | None = None,
        must_exist: bool | None = None,
    ) -> Applied:
        """The one way in which documents change. `documents` may be made from what is stored, at the moment when nothing else can change it.
        `account` replaces that of the user whose document is written; `must_exist` refuses to create (True) or to replace (False)."""
        if not callable(documents):
            await self._check_providers(documents)

        def draft() -> Draft:
            made = documents() if callable(documents) else documents
            self._check_expected(made, delete, expected, must_exist=must_exist)
            return Draft(made, delete, origins=origins, account=account)

        return await self.edit(actor, action, draft, dry_run=dry_run)

    async def edit(self, actor: Actor, action: str, draft: Callable[[], Draft], *, dry_run: bool = False) -> Applied:
        """The same, for who must read before writing: `draft` is called in the lock, in a thread, so that nothing changes between."""
        async with self._lock:
            plan, generation, library = await asyncio.to_thread(self._prepare, draft)
            account = plan.draft.account
            self._check_administrators(library, account)
            applied = Applied(plan.created, plan.changed, tuple((item.kind, item.name) for item in plan.removed), generation)
            if dry_run or not (plan.written or plan.removed or account or plan.draft.also):
                return applied
            names = (f"{item.kind} {item.name}" for item in (*plan.written, *plan.removed))
            target = plan.draft.target or ", ".join(itertools.islice(names, TARGETS))
            detail = {"created": len(plan.created), "changed": len(plan.changed), "deleted": len(plan.removed)}
            entry = self._entry(actor, action, target, {**detail, **plan.draft.detail})
            account = account and self._with_user(account, plan)
            await self._writer.run(lambda: self._commit(entry, generation, plan, account))
            self._put_in_force(library, plan, account)
            if plan.draft.then is not None:
                plan.draft.then(generation)
            return applied

    async def delete(self, actor: Actor, kind: str, name: str, *, expected: int | None = None) -> Applied:
        """Remove one document. A user leaves every group by it; what else names the document refuses it."""
        key = (kind, name)

        def draft() -> Draft:
            self._check_expected((), [key], expected, must_exist=True)
            changed = groups_without(self._state.library, key) if kind == "user" else []
            return Draft(changed, [key], cause=Code.USER_DISABLED if kind == "user" else None)

        try:
            return await self.edit(actor, f"{kind}.delete", draft)
        except Refusal as refusal:
            if refusal.code is not Code.REFERENCE_UNKNOWN:
                raise
            users = ", ".join(dict.fromkeys(f"{error['document']}" for error in refusal.errors))
            raise Refusal(Code.CONFLICT, f"the {kind} `{name}` is used by {users}", "take it out there first") from None

    async def set_member(self, actor: Actor, group: str, user: str, *, member: bool) -> None:
        """Add a user to a group or take one out; no change if it is so already."""
        document = self._state.find("group", group)
        parsed = None if document is None else self._state.parsed[document.id]
        if document is None or not isinstance(parsed, Group):
            raise not_found("group", group)
        if self._state.find("user", user) is None:
            raise not_found("user", user)
        others = tuple(name for name in parsed.users if name != user)
        users = (*others, user) if member else others
        if len(users) > MAX_MEMBERS:
            raise Refusal(Code.LIMIT_REACHED, f"a group has at most `{MAX_MEMBERS}` members")
        if (user in parsed.users) != member:
            action = "group.add_member" if member else "group.remove_member"
            await self.write(actor, action, [parsed.model_copy(update={"users": users})], expected=document.generation)

    # ------------------------------------------------------------ accounts

    async def create_user(self, actor: Actor, user: User, role: AccountRole, password_hash: str | None) -> Applied:
        account = Account("", password_hash, role, int(self._clock()))
        return await self.write(actor, "user.create", [user], account=account, must_exist=False)

    async def set_account(
        self, actor: Actor, name: str, *, role: AccountRole | None = None, password_hash: str | None = None
    ) -> None:
        """Change role or password; every token of the account ends."""
        document = self._state.find("user", name)
        parsed = None if document is None else self._state.parsed[document.id]
        if document is None or not isinstance(parsed, User):
            raise not_found("user", name)
        known = self._state.accounts.get(document.id)
        account = Account(
            document.id,
            password_hash or (known.password_hash if known else None),
            role or (known.role if known else "user"),
            int(self._clock()),
        )
        action = "user.set_role" if role else "user.set_password"
        await self.write(actor, action, [parsed], account=account, must_exist=True)

    # ------------------------------------------------------------

    async def commit(self, entry: AuditEntry, work: Callable[[Change], T], check: Callable[[], object] = lambda: None) -> T:
        """Any other change: in the lock, on the writer, with a generation. `check` refuses, in the lock. The caller puts it in force afterwards."""
        async with self._lock:
            check()
            generation = self._generations.advance()

            def run() -> T:
                with self._store.change(entry, generation) as change:
                    return work(change)

            return await self._writer.run(run)

    def entry(self, actor: Actor, action: str, target: str, detail: Mapping[str, object] | None = None) -> AuditEntry:
        return self._entry(actor, action, target, detail or {})

    # ------------------------------------------------------------

    async def _check_providers(self, documents: Sequence[Document]) -> tuple[str, ...]:
        """Identity providers that are new or changed are asked whether they are who the document says (case 9), before anything waits for them.
        What is to be said of those that could not be asked."""
        notices = []
        for document in documents:
            if isinstance(document, IdentityProvider) and self.check_provider is not None:
                known = self._state.find(document.kind, document.name)
                if known is None or known.fields != to_fields(document):
                    notices.append(await self.check_provider(document))
        return tuple(filter(None, notices))

    def _check_expected(
        self, documents: Sequence[Document], delete: Sequence[Key], expected: int | None, *, must_exist: bool | None
    ) -> None:
        for key in [*((document.kind, document.name) for document in documents), *delete]:
            stored = self._state.find(*key)
            if expected is not None and (0 if stored is None else stored.generation) != expected:
                seen = 0 if stored is None else stored.generation
                raise Refusal(Code.CONFLICT, f"the {key[0]} `{key[1]}` has generation `{seen}` by now, not `{expected}`")
            if must_exist is True and stored is None:
                raise not_found(*key)
        if must_exist is False:
            first = documents[0]
            if self._state.find(first.kind, first.name) is not None:
                raise Refusal(Code.CONFLICT, f"the {first.kind} `{first.name}` exists already", CHANGE_IT)

    def _prepare(self, draft: Callable[[], Draft]) -> tuple[_Plan, int, Library]:
        """In a thread, in the lock: read, plan, check, compile. Nothing of it can be seen before the commit."""
        plan = self._plan(draft())
        generation = self._generations.advance()
        old = self._state.library
        delta = plan.delta.at(generation)
        if delta.is_of_leaves:
            refuse_errors(check_delta(old, delta))
            library = update_library(old, delta, generation)
        else:
            library = _compile(delta, generation, plan.draft.origins, old)
        return dataclasses.replace(plan, delta=delta), generation, library

    def _plan(self, draft: Draft) -> _Plan:
        """The rows that would be stored. Documents that say what is stored already are left alone, so that an apply twice changes nothing."""
        now = int(self._clock())
        written: list[StoredDocument] = []
        documents: dict[str, Document] = {}
        created: list[Key] = []
        changed: list[Key] = []
        removed = [gone for key in draft.delete if (gone := self._state.find(*key)) is not None]
        going = {gone.id for gone in removed}
        for document in draft.documents:
            key = (document.kind, document.name)
            fields = to_fields(document)
            holder = self._state.find(*key)
            id = draft.ids.get(key)
            known = self._state.documents.get(id) if id is not None else holder
            if id is not None and holder is not None and holder.id not in {id, *going}:
                raise Refusal(Code.CONFLICT, f"the {key[0]} `{key[1]}` exists already", CHANGE_IT)
            if known is not None and known.fields == fields:
                continue
            (created if known is None else changed).append(key)
            row = StoredDocument(id or (secrets.token_hex(8) if known is None else known.id), *key, fields, 0, now)
            written.append(row)
            documents[row.id] = parse_again(document, fields)
        rewritten = {row.id for row in written}
        removed = [gone for gone in removed if gone.id not in rewritten]
        if len(self._state.documents) + len(created) - len(removed) > self._settings.limits.documents:
            raise Refusal(Code.LIMIT_REACHED, f"there are at most `{self._settings.limits.documents}` documents")
        return _Plan(
            draft,
            Delta(tuple(written), tuple(removed), documents, group_changes(self._state.library, documents, removed)),
            tuple(created),
            tuple(changed),
        )

    def _check_administrators(self, library: Library, account: Account | None) -> None:
        """Somebody who can sign in as an administrator remains (case 82)."""
        accounts = dict(self._state.accounts)
        if account is not None and account.user:
            accounts[account.user] = account
        before = any(self._is_administrator(self._state.library, item) for item in self._state.accounts.values())
        if before and not any(self._is_administrator(library, item) for item in accounts.values()):
            raise Refusal(Code.CONFLICT, "this would leave no administrator who can sign in", "make another administrator first")

    def _is_administrator(self, library: Library, account: Account) -> bool:
        user = library.parsed.get(account.user)
        return account.role == "admin" and account.password_hash is not None and isinstance(user, User) and not user.disabled

    def _with_user(self, account: Account, plan: _Plan) -> Account:
        if account.user:
            return account
        return dataclasses.replace(account, user=next(row.id for row in plan.written if row.kind == "user"))

    def _commit(self, entry: AuditEntry, generation: int, plan: _Plan, account: Account | None) -> None:
        retiring = self._retiring(plan)
        with self._store.change(entry, generation) as change:
            for row in plan.removed:
                document_rows.delete_document(change, row.id)
            for row in plan.written:
                document_rows.put_document(change, row.id, row.kind, row.name, row.fields, row.changed_at)
                if row.kind == "user" and row.fields.get("disabled") is True:
                    session_rows.delete_api_tokens_of(change.connection, row.id)  # or they would come back with the person
            if account is not None:
                document_rows.put_account(change, account.user, account.role, account.password_hash, account.changed_at)
            directory_rows.retire_names(change, retiring, entry.at)
            if plan.draft.also is not None:
                plan.draft.also(change)

    def _retiring(self, plan: _Plan) -> list[tuple[str, str, str]]:
        """Names that users and documents of directories lose, whoever takes them away: nobody inherits what they were granted under them (case 7)."""
        retiring = []
        before = list(plan.removed)
        before += [old for row in plan.written if (old := self._state.documents.get(row.id)) is not None and old.name != row.name]
        for row in before:
            entry = self._state.directories.get(row.id)
            if entry is not None or row.kind == "user":
                retiring.append((row.kind, row.name, "" if entry is None else entry.directory))
        by_directories = set(plan.draft.ids.values())
        for row in plan.written:
            is_new = row.id not in self._state.documents and row.id not in by_directories
            if is_new and (row.kind, row.name) in self._state.directories.retired:
                retiring.append((row.kind, row.name, ""))  # made anew by an administrator: no directory takes it up again
        return retiring

    def _put_in_force(self, library: Library, plan: _Plan, account: Account | None) -> None:
        old = self._state.library
        book = self._state.directories
        book.retired.update(((kind, name), directory) for kind, name, directory in self._retiring(plan))
        self._state.library = library
        if any(row.kind == "signal-transmitter" for row in plan.removed):
            self._state.judged.clear()  # what it said of devices does not count any more
        for row in plan.removed:
            self._state.accounts.pop(row.id, None)
            book.drop(row.id)
        if account is not None:
            self._state.accounts[account.user] = account
        if not plan.delta.is_of_leaves:
            for segment in narrowed(old.policy.segments, library.policy.segments):
                # A flow may lead where the segment does not any more.
                self._verifier.end(self._book.of_segment(segment), Code.SEGMENT_CHANGED)
        principals = touched_principals(old, library, plan.delta)
        self._verifier.check(
            touched_sessions(self._state, self._book, old, plan.delta, principals), plan.draft.cause or _cause(plan)
        )
        changed = {row.id for row in (*plan.written, *plan.removed) if row.kind in PRINCIPALS}
        gone = {id for id in changed if not self._state.is_active_principal(id)}
        if gone:
            self.on_principals_gone(gone)
        if plan.delta.kinds & PROVING:
            self.on_proofs_changed()
        if plan.delta.is_of_leaves:
            self._verifier.set_stale_for(principals)
        else:
            self._verifier.set_stale()

    def _entry(self, actor: Actor, action: str, target: str, detail: Mapping[str, object]) -> AuditEntry:
        return AuditEntry(int(self._clock()), actor, action, target, detail)


def check_password_form(password: str) -> None:
    if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
        raise Refusal(
            Code.ARGUMENT_INVALID,
            f"a password has `{MIN_PASSWORD_CHARS}` to `{MAX_PASSWORD_CHARS}` characters",
            "choose another one",
        )


def _compile(delta: Delta, generation: int, origins: Origins | None, old: Library) -> Library:
    """Check the whole set and compile what changed."""
    stored = dict(old.documents)
    for row in delta.removed:
        stored.pop(row.id, None)
    stored.update((row.id, row) for row in delta.written)
    rows = list(stored.values())
    parsed = [parse_row(row, old) for row in rows]
    check_all = changed_kinds(old.documents, stored) & COMPILED
    refuse_errors(check(parsed, origins) if check_all else check_documents(parsed, origins))
    return make_library(rows, generation, old)


def _cause(plan: _Plan) -> Code:
    """What clients are told: the kind of document that changed, if there is one."""
    kinds = {row.kind for row in (*plan.written, *plan.removed)}
    if kinds <= {"user", "workload"}:
        return Code.USER_DISABLED
    if kinds <= {"group", "user"}:
        return Code.GROUP_CHANGED
    return Code.SEGMENT_CHANGED if kinds <= {"segment", "connector-group"} else Code.POLICY_CHANGED
