"""Groups that a changed claim names: whoever is in fewer of them leaves the others at once; new ones come with the next sign-in."""

from collections.abc import Mapping

from cloister.exchange.signals.types import Transmitter
from cloister.exchange.signin.people import People
from cloister.exchange.signin.types import Provider
from cloister.exchange.state import State
from cloister.identity.people import read_groups
from cloister.identity.signals.types import EventRefused
from cloister.identity.tokens.types import TokenRefused
from cloister.model.providers import IdentityProvider
from cloister.model.reasons import Code
from cloister.store.types import Actor


class ClaimedGroups:
    def __init__(self, state: State, people: People) -> None:
        self._state = state
        self._people = people

    async def follow(self, transmitter: Transmitter, user: str, claims: Mapping[str, object], actor: Actor) -> str | None:
        """The claim that was followed: that of the identity provider whose users these are, if its document reads groups from one. Raises EventRefused."""
        provider = self._provider(transmitter)
        name = None if provider is None or provider.document.groups is None else provider.document.groups.claim
        if provider is None or name is None or name not in claims:
            return None
        value = claims[name]
        said = [value] if isinstance(value, str) else value
        if not isinstance(said, list) or not all(isinstance(item, str) for item in said):
            raise EventRefused("invalid_request", Code.TOKEN_CLAIM, f"the claim `{name}` is no list of groups")
        try:
            groups = read_groups(said)
        except TokenRefused as error:
            raise EventRefused("invalid_request", error.code, error.message) from None
        await self._people.withdraw(provider, user, groups, actor)
        return name

    def _provider(self, transmitter: Transmitter) -> Provider | None:
        users = transmitter.document.users
        found = [
            Provider(id, document)
            for id, document in self._state.library.referers.items()
            if isinstance(document, IdentityProvider) and users is not None and document.issuer == users.issuer
        ]
        return found[0] if len(found) == 1 else None
