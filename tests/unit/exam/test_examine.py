"""What counts as seen, and what is left behind: the examination against places that only answer."""

from typing import Any

import pytest
from deployment import DeploymentError

from exam.examine import Verdict, examine
from exam.rows import read_row
from exam.world import World


class Programs:
    def token(self, program: str, **_: object) -> str:
        return program


class Providers:
    def of(self, _: dict[str, Any]) -> None:
        return None


class Devices:
    """They sign in, and reach nothing."""

    machine = None

    def ask(self, op: str, device: str, **_: object) -> dict[str, Any]:
        return {"ok": op == "sign_in", "agent": device, "code": "not_found"}


class Exchange:
    """Takes everything but what is to fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.fails: tuple[str, str] | None = None

    def call(self, method: str, path: str, *_: object, **__: object) -> Any:
        self.calls.append((method, path))
        if self.fails is not None and (method, path.partition("?")[0]) == self.fails:
            raise DeploymentError(f"{method} {path}: 404")
        return [] if method == "GET" else {"id": "1"}


class Places:
    def __init__(self) -> None:
        self.deployment = Exchange()
        self.programs = Programs()
        self.providers = Providers()

    def devices(self, _: str) -> Devices:
        return Devices()


@pytest.fixture
def places() -> Places:
    return Places()


def examined(places: Places, **fields: Any) -> Verdict:
    world = World(places)  # type: ignore[arg-type]  the parts of it that a row needs
    return examine(world, read_row({"demo_id": "X-1.1 a", "scenario": "X-1", **fields}))


@pytest.mark.parametrize("outcome", ["keep", "terminate", "terminate_all"])
def test_nothing_is_said_of_a_session_that_was_never_open(places: Places, outcome: str) -> None:
    verdict = examined(places, user_profile="E6", auth_real="A+", outcome_real=outcome)
    assert verdict.passed is False
    assert "no open session" in verdict.why


def test_what_cannot_be_put_back_fails_its_row_and_nothing_else(places: Places) -> None:
    places.deployment.fails = ("DELETE", "/kill-switches/1")
    verdict = examined(places, credential_status="flagged_stolen", endpoint_compliant=False, outcome="deny")
    assert verdict.passed is False
    assert places.deployment.calls.count(("PUT", "/devices/e1-enterprise/facts/mdm")) == 2  # lost, and put back


def test_of_a_device_that_nobody_knows_nothing_is_reported(places: Places) -> None:
    examined(places, endpoint_type="guest", endpoint_compliant=False, outcome="deny")
    assert [path for _, path in places.deployment.calls if path.startswith("/devices/")] == []
