"""Who is in a group by the word of a sign-in or a directory. That word stands, whatever an administrator's document of the group lists beside it."""

from collections.abc import Iterable, Sequence

from cloister.exchange.errors import Refusal
from cloister.exchange.state import State
from cloister.model.documents import MAX_MEMBERS, Document, Group, User
from cloister.model.providers import IdentityProvider
from cloister.model.reasons import Code


def providers_of(state: State) -> list[IdentityProvider]:
    return [each for each in state.library.referers.values() if isinstance(each, IdentityProvider)]


def owns_group(provider: IdentityProvider, name: str, providers: Iterable[IdentityProvider]) -> bool:
    """Whether sign-ins at this provider say who is in the group: it is named by its map, or below its prefix and no longer one's."""
    if provider.groups is not None and name in provider.groups.map.values():
        return True
    prefix = provider.name_prefix
    longer = tuple(other for each in providers if (other := each.name_prefix) != prefix and other.startswith(prefix))
    return bool(prefix) and name.startswith(prefix) and not name.startswith(longer)


def with_said_members(state: State, documents: Sequence[Document]) -> list[Document]:
    """The documents as they are to be written. Read in the lock: a sign-in may say something new at any time."""
    providers = {each.name: each for each in (*providers_of(state), *documents) if isinstance(each, IdentityProvider)}
    return [
        _with_said(state, document, list(providers.values())) if isinstance(document, Group) else document for document in documents
    ]


def _with_said(state: State, group: Group, providers: Sequence[IdentityProvider]) -> Group:
    row = state.find("group", group.name)
    known = None if row is None else state.parsed[row.id]
    if row is None or not isinstance(known, Group):
        return group
    issuers = {provider.issuer for provider in providers if owns_group(provider, group.name, providers)}
    entry = state.directories.get(row.id)
    listed = set(group.users)

    def is_said(name: str) -> bool:
        member = state.find("user", name)
        if member is None:
            return False
        user, own = state.parsed[member.id], state.directories.get(member.id)
        by_directory = entry is not None and own is not None and own.directory == entry.directory
        return by_directory or (isinstance(user, User) and user.issuer in issuers)

    users = (*group.users, *(name for name in known.users if name not in listed and is_said(name)))
    if len(users) > MAX_MEMBERS:
        raise Refusal(
            Code.LIMIT_REACHED, f"the group `{group.name}` has more than `{MAX_MEMBERS}` members with those that sign-ins say"
        )
    return group.model_copy(update={"users": users})
