"""What counts as seen, and what is left behind: the examination against places that only answer."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netlab
import pytest
from deployment import DeploymentError

from exam.examine import Verdict, examine
from exam.rows import read_row
from exam.services import Service, serve
from exam.world import World


class Programs:
    def token(self, program: str, **_: object) -> str:
        return program


class Providers:
    def of(self, _: dict[str, Any]) -> None:
        return None


class Devices:
    """They sign in, and reach nothing, or a port of this machine."""

    machine = netlab.Machine("test", Path())

    def __init__(self, code: str, address: str, calls: list[tuple[str, str]]) -> None:
        self._code = code
        self._address = address
        self._calls = calls

    def ask(self, op: str, device: str, **_: object) -> dict[str, Any]:
        self._calls.append((op, device))
        return {"ok": op == "sign_in" or bool(self._address), "agent": device, "code": self._code, "address": self._address}


class Exchange:
    """Takes everything but what is to fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.fails: tuple[str, str] | None = None
        self.entries: list[dict[str, Any]] = []

    def call(self, method: str, path: str, *_: object, **__: object) -> Any:
        self.calls.append((method, path))
        if path.startswith("/records?"):
            return {"entries": self.entries if "since=" in path else [*self.entries, {"kind": "decision"}]}
        if self.fails is not None and (method, path.partition("?")[0]) == self.fails:
            raise DeploymentError(f"{method} {path}: 404")
        return [] if method == "GET" else {"id": "1"}


class Places:
    def __init__(self, listener: socket.socket) -> None:
        self.deployment = Exchange()
        self.programs = Programs()
        self.providers = Providers()
        self.code = "not_found"
        self.address = ""
        self.services = {("127.91.1.11", port): Service("127.91.1.11", port, listener) for port in (7001, 7002)}

    @property
    def machine(self) -> netlab.Machine:
        return Devices.machine

    def devices(self, _: str) -> Devices:
        return Devices(self.code, self.address, self.deployment.calls)


@pytest.fixture
def places() -> Iterator[Places]:
    with socket.socket() as listener:
        yield Places(listener)


def examined(places: Places, **fields: Any) -> Verdict:
    world = World(places)  # type: ignore[arg-type]  the parts of it that a row needs
    return examine(world, read_row({"demo_id": "X-1.1 a", "scenario": "X-1", **fields}))


@pytest.mark.parametrize("outcome", ["keep", "terminate", "terminate_all"])
def test_nothing_is_said_of_a_session_that_was_never_open(places: Places, outcome: str) -> None:
    verdict = examined(places, user_profile="E6", auth_real="A+", outcome_real=outcome)
    assert verdict.passed is False
    assert "no open session" in verdict.why


def test_a_client_that_does_not_come_up_was_not_refused(places: Places) -> None:
    assert examined(places, outcome="deny").passed is True
    places.code = "timeout"
    verdict = examined(places, outcome="deny")
    assert verdict.passed is False
    assert "does not come up" in verdict.why


def test_what_was_decided_before_the_row_is_on_record_too(places: Places) -> None:
    """Who has a session is not asked about again: the decision may be older than the request."""
    service = serve(places.machine, "127.0.0.1", 0)
    host, port = service.listener.getsockname()
    places.address = f"{host}:{port}"
    closed = {"kind": "close", "principal_name": "e1", "segment_name": "rss1", "at": "now", "code": "ended"}
    places.deployment.entries = [{"kind": "open"}, closed]
    verdict = examined(places, outcome="record")
    service.listener.close()
    assert verdict.why == ""


def test_what_cannot_be_put_back_fails_its_row_and_nothing_else(places: Places) -> None:
    places.deployment.fails = ("DELETE", "/kill-switches/1")
    verdict = examined(places, credential_status="flagged_stolen", endpoint_compliant=False, outcome="deny")
    assert verdict.passed is False
    assert places.deployment.calls.count(("PUT", "/devices/e1-enterprise/facts/mdm")) == 2  # lost, and put back


def test_the_client_of_who_was_deactivated_ends_before_the_account_is_on_again(places: Places) -> None:
    examined(places, user_profile="E3", auth_user="A", outcome="deny")
    assert places.deployment.calls[-2:] == [("stop", "e1-enterprise"), ("POST", "/users/e1/enable")]


def test_of_a_device_that_nobody_knows_nothing_is_reported(places: Places) -> None:
    examined(places, endpoint_type="guest", endpoint_compliant=False, outcome="deny")
    assert [path for _, path in places.deployment.calls if path.startswith("/devices/")] == []
