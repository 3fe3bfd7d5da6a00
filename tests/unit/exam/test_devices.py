"""Devices of the examination do what `cloister login` does, in its order."""

from pathlib import Path

import pytest

from cloister.agent.errors import AgentError
from cloister.agent.process import read_target
from exam.devices import Device


class Noted(Device):
    ended = 0

    async def stop(self) -> None:
        self.ended += 1
        await super().stop()


async def test_the_client_that_runs_ends_before_anybody_signs_in_anew(tmp_path: Path) -> None:
    device = Noted(tmp_path / "state", read_target(f"127.0.0.1:9#sha256-{'0' * 64}"))
    with pytest.raises(AgentError):
        await device.sign_in(user="ada", password="wrong")
    assert device.ended == 1
