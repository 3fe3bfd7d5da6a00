"""`cloister directory`: who may provision users and groups by SCIM."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from cloister.cli.asking import open_api, path_part, tell_answer, when
from cloister.cli.client import Json, State
from cloister.cli.output import clean, print_json, print_table

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
COLUMNS = ("name", "issuer", "subject", "users", "groups", "state")


class Subject(StrEnum):
    EXTERNAL_ID = "externalId"
    USER_NAME = "userName"


def add_to(app: typer.Typer) -> None:
    command = typer.Typer(
        name="directory", help="Directories: who provisions users and groups by SCIM.", no_args_is_help=True, rich_markup_mode=None
    )
    command.command("create", epilog="Example: cloister directory create corp --issuer https://login.example > token.txt")(create)
    command.command("rotate", epilog="Example: cloister directory rotate corp > token.txt")(rotate)
    command.command("revoke")(revoke)
    command.command("list")(list_directories)
    app.add_typer(command, rich_help_panel="For administrators")


def create(
    name: Name,
    issuer: Annotated[
        str, typer.Option("--issuer", metavar="ISSUER", help="The identity provider whose users these are.", show_default=False)
    ],
    subject: Annotated[
        Subject, typer.Option("--subject", help="The SCIM attribute that is the subject of that provider's sign-ins.")
    ] = Subject.EXTERNAL_ID,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make a directory; its token goes to standard output, this once."""
    with open_api(state) as api:
        answer = api.call("POST", "/directories", {"name": name, "issuer": issuer, "subject": subject.value})
    _tell_token(answer, "made", as_json=as_json)


def rotate(name: Name, state: State = None, as_json: Json = False) -> None:
    """Make a new token, printed this once; the old one ends at once. A revoked directory is in use again."""
    with open_api(state) as api:
        answer = api.call("POST", f"/directories/{path_part(name)}/rotate")
    _tell_token(answer, "rotated", as_json=as_json)


def revoke(name: Name, state: State = None, as_json: Json = False) -> None:
    """End the token at once; users and groups stay as they are."""
    with open_api(state) as api:
        answer = api.call("POST", f"/directories/{path_part(name)}/revoke")
    tell_answer(answer, f"directory `{clean(name)}` revoked", as_json=as_json)


def list_directories(state: State = None, as_json: Json = False) -> None:
    """List directories, and how many users and groups each has provisioned."""
    with open_api(state) as api:
        answer = api.call("GET", "/directories")
    if as_json:
        print_json(answer)
        return
    rows = [[item[column] if column != "state" else _state(item["revoked_at"]) for column in COLUMNS] for item in answer]
    print_table(COLUMNS, rows, empty="there are no directories")


def _state(revoked_at: int | None) -> str:
    return "in use" if revoked_at is None else f"revoked {when(revoked_at)}"


def _tell_token(answer: dict[str, object], what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    print(answer["token"])
    print(f"directory `{clean(answer['name'])}` {what}; SCIM is at https://EXCHANGE/scim/v2", file=sys.stderr)
