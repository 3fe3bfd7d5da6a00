"""Negative controls: each guard taken away, and what the tests of test_attacks.py would then see."""

from typing import Any

import pytest
from tests.unit.exchange.conftest import World
from tests.unit.exchange.scim.conftest import USER, Corp, make_corp

from cloister.exchange.attempts import Counter
from cloister.exchange.scim import service
from cloister.exchange.scim.book import DirectoryBook
from cloister.identity.scim import values
from cloister.store.types import ScimEntry


async def test_without_the_look_at_whose_it_is_a_directory_reads_anothers_user(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = await make_corp(world, "corp"), await make_corp(world, "other")
    user = await other.user("theirs")
    assert (await mine.call("GET", f"/Users/{user['id']}")).status_code == 404

    def find(self: DirectoryBook, _directory: str, _kind: Any, id: str) -> ScimEntry | None:
        return self.get(id)

    monkeypatch.setattr(DirectoryBook, "find", find)
    assert (await mine.call("GET", f"/Users/{user['id']}")).status_code == 200


async def test_without_the_strict_reading_the_text_false_would_be_true(corp: Corp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "read_boolean", lambda _name, raw: bool(raw))
    made = await corp.user("ada", active="False")
    assert (await corp.ok("GET", f"/Users/{made['id']}"))["active"] is True


async def test_without_retired_names_the_next_user_would_inherit_the_name(corp: Corp, monkeypatch: pytest.MonkeyPatch) -> None:
    old = await corp.user("eve")
    await corp.ok("DELETE", f"/Users/{old['id']}")
    corp.world.running.state.directories.retired.clear()
    new = await corp.user("eve")
    assert corp.world.running.state.documents[new["id"]].name == "eve"


async def test_without_canonical_names_one_name_would_be_two(corp: Corp, monkeypatch: pytest.MonkeyPatch) -> None:
    await corp.user("ada", "1")
    same = {"schemas": [USER], "userName": "ADA", "externalId": "2"}
    assert (await corp.call("POST", "/Users", same)).status_code == 409
    monkeypatch.setattr(service, "key_of", lambda text: text)
    assert (await corp.call("POST", "/Users", same)).status_code == 201


async def test_without_the_counters_guessing_goes_on(corp: Corp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counter, "allows", lambda *_: True)
    wrong = {"authorization": "Bearer cl-scim-0123456789abcdef-" + "x" * 43}
    codes = {(await corp.call("GET", "/Users", headers=wrong)).status_code for _ in range(40)}
    assert codes == {401}
