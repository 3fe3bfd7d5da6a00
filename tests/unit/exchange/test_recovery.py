"""A lost password: the way back in for whoever owns the host, and for nobody beside a running exchange."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.unit.exchange.conftest import World, end_world, start_world

from cloister.exchange.errors import Refusal
from cloister.exchange.recovery import reset_password
from cloister.exchange.settings import Settings

Stack = list[Callable[[], Awaitable[object]]]


async def test_reset_password_opens_the_account_again_and_ends_what_the_old_one_opened(tmp_path: Path) -> None:
    settings, stack = Settings(tmp_path / "data", listen="127.0.0.1:0", drain_grace=0), Stack()
    world = await start_world(settings, stack)
    first, token = world.running.first_administrator, world.api.token
    assert first is not None
    await world.add_user("ada")
    await end_world(world, stack)

    password = reset_password(settings.data, first.name, int(world.clock()))

    again = await start_world(settings, stack := Stack())
    again.api.token = token
    assert (await again.api.call("GET", "/me")).status_code == 401
    assert (await again.api.sign_in(first.name, first.password)).status_code == 401
    assert (await again.api.sign_in(first.name, password)).status_code == 200
    assert (await again.api.ok("GET", "/me"))["role"] == "admin"
    rows = (await again.api.ok("GET", "/audit", params={"action": "user.reset_password"}))["entries"]
    assert [(row["actor"], row["target"]) for row in rows] == [("operator", f"user {first.name}")]
    for path in settings.data.rglob("*"):
        assert not path.is_file() or password.encode() not in path.read_bytes(), path
    await end_world(again, stack)


async def test_reset_password_beside_a_running_exchange_changes_nothing(world: World) -> None:
    first = world.running.first_administrator
    assert first is not None
    with pytest.raises(Refusal, match="an exchange runs on") as raised:
        reset_password(world.running.settings.data, first.name, int(world.clock()))
    assert raised.value.code == "conflict"
    assert (await world.api.sign_in(first.name, first.password)).status_code == 200


async def test_reset_password_is_for_administrators_who_may_sign_in(tmp_path: Path) -> None:
    settings, stack = Settings(tmp_path / "data", listen="127.0.0.1:0", drain_grace=0), Stack()
    world = await start_world(settings, stack)
    await world.add_user("ada")
    await world.add_user("eve", role="admin")
    await world.api.ok("POST", "/users/eve/disable")
    await end_world(world, stack)
    for name, code in (("ada", "not_found"), ("nobody", "not_found"), ("eve", "user_disabled")):
        with pytest.raises(Refusal, match=f"`{name}`") as raised:
            reset_password(settings.data, name, int(world.clock()))
        assert raised.value.code == code
    with pytest.raises(Refusal, match="holds no exchange"):
        reset_password(tmp_path, "admin", 0)
