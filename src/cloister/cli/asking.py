"""What the administrators' commands share: the API of the exchange that somebody is signed in to, and how answers are told."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.cli.output import print_json
from cloister.client.dirs import state_dir
from cloister.client.errors import ClientError

if TYPE_CHECKING:
    from cloister.cli.api import Api


def open_api(state: Path | None) -> "Api":
    from cloister.cli.api import Api, load_administrator

    administrator = load_administrator(state or state_dir())
    return Api(administrator.address, administrator.root_pem, administrator.token)


def path_part(text: str) -> str:
    """A name as one segment of a path."""
    from urllib.parse import quote

    return quote(text, safe="")


def tell_answer(answer: object, sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        print(sentence)


def when(seconds: object) -> str:
    if not isinstance(seconds, int):
        return ""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def need_groups(api: "Api", names: Iterable[str]) -> None:
    """Before an account is made that is to join them: it would be left behind in none."""
    for name in names:
        try:
            api.call("GET", f"/groups/{path_part(name)}")
        except ClientError as error:
            if error.code != "not_found":
                raise
            raise ClientError("not_found", f"there is no group `{name}`", "create it first, or correct the name") from None
