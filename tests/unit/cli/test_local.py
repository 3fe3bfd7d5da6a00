"""A client inside one command: what is said when it ends under the command."""

from pathlib import Path

import pytest

from cloister.cli import local
from cloister.client.errors import ClientError, NotRunning
from cloister.client.talk import ask


class Ended(local.ClientThread):
    """Started, and over before anybody could ask it."""

    failure: Exception | None = None

    def begin(self) -> None:
        self._failure = self.failure

    def end(self) -> None:
        pass


def why(monkeypatch: pytest.MonkeyPatch, directory: Path, failure: Exception | None) -> ClientError:
    monkeypatch.setattr(Ended, "failure", failure)
    monkeypatch.setattr(local, "ClientThread", Ended)
    with pytest.raises(ClientError) as raised, local.running_client(directory):
        ask(directory, {"op": "apps"})
    return raised.value


def test_command_says_why_its_client_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert why(monkeypatch, tmp_path, ClientError("agent_revoked", "the agent was revoked")).code == "agent_revoked"


def test_command_whose_client_ended_without_a_reason_says_that_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert isinstance(why(monkeypatch, tmp_path, None), NotRunning)
