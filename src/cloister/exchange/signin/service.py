"""Sign-ins at identity providers, from the terminal that asks to the person who answers in a browser or on another device."""

import asyncio
import dataclasses
import secrets
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlencode

from cloister.exchange.administration import Administration
from cloister.exchange.attempts import Noting
from cloister.exchange.enrol import Enrolment
from cloister.exchange.errors import Refusal
from cloister.exchange.signals.standing import is_voided
from cloister.exchange.signin.attempts import Finish, Pending, PendingAttempts
from cloister.exchange.signin.ended import EndedSignIns
from cloister.exchange.signin.machine import LIFE_SECONDS, Attempt, OutOfOrder, digest
from cloister.exchange.signin.oidc import OidcClient
from cloister.exchange.signin.people import People
from cloister.exchange.signin.saml import SamlProvider
from cloister.exchange.signin.stepup import StepUps
from cloister.exchange.signin.types import Provider
from cloister.exchange.state import State
from cloister.exchange.writer import Writer
from cloister.identity.oidc.request import Secrets, Wish
from cloister.identity.people import Person
from cloister.identity.tokens.types import TokenRefused
from cloister.model.messages.from_agent import EnrolBySignIn, StepUp
from cloister.model.messages.from_exchange import Enrolled, Refused, SignedIn, SignInStarted
from cloister.model.providers import IdentityProvider
from cloister.model.reasons import Code
from cloister.store.service import Store
from cloister.store.types import Actor, Agent, AuditEntry, Subject

WAIT_SECONDS = 25.0  # that an administrator's terminal waits in one request
MAX_WAITING = 4_096  # outcomes that administrators' terminals may still ask for; beyond, the oldest failures are forgotten

Tell = Callable[[SignInStarted], object]
IsAwaited = Callable[[], bool]


class SignIns:
    def __init__(
        self,
        state: State,
        pending: PendingAttempts,
        oidc: OidcClient,
        saml: SamlProvider,
        people: People,
        step_ups: StepUps,
        enrolment: Enrolment,
        administration: Administration,
        ended: EndedSignIns,
        noting: Noting,
        store: Store,
        writer: Writer,
        clock: Callable[[], float],
    ) -> None:
        self._state = state
        self._pending = pending
        self._oidc = oidc
        self._saml = saml
        self._people = people
        self._step_ups = step_ups
        self._enrolment = enrolment
        self._administration = administration
        self._ended = ended
        self._noting = noting
        self._store = store
        self._writer = writer
        self._clock = clock
        self._waiting: dict[str, tuple[asyncio.Future[tuple[str, Person]], float]] = {}

    # ------------------------------------------------------------ who asks

    async def enrol(self, request: EnrolBySignIn, source: str, tell: Tell, is_awaited: IsAwaited) -> Enrolled:
        """For a terminal that wants to be enrolled for whoever signs in. The key is the one of this very request."""
        self._enrolment.check_key(request.csr)
        enrolled: list[Enrolled] = []

        async def finish(provider: Provider, person: Person) -> None:
            user = await self._people.admit(provider, person, source)
            made = await self._enrolment.by_person(request.csr, request.hostname, source, user, person)
            if self._ended.holds(person):  # by its provider, which did not see this client yet
                await self._administration.sign_out_agents(Actor(f"provider:{provider.name}", source), [made.agent], "sign_out")
                raise Refusal(Code.SIGNED_OUT)
            enrolled.append(made)

        purpose = "A terminal asks to be signed in as you, and to reach your applications from that device."
        attempt = self._pending.make_attempt(_printable(request.hostname), source, self._only(request.provider))
        await self._run(attempt, purpose, request.method, finish, tell, is_awaited, None)
        return enrolled[0]

    async def step_up(self, agent: Agent, message: StepUp, source: str, tell: Tell, is_awaited: IsAwaited) -> SignedIn | Refused:
        """For a client that is signed in already: the same person, again (cases 12, 15)."""
        signed_in: list[SignedIn] = []
        try:
            if agent.sign_in_issuer == "local":
                raise Refusal(
                    Code.SIGN_IN_FAILED, "this device was signed in with a password of the exchange", "run `cloister login` again"
                )
            with self._step_ups.begin(agent) as wanted:
                provider = self.provider(agent.sign_in_issuer)

                async def finish(answered: Provider, person: Person) -> None:
                    who = self._people.find(person.issuer, person.subject)
                    made = await self._step_ups.finish(agent.id, answered, person, who, wanted, message.ref, source)
                    if self._ended.holds(person):  # by its provider, which did not see this sign-in of the client yet
                        await self._administration.sign_out_agents(
                            Actor(f"provider:{answered.name}", source), [agent.id], "sign_out"
                        )
                        raise Refusal(Code.SIGNED_OUT)
                    signed_in.append(made)
                    await self._people.admit(answered, person, source)  # this sign-in, too, says in which groups they are

                purpose = (
                    "A device of yours needs you to sign in again, for something that wants a stronger or more recent sign-in."
                )
                attempt = self._pending.make_attempt(_printable(agent.hostname), source, provider.name)
                attempt.wish = self._step_ups.wish(provider, wanted)
                await self._run(attempt, purpose, message.method, finish, tell, is_awaited, message.ref)
        except Refusal as refusal:
            return Refused(ref=message.ref, code=refusal.code, message=refusal.message[:1024], remedy=refusal.remedy[:1024])
        return signed_in[0]

    def offer_api(self, provider: str, device: str, source: str) -> dict[str, Any]:
        """For an administrator's terminal, which waits with a secret of its own."""
        user: asyncio.Future[tuple[str, Person]] = asyncio.get_running_loop().create_future()

        async def finish(answered: Provider, person: Person) -> None:
            found = await self._people.admit(answered, person, source)
            if not user.done():
                user.set_result((found, person))

        def fail(refusal: Refusal) -> None:
            if not user.done():
                user.set_exception(refusal)
                user.exception()  # whether or not somebody still asks

        attempt = self._pending.make_attempt(_printable(device), source, self._only(provider))
        purpose = "A terminal asks to administer this exchange as you."
        pending = Pending(attempt, purpose, finish, lambda: not user.done(), fail)
        self._pending.add(pending)
        secret = secrets.token_urlsafe(32)
        now = self._clock()
        self._waiting = {key: entry for key, entry in self._waiting.items() if entry[1] > now}
        failed = [key for key, (known, _) in self._waiting.items() if known.done() and known.exception() is not None]
        for key in failed[: max(0, len(self._waiting) - MAX_WAITING + 1)]:
            del self._waiting[key]
        self._waiting[digest(secret)] = (user, now + LIFE_SECONDS)
        return {"url": self.url(attempt), "code": attempt.code, "secret": secret, "expires_at": int(now) + LIFE_SECONDS}

    async def wait_api(self, secret: str) -> tuple[str, Person]:
        """The id of the user who signed in for the terminal with this secret; given out once, and not if the sign-in was ended since. Raises Refusal."""
        answered, until = self._waiting.get(digest(secret), (None, 0.0))
        if answered is None or until <= self._clock():
            raise Refusal(Code.SIGN_IN_EXPIRED)
        await asyncio.wait([answered], timeout=WAIT_SECONDS)
        if not answered.done():
            raise Refusal(Code.SIGN_IN_PENDING)
        if self._waiting.pop(digest(secret), None) is None:
            raise Refusal(Code.SIGN_IN_EXPIRED)
        user, person = answered.result()
        self.check_standing(user, person)
        return user, person

    def check_standing(self, user: str, person: Person) -> None:
        """Raises Refusal if this sign-in was ended since, or the user disabled."""
        if not self._state.is_active_principal(user):
            raise Refusal(Code.USER_DISABLED)
        said = self._state.evidence.of(Subject("user", user)).values()
        if self._ended.holds(person) or is_voided(said, self._state.documents, person.at or person.vouched_at or 0):
            raise Refusal(Code.SIGNED_OUT)

    async def _run(
        self,
        attempt: Attempt,
        purpose: str,
        method: str,
        finish: Finish,
        tell: Tell,
        is_awaited: IsAwaited,
        ref: int | None,
    ) -> None:
        """Until the attempt succeeded. Raises Refusal if it does not, or not in time."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def finish_and_tell(provider: Provider, person: Person) -> None:
            await finish(provider, person)
            if not over.done():
                over.set_result(None)

        def fail(refusal: Refusal) -> None:
            if not over.done():
                over.set_exception(refusal)

        pending = Pending(attempt, purpose, finish_and_tell, is_awaited, fail)
        self._pending.add(pending)
        try:
            async with asyncio.timeout(LIFE_SECONDS):
                if method == "device":
                    await _first(self._by_device(pending, tell, ref), over)
                else:
                    expires = int(attempt.made_at) + LIFE_SECONDS
                    tell(SignInStarted(ref=ref, url=self.url(attempt), code=attempt.code, expires=expires))
                    await over
        except TimeoutError:
            raise Refusal(Code.SIGN_IN_EXPIRED) from None
        except TokenRefused as refused:
            raise Refusal(refused.code, refused.message) from None
        finally:
            self._pending.drop(pending)
            if over.done() and not over.cancelled():
                over.exception()  # it was told to whoever ended it

    async def _by_device(self, pending: Pending, tell: Tell, ref: int | None) -> None:
        provider = self.provider(pending.attempt.only or self._sole())
        if provider.document.protocol != "oidc":
            raise Refusal(Code.SIGN_IN_FAILED, f"`{provider.name}` offers no sign-in for devices", "sign in without `--device`")
        device = await self._oidc.start_device(provider, pending.attempt.wish)
        expires = int(self._clock()) + min(device.seconds, LIFE_SECONDS)
        tell(SignInStarted(ref=ref, url=device.url, code=device.user_code, method="device", expires=expires))
        person = await self._oidc.wait_for_device(provider, device, pending.attempt.wish)
        if not pending.is_awaited() or pending.attempt.is_over(self._clock()):
            raise Refusal(Code.SIGN_IN_EXPIRED)
        await pending.finish(provider, person)

    # ------------------------------------------------------------ who answers

    def find(self, id: str) -> Pending:
        """The attempt of a page. What is over, unknown or waited for by nobody is all the same."""
        pending = self._pending.get(id)
        if pending is None:
            raise Refusal(Code.SIGN_IN_EXPIRED)
        return pending

    async def send(self, pending: Pending, browser: str, name: str, source: str) -> str:
        """Where to send this browser. From now on the attempt belongs to it."""
        provider = self.provider(name)
        made = Secrets(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))
        wish = pending.attempt.wish
        if wish.max_age is None and provider.document.max_age is not None:
            wish = pending.attempt.wish = dataclasses.replace(wish, max_age=provider.document.max_age)
        if provider.document.protocol == "saml":
            request, url = await self._saml.send_url(provider, self.entity(provider), self.acs(provider), made.state, wish)
            made = dataclasses.replace(made, nonce=request)
        else:
            url = await self._oidc.send_url(provider, self.redirect_uri(provider), made, wish)
        try:
            pending.attempt.send(browser, name, made, self._clock())
        except OutOfOrder:
            await self.audit(source, f"provider {name}", Code.SIGN_IN_MISMATCH)
            raise Refusal(Code.SIGN_IN_MISMATCH) from None
        self._pending.remember_state(pending, made.state)
        return url

    async def answer(self, name: str, browser: str | None, pairs: list[tuple[str, str]], source: str) -> None:
        """The provider's answer, brought by a browser. Returns once the attempt has succeeded; raises Refusal, and the attempt is over."""
        states = [value for key, value in pairs if key == "state"]
        pending = self._pending.take_state(states[0]) if len(states) == 1 else None
        if pending is None:
            await self.audit(source, f"provider {name}", Code.SIGN_IN_MISMATCH)
            raise Refusal(Code.SIGN_IN_MISMATCH)
        try:
            provider = self.provider(name)
            made = pending.attempt.answer(browser or "", name, states[0], self._clock())
            person = await self._person(provider, pairs, made, pending.attempt.wish)
            await self.succeed(pending, provider, person)
        except OutOfOrder:
            await self.end(pending, Refusal(Code.SIGN_IN_MISMATCH), source)
        except TokenRefused as refused:
            await self.end(pending, Refusal(refused.code, refused.message), source)
        except Refusal as refusal:
            await self.end(pending, refusal, source)

    async def _person(self, provider: Provider, pairs: list[tuple[str, str]], made: Secrets, wish: Wish) -> Person:
        if provider.document.protocol == "saml":
            where = (self.entity(provider), self.acs(provider))
            return await self._saml.take_answer(provider, *where, made.state, made.nonce, wish)
        return await self._oidc.take_answer(provider, pairs, self.redirect_uri(provider), made, wish)

    def hold_response(self, name: str, state: str, response: str) -> str:
        """A SAML response came in a form, without our cookie: where to go on, with it. Only for an attempt that is waited for."""
        if self.provider(name).document.protocol != "saml" or not self._pending.has_state(state):
            raise Refusal(Code.SIGN_IN_MISMATCH)
        self._saml.held.put(state, response)
        return f"/sign-in/callback/{name}?{urlencode({'state': state})}"

    async def succeed(self, pending: Pending, provider: Provider, person: Person) -> None:
        if not pending.is_awaited():
            raise Refusal(Code.SIGN_IN_EXPIRED)
        pending.attempt.finish(self._clock())
        await pending.finish(provider, person)
        self._pending.drop(pending)

    async def end(self, pending: Pending, refusal: Refusal, source: str) -> None:
        """The attempt failed: the terminal and the audit are told, and the page by what is raised."""
        pending.attempt.fail()
        self._pending.drop(pending)
        await self.audit(source, f"provider {pending.attempt.provider or pending.attempt.only}", refusal.code)
        pending.fail(refusal)
        raise refusal

    # ------------------------------------------------------------ providers

    def providers(self) -> list[Provider]:
        found = [
            Provider(id, document)
            for id, document in self._state.library.referers.items()
            if isinstance(document, IdentityProvider) and not document.disabled
        ]
        return sorted(found, key=lambda provider: provider.name)

    def provider(self, name: str) -> Provider:
        found = next((provider for provider in self.providers() if provider.name == name), None)
        if found is None:
            there = ", ".join(f"`{provider.name}`" for provider in self.providers())
            remedy = f"choose {there}" if there else "ask your administrator"
            raise Refusal(Code.SIGN_IN_FAILED, f"there is no identity provider `{name}`", remedy)
        return found

    async def reachable(self, pending: Pending) -> tuple[list[str], list[str]]:
        """The names of the providers that this attempt may go to and that answer, and the origins that forms lead to for them."""
        found: dict[str, str] = {}
        why = Refusal(Code.SIGN_IN_FAILED, "there is no identity provider to sign in at", "ask your administrator")
        for provider in self.providers():
            if pending.attempt.only not in ("", provider.name):
                continue
            try:
                is_saml = provider.document.protocol == "saml"
                url = provider.document.sso_url or "" if is_saml else await self._oidc.authorization_endpoint(provider)
                found[provider.name] = "/".join(url.split("/", 3)[:3])
            except Refusal as refusal:
                why = refusal
        if not found:
            raise why
        return list(found), sorted(set(found.values()))

    def _only(self, name: str) -> str:
        """The provider that a terminal asks for, empty for any; there must be one."""
        if name:
            return self.provider(name).name
        if not self.providers():
            raise Refusal(Code.SIGN_IN_FAILED, "there is no identity provider to sign in at", "sign in with `--user`")
        return ""

    def _sole(self) -> str:
        listed = self.providers()
        if len(listed) != 1:
            names = ", ".join(f"`{provider.name}`" for provider in listed)
            raise Refusal(Code.ARGUMENT_INVALID, f"there are several identity providers: {names}", "name one with `--provider`")
        return listed[0].name

    # ------------------------------------------------------------

    @property
    def base(self) -> str:
        return f"https://{self._state.address.removesuffix(':443')}"

    def url(self, attempt: Attempt) -> str:
        return f"{self.base}/sign-in/{attempt.id}"

    def entity(self, provider: Provider) -> str:
        """What this exchange calls itself at a SAML provider."""
        return f"{self.base}/sign-in/saml/{provider.name}"

    def acs(self, provider: Provider) -> str:
        return f"{self.base}/sign-in/acs/{provider.name}"

    def redirect_uri(self, provider: Provider) -> str:
        """One for each provider, so that the answer of one is never taken for that of another (RFC 9700 §4.4)."""
        return f"{self.base}/sign-in/callback/{provider.name}"

    def stop(self) -> None:
        """The exchange ends: nobody is kept waiting."""
        self._pending.end_all(Refusal(Code.STOPPED))

    async def audit(self, source: str, target: str, code: Code, action: str = "sign_in") -> None:
        detail = self._noting.detail(source, self._clock())
        if detail is not None:
            entry = AuditEntry(int(self._clock()), Actor("", source), action, target[:128], detail, code)
            await self._writer.run(lambda: self._store.record(entry))


async def _first(work: Coroutine[Any, Any, None], over: "asyncio.Future[None]") -> None:
    """Until the work is done, or whatever ends it from outside."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait([task, over], return_when=asyncio.FIRST_COMPLETED)
        await (task if task.done() else over)
    finally:
        task.cancel()
        await asyncio.wait([task])


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:128]
