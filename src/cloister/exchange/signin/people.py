"""From what a provider said to a user here: found by issuer and subject and by nothing else (cases 7, 8), in the groups that this sign-in says."""

import hashlib
import re
import secrets
from collections.abc import Sequence

from cloister.exchange.changes import Changes
from cloister.exchange.errors import Refusal
from cloister.exchange.members import owns_group, providers_of
from cloister.exchange.signin.types import Provider
from cloister.exchange.state import State
from cloister.identity.people import Person
from cloister.model.documents import MAX_MEMBERS, Document, Group, User
from cloister.model.fields import USER_NAME
from cloister.model.reasons import Code
from cloister.store.types import Actor

MAX_SLUG = 90


class People:
    def __init__(self, state: State, changes: Changes) -> None:
        self._state = state
        self._changes = changes

    def find(self, issuer: str, subject: str) -> str | None:
        """The id of the user that this pair is. Local accounts have no subject that a provider could name."""
        found = None if issuer == "local" else self._state.find_user(issuer, subject)
        return None if found is None else found.id

    async def admit(self, provider: Provider, person: Person, source: str) -> str:
        """The id of the user, made and put into groups as the provider's document says. Raises Refusal if there is no place for this person."""
        known = self.find(person.issuer, person.subject)
        if known is None and provider.document.users == "existing":
            raise Refusal(
                Code.NOT_AUTHORISED,
                f"no user here belongs to this account of `{provider.name}`",
                "ask your administrator to add you, with issuer and subject",
            )
        if known is not None and not self._state.is_active_principal(known):
            raise Refusal(Code.USER_DISABLED)
        actor = Actor(f"provider:{provider.name}", source)
        await self._changes.write(actor, "user.sign_in", lambda: self._documents(provider, person))
        found = self.find(person.issuer, person.subject)
        if found is None or not self._state.is_active_principal(found):
            raise Refusal(Code.USER_DISABLED)
        return found

    async def withdraw(self, provider: Provider, user: str, said: Sequence[str], actor: Actor) -> None:
        """The person is in no more of the provider's own groups than these. New ones wait for the next sign-in: only that is the person's own proof."""

        def left() -> Sequence[Document]:
            document = self._state.parsed.get(user)
            name = document.name if isinstance(document, User) else ""
            return [group for group in self._groups(provider, name, set(said)) if name not in group.users]

        await self._changes.write(actor, "user.claims_changed", left)

    def _documents(self, provider: Provider, person: Person) -> Sequence[Document]:
        """What has to be written, from the documents as they are right now: called while no other change can come in between."""
        id = self.find(person.issuer, person.subject)
        known = None if id is None else self._state.parsed[id]
        if isinstance(known, User):
            user = known if not person.display else known.model_copy(update={"display": person.display})
        elif provider.document.users == "existing":
            return []
        else:
            name = self._free_name(provider, person)
            user = User(name=name, issuer=person.issuer, subject=person.subject, display=person.display or None)
        groups = [] if person.groups is None else self._groups(provider, user.name, set(person.groups))
        return [user, *groups]

    def _groups(self, provider: Provider, user: str, said: set[str]) -> list[Group]:
        """The provider's own groups whose members change: named by its map or below its prefix, and documents already. Nothing else is touched."""
        claim = provider.document.groups
        mapped = {} if claim is None else dict(claim.map)
        prefix = provider.document.name_prefix
        names = {mapped.get(value, f"{prefix}{value}") for value in said if value in mapped or prefix}
        providers = providers_of(self._state)
        changed = []
        for document in self._state.parsed.values():
            if not isinstance(document, Group) or not owns_group(provider.document, document.name, providers):
                continue
            if (document.name in names) == (user in document.users):
                continue
            others = tuple(member for member in document.users if member != user)
            if document.name in names and len(others) >= MAX_MEMBERS:
                raise Refusal(Code.LIMIT_REACHED, f"the group `{document.name}` has `{MAX_MEMBERS}` members already")
            changed.append(document.model_copy(update={"users": (*others, user) if document.name in names else others}))
        return changed

    def _free_name(self, provider: Provider, person: Person) -> str:
        """A name that nobody has: what the provider says, below its prefix; with a part of its key where that is taken."""
        slug = re.sub(r"[^a-z0-9._@+-]+", "-", person.username.lower()).strip("._@+-")[:MAX_SLUG].strip("._@+-")
        key = hashlib.sha256(f"{person.issuer}\0{person.subject}".encode()).hexdigest()
        candidates = (f"{slug}" if slug else f"user-{key[:8]}", f"{slug or 'user'}-{key[:8]}", f"user-{secrets.token_hex(16)}")
        for candidate in candidates:
            name = f"{provider.document.name_prefix}{candidate}"
            used_up = ("user", name) in self._state.directories.retired
            if not used_up and self._state.find("user", name) is None and re.fullmatch(USER_NAME.strip("^$"), name, re.ASCII):
                return name
        raise Refusal(Code.CONFLICT, "no name is free for this person", "ask your administrator to add you")
