"""Case 15: a sign-in is one machine bound to one browser and one time. Random walks against a model that can be read aloud."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.exchange.errors import Refusal
from cloister.exchange.signin.machine import LIFE_SECONDS, MAX_SENDS, Attempt, OutOfOrder
from cloister.exchange.signin.saml import MAX_HELD, HeldResponses
from cloister.identity.oidc.request import Secrets

BROWSERS = ("ada's", "eve's")
PROVIDERS = ("corp", "partner")


def secrets(number: int) -> Secrets:
    return Secrets(f"state-{number}", f"nonce-{number}", f"verifier-{number}")


@dataclass
class Model:
    """What must hold, in the fewest words: who was sent where last, and whether it may still come back."""

    only: str
    at: float = 0.0
    over: bool = False
    sent: tuple[str, str, int] | None = None  # browser, provider, number of the secrets
    answered: bool = False
    sends: int = 0

    def send(self, browser: str, provider: str, number: int) -> bool:
        if self.over or self.at >= LIFE_SECONDS or self.answered or self.sends >= MAX_SENDS:
            return False
        if self.only not in ("", provider) or (self.sent is not None and self.sent[:2] != (browser, provider)):
            return False
        self.sent, self.sends = (browser, provider, number), self.sends + 1
        return True

    def answer(self, browser: str, provider: str, number: int) -> bool:
        if self.over or self.at >= LIFE_SECONDS:
            return False
        if self.sent != (browser, provider, number) or self.answered:
            self.over = True
            return False
        self.answered = True
        return True

    def finish(self) -> bool:
        if self.over or self.at >= LIFE_SECONDS or not self.answered:
            return False
        self.over = True
        return True


STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(BROWSERS), st.sampled_from(PROVIDERS)),
    st.tuples(st.just("answer"), st.sampled_from(BROWSERS), st.sampled_from(PROVIDERS), st.integers(0, 12)),
    st.tuples(st.just("finish")),
    st.tuples(st.just("fail")),
    st.tuples(st.just("wait"), st.sampled_from([1, 100, LIFE_SECONDS])),
)


@given(st.lists(STEPS, max_size=30), st.sampled_from(["", "corp"]))
def test_case_15_every_other_order_is_refused(steps: list[tuple[object, ...]], only: str) -> None:
    attempt, model = Attempt("id", "code", "laptop", "192.0.2.1", 0.0, only), Model(only)
    number = 0
    for step in steps:
        match step:
            case ("send", str(browser), str(provider)):
                number += 1
                expected = model.send(browser, provider, number)
                assert _works(attempt.send, browser, provider, secrets(number), model.at) is expected
            case ("answer", str(browser), str(provider), int(which)):
                expected = model.answer(browser, provider, which)
                assert _works(attempt.answer, browser, provider, f"state-{which}", model.at) is expected
            case ("finish",):
                expected = model.finish()
                assert _works(attempt.finish, model.at) is expected
            case ("fail",):
                attempt.fail()
                model.over = True
            case ("wait", int(seconds)):
                model.at += seconds
        assert (attempt.stage == "done") <= model.answered


def _works(step: Callable[..., object], *arguments: object) -> bool:
    try:
        step(*arguments)
    except OutOfOrder:
        return False
    return True


def test_case_15_an_answer_is_accepted_once_and_only_from_the_browser_that_was_sent() -> None:
    attempt = Attempt("id", "code", "laptop", "192.0.2.1", 0.0)
    attempt.send("ada's", "corp", secrets(1), 1.0)
    assert attempt.answer("ada's", "corp", "state-1", 2.0).verifier == "verifier-1"
    with pytest.raises(OutOfOrder):
        attempt.answer("ada's", "corp", "state-1", 2.0)
    with pytest.raises(OutOfOrder):
        attempt.finish(3.0)  # an attempt that was answered twice is over


def test_time_ends_an_attempt_whatever_its_stage() -> None:
    attempt = Attempt("id", "code", "laptop", "192.0.2.1", 0.0)
    attempt.send("ada's", "corp", secrets(1), LIFE_SECONDS - 1)
    with pytest.raises(OutOfOrder):
        attempt.answer("ada's", "corp", "state-1", LIFE_SECONDS)
    assert attempt.is_over(-1.0)  # a clock that goes back does not lengthen it


def test_case_33_responses_that_are_held_keep_no_other_one_out() -> None:
    """Four addresses may have as many attempts as there are places, and answer each of them again and again."""
    held = HeldResponses(lambda: 0.0)
    for turn in range(2):
        for number in range(MAX_HELD):
            held.put(f"mine-{number}", f"{turn}")
    held.put("yours", "a response")
    assert held.take("yours") == "a response"
    assert held.take("mine-1") == "1"
    with pytest.raises(Refusal):
        held.take("mine-0")
