"""Sign-ins that end: because the person says so here, or because the provider says so (OpenID Connect Back-Channel Logout 1.0)."""

import hashlib
from collections.abc import Callable

from cloister.exchange.administration import Administration
from cloister.exchange.errors import Refusal
from cloister.exchange.links import LiveLink, Switchboard
from cloister.exchange.settings import Limits
from cloister.exchange.signin.ended import EndedSignIns
from cloister.exchange.signin.oidc import OidcClient
from cloister.exchange.signin.service import SignIns
from cloister.exchange.signin.types import Provider
from cloister.exchange.state import State
from cloister.identity.oidc.logout import Logout
from cloister.identity.tokens.types import TokenRefused
from cloister.model.documents import User
from cloister.model.messages.from_exchange import SignedOut
from cloister.model.reasons import Code
from cloister.store.programs import count_presented, spend
from cloister.store.service import Change
from cloister.store.types import Actor


class Departures:
    def __init__(
        self,
        limits: Limits,
        state: State,
        switchboard: Switchboard,
        sign_ins: SignIns,
        oidc: OidcClient,
        administration: Administration,
        ended: EndedSignIns,
        clock: Callable[[], float],
    ) -> None:
        self._limits = limits
        self._state = state
        self._switchboard = switchboard
        self._sign_ins = sign_ins
        self._oidc = oidc
        self._administration = administration
        self._ended = ended
        self._clock = clock

    async def of_client(self, link: LiveLink, ref: int) -> None:
        """The person signs out: this very client, whose link this is."""
        agent = self._state.agents[link.agent]
        url = ""
        try:
            provider = None if agent.sign_in_issuer == "local" else self._sign_ins.provider(agent.sign_in_issuer)
            if provider is not None and provider.document.protocol == "oidc":
                url = await self._oidc.logout_url(provider)
        except Refusal:
            url = ""  # a provider that cannot be asked keeps nobody signed in here
        answer = SignedOut(ref=ref, url=url)
        actor = Actor(f"user:{self._state.name_of(agent.principal)}", link.source)
        await self._administration.sign_out_agents(
            actor, [agent.id], "agent.sign_out", on_committed=lambda: self._switchboard.send(link, answer)
        )

    async def by_provider(self, name: str, token: str, source: str) -> int:
        """A logout token: every sign-in of that session, or of that person, ends. How many clients did. Raises Refusal."""
        try:
            provider = self._sign_ins.provider(name)
            logout = await self._oidc.read_logout(provider, token)
            self._ended.add(provider.document.issuer, logout, self._clock())
            ids = self._concerned(provider, logout)
            person = self._state.find_user(provider.document.issuer, logout.subject)
            users = [] if person is None else [person.id]  # who signed in to the API alone has no client
            actor = Actor(f"provider:{name}", source)
            await self._administration.sign_out_agents(
                actor, ids, "sign_out", lambda change: self._spend(change, provider, logout), users=users
            )
        except TokenRefused as refused:
            await self._sign_ins.audit(source, f"logout by {name}"[:128], refused.code, "sign_out")
            raise Refusal(refused.code, refused.message) from None
        return len(ids)

    def _spend(self, change: Change, provider: Provider, logout: Logout) -> None:
        """In the store, so that no restart gives it a second use: it would end the sign-ins made since."""
        if count_presented(change.connection) >= self._limits.presented_tokens:
            raise TokenRefused(Code.LIMIT_REACHED, "too many tokens were used that have not expired")
        id = hashlib.sha256(f"logout\0{provider.document.issuer}\0{logout.id}".encode()).hexdigest()
        if not spend(change, id, logout.spent_until):
            raise TokenRefused(Code.TOKEN_REPLAYED, "this logout token was used before")

    def _concerned(self, provider: Provider, logout: Logout) -> list[str]:
        """Clients whose sign-in came from this provider, and whose session or, where none is named, whose person this is."""
        found = []
        for agent in self._state.agents.values():
            if agent.role != "client" or agent.revoked_at is not None or agent.sign_in_issuer != provider.name:
                continue
            user = self._state.parsed.get(agent.principal or "")
            is_person = isinstance(user, User) and user.issuer == provider.document.issuer and user.subject == logout.subject
            is_session = logout.session is not None and agent.sign_in_session == logout.session
            if is_person if logout.session is None else is_session and (is_person or not logout.subject):
                found.append(agent.id)
        return found
