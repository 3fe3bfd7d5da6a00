"""The book of sessions against a reference short enough to read aloud: a plain list."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cloister.exchange.book import LEEWAY, LiveSession, SessionBook

names = st.sampled_from("abc")


class BookMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.book = SessionBook()
        self.sessions: list[LiveSession] = []
        self.now = 1000
        self.count = 0

    @rule(client=names, segment=names, principal=names)
    def add(self, client: str, segment: str, principal: str) -> None:
        taken = any((s.client, s.segment) == (client, segment) for s in self.sessions)
        session = LiveSession(f"s{self.count}", principal, client, segment, self.now)
        self.count += 1
        try:
            self.book.add(session)
        except ValueError:
            assert taken
        else:
            assert not taken
            self.sessions.append(session)

    @rule(
        data=st.data(),
        connectors=st.lists(names, unique=True, min_size=1),
        life=st.integers(1, 300),
        continuity=st.sampled_from([0, 900]),
    )
    def make_ticket(self, data: st.DataObject, connectors: list[str], life: int, continuity: int) -> None:
        if self.sessions:
            session = data.draw(st.sampled_from(self.sessions))
            self.book.ticket_made(session, connectors, self.now, self.now + life, continuity)
            assert session.ends_at >= self.now + life + continuity + LEEWAY

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.sessions:
            session = data.draw(st.sampled_from(self.sessions))
            self.sessions.remove(session)
            self.book.remove(session)
            self.book.remove(session)
            assert session.ended

    @rule(seconds=st.integers(1, 2000))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(data=st.data(), delay=st.integers(0, 100))
    def schedule_and_take(self, data: st.DataObject, delay: int) -> None:
        if self.sessions:
            session = data.draw(st.sampled_from(self.sessions))
            self.book.schedule(session, self.now + delay)
            assert session not in self.book.take_due(self.now + delay - 1)
            assert session in self.book.take_due(self.now + delay)

    @invariant()
    def every_handle_finds_the_same_sessions(self) -> None:
        assert set(self.book) == set(self.sessions)
        assert len(self.book) == len(self.sessions)
        for name in "abc":
            assert set(self.book.of_client(name)) == {s for s in self.sessions if s.client == name}
            assert set(self.book.of_segment(name)) == {s for s in self.sessions if s.segment == name}
            assert set(self.book.of_principal(name)) == {s for s in self.sessions if s.principal == name}
            assert set(self.book.of_connector(name)) == {s for s in self.sessions if name in s.audience}
            assert self.book.load(name) == sum(s.connectors[:1] == (name,) for s in self.sessions)

    @invariant()
    def whoever_can_still_honour_a_ticket_is_in_the_audience(self) -> None:
        for session in self.sessions:
            assert set(session.connectors) <= set(session.audience)


TestBook = BookMachine.TestCase
TestBook.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
