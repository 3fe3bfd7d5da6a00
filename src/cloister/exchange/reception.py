"""Links before they are welcomed: enrolment, greetings, renewals with an expired leaf, and twins."""

import dataclasses
import logging
from collections.abc import Callable
from typing import assert_never

from cloister import _core
from cloister.exchange.administration import Administration
from cloister.exchange.desk import Desk
from cloister.exchange.enrol import Enrolment
from cloister.exchange.greeting import (
    GREETING_SECONDS,
    TWIN_SECONDS,
    Accept,
    Hold,
    Refuse,
    claims_foreign_resume,
    judge_agent,
    judge_hello,
)
from cloister.exchange.links import LiveLink, Switchboard
from cloister.exchange.programs.service import Programs
from cloister.exchange.settings import Settings
from cloister.exchange.signin.machine import LIFE_SECONDS
from cloister.exchange.signin.service import SignIns
from cloister.exchange.state import Generations, State
from cloister.exchange.writer import Writer
from cloister.model.messages.from_agent import EnrolByKey, EnrolByPassword, EnrolBySignIn, EnrolByToken, FromAgent, Hello, Renew
from cloister.model.messages.from_exchange import Welcome
from cloister.model.reasons import Code
from cloister.store import agents as agent_rows
from cloister.store.service import Store
from cloister.store.types import Actor, Agent
from cloister.trust.passwords import hash_secret, make_secret
from cloister.trust.types import parse_identity

log = logging.getLogger("cloister.exchange")

MAX_UNREADY_OF_AGENT = 16  # links that have not been welcomed: whoever has one leaf is not to take every place for links
ANSWER_SECONDS = 30.0  # for an enrolment to be answered and its link to end


class Reception:
    """`on_welcomed` takes over a link once it is ready, and is told where the agent was last seen."""

    def __init__(
        self,
        settings: Settings,
        core: _core.Core,
        state: State,
        switchboard: Switchboard,
        enrolment: Enrolment,
        sign_ins: SignIns,
        programs: Programs,
        administration: Administration,
        desk: Desk,
        generations: Generations,
        store: Store,
        writer: Writer,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._core = core
        self._state = state
        self._switchboard = switchboard
        self._enrolment = enrolment
        self._sign_ins = sign_ins
        self._programs = programs
        self._administration = administration
        self._desk = desk
        self._generations = generations
        self._store = store
        self._writer = writer
        self._clock = clock
        self.on_welcomed: Callable[[LiveLink, str | None], None] = lambda _link, _came_from: None

    # ------------------------------------------------------------ events

    def on_up(self, event: _core.LinkUp) -> None:
        now = self._clock()
        identity = None if event.agent is None else parse_identity(event.agent)
        if identity is not None and self._switchboard.unready_of(identity.id) >= MAX_UNREADY_OF_AGENT:
            self._core.close_link(event.link, Code.LIMIT_REACHED)
            return
        if event.agent is not None and (identity is None or identity.trust_domain != self._state.keyring.trust_domain):
            self._core.close_link(event.link, Code.AGENT_UNKNOWN)
            return
        link = LiveLink(
            number=event.link,
            identity=identity,
            thumbprint=event.thumbprint,
            not_after=event.not_after or 0,
            address=event.address,
            since=now,
            stage="enrolment" if identity is None else "greeting",
            deadline=now + GREETING_SECONDS,
        )
        self._switchboard.add(link)

    def on_message(self, link: LiveLink, message: FromAgent) -> None:
        match link.stage:
            case "enrolment":
                self._enrol(link, message)
            case "greeting":
                self._greet(link, message)
            case _:
                self._desk.refuse_and_end(link, Code.MESSAGE_UNEXPECTED)

    def on_ready_link_ended(self, link: LiveLink) -> None:
        """Who was held beside it turns out to be its successor."""
        for held in self._switchboard.unready():
            if held.stage == "held" and held.identity == link.identity and held.hello is not None:
                self._welcome(held, held.hello)
                return

    def on_tick(self, now: float) -> None:
        for link in self._switchboard.unready():
            if link.deadline is not None and link.deadline <= now:
                link.deadline = None
                if link.stage == "held":
                    self._twin(link)
                else:
                    self._desk.end(link, Code.PROTOCOL_ERROR)

    # ------------------------------------------------------------ first messages

    def _enrol(self, link: LiveLink, message: FromAgent) -> None:
        match message:
            case EnrolByKey():
                self._desk.answer(link, self._enrolment.by_key(message, link.source))
            case EnrolByPassword():
                self._desk.answer(link, self._enrolment.by_password(message, link.source))
            case EnrolBySignIn():
                self._desk.answer(
                    link,
                    self._sign_ins.enrol(
                        message,
                        link.source,
                        lambda started: self._switchboard.send(link, started),
                        lambda: self._switchboard.get(link.number) is link,
                    ),
                )
                link.stage, link.deadline = "answering", self._clock() + LIFE_SECONDS + ANSWER_SECONDS
                return
            case EnrolByToken():
                self._desk.answer(link, self._programs.enrol(message, link.source))
            case _:
                self._desk.refuse_and_end(link, Code.MESSAGE_UNEXPECTED)
                return
        link.stage, link.deadline = "answering", self._clock() + ANSWER_SECONDS  # another message in the meantime ends it

    def _greet(self, link: LiveLink, message: FromAgent) -> None:
        agent = self._judge(link)
        if agent is None:
            return
        expired = link.not_after < self._clock()
        if isinstance(message, Renew) and expired:
            link.stage, link.deadline = "answering", self._clock() + ANSWER_SECONDS
            self._desk.answer(link, self._enrolment.renew(agent))
        elif not isinstance(message, Hello):
            self._desk.refuse_and_end(link, Code.MESSAGE_UNEXPECTED)
        elif expired:
            self._desk.refuse(link, Code.CERTIFICATE_EXPIRED)
        else:
            self._hello(link, message, agent)

    def _hello(self, link: LiveLink, hello: Hello, agent: Agent) -> None:
        older = self._switchboard.of_agent(agent.id)
        if older is None and claims_foreign_resume(hello, agent):
            self._note_twin(link, agent, "its last link was somebody else's")
        greeting = judge_hello(hello, agent, None if older is None else older.boot)
        match greeting:
            case Accept():
                if older is not None:
                    self._switchboard.close(older, Code.REPLACED)
                self._welcome(link, hello)
            case Hold():
                link.stage, link.hello, link.deadline = "held", hello, self._clock() + TWIN_SECONDS
            case Refuse(code):
                self._desk.refuse_and_end(link, code)
            case _:
                assert_never(greeting)

    def _judge(self, link: LiveLink) -> Agent | None:
        """The agent whose link this is, or None after it was refused."""
        if link.identity is None:
            return None
        agent = self._state.agents.get(link.agent)
        active = agent is None or self._state.is_served(agent)
        code = judge_agent(agent, link.identity, link.thumbprint, principal_active=active)
        if code is Code.OK:
            return agent
        self._desk.audit(f"agent:{link.agent}", link.source, "agent.link", link.identity.role, code)
        self._desk.refuse_and_end(link, code)
        return None

    def _welcome(self, link: LiveLink, hello: Hello) -> None:
        agent = self._judge(link)
        if agent is None or link.identity is None:
            return
        resume = make_secret()
        now = int(self._clock())
        seen = dataclasses.replace(agent, last_seen_at=now, last_address=link.address[:64], resume_hash=hash_secret(resume))
        self._state.agents[agent.id] = seen
        self._writer.start(lambda: self._note_seen(seen))
        link.boot = hello.boot
        self._switchboard.make_ready(link)
        welcome = Welcome(
            agent=agent.id,
            exchange=self._state.keyring.trust_domain,
            now=now,
            resume=resume,
            generation=self._generations.current,
            principal=self._state.name_of(agent.principal),
        )
        self._switchboard.send(link, welcome)
        self.on_welcomed(link, agent.last_address)

    # ------------------------------------------------------------ twins

    def _twin(self, link: LiveLink) -> None:
        """The older link is alive, so two processes hold this key (case 27)."""
        if link.identity is None or link.hello is None:
            self._desk.end(link, Code.PROTOCOL_ERROR)
            return
        agent = self._state.agents[link.agent]
        older = self._switchboard.of_agent(agent.id)
        self._note_twin(link, agent, "" if older is None else older.address)
        self._desk.refuse_and_end(link, Code.AGENT_TWIN)
        if self._settings.twins == "cut_both" and older is not None:
            self._desk.refuse_and_end(older, Code.AGENT_TWIN)
            self._desk.start(self._administration.confirm_agent(Actor("exchange"), agent.id, confirmed=False))

    def _note_twin(self, link: LiveLink, agent: Agent, other: str) -> None:
        now = int(self._clock())
        log.warning("agent `%s` has a twin at `%s`", agent.id, link.address)
        self._state.agents[agent.id] = dataclasses.replace(self._state.agents[agent.id], twin_seen_at=now)
        self._desk.audit(f"agent:{agent.id}", link.source, "agent.twin", f"older link: {other}", Code.AGENT_TWIN)

        def note() -> None:
            with self._store.note() as connection:
                agent_rows.note_twin(connection, agent.id, now)

        self._writer.start(note)

    def _note_seen(self, agent: Agent) -> None:
        with self._store.note() as connection:
            agent_rows.note_seen(connection, agent.id, agent.last_seen_at or 0, agent.last_address or "", agent.resume_hash)
