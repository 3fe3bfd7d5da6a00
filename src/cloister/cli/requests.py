"""Just-in-time access, as typed: ask for it, see what waits, answer it."""

from typing import Annotated, Any

import typer

from cloister.cli.asking import open_api, path_part, tell_answer, when
from cloister.cli.client import Json, State, ask_once
from cloister.cli.connect import read_destination
from cloister.cli.output import clean, print_json, print_table
from cloister.client.dirs import state_dir
from cloister.client.errors import ClientError
from cloister.model.durations import parse_duration

Id = Annotated[str, typer.Argument(metavar="ID", help="As `cloister requests` shows it.", show_default=False)]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="Shown to whoever asked.")]
For = Annotated[str | None, typer.Option("--for", metavar="DURATION", help="Such as `2h`; the rule has a longest time.")]


def add_to(app: typer.Typer) -> None:
    app.command(
        "request",
        rich_help_panel="For everybody",
        epilog="Example: cloister request db.lab.internal:5432 --reason 'fix order 4711' --for 1h",
    )(request)
    app.command("requests", rich_help_panel="For everybody")(show)
    app.command("withdraw", rich_help_panel="For everybody")(withdraw)
    app.command("approve", rich_help_panel="For approvers", epilog="Example: cloister approve 0123456789abcdef --for 30m")(approve)
    app.command("deny", rich_help_panel="For approvers")(deny)


def request(
    name: Annotated[str, typer.Argument(metavar="NAME[:PORT]", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", "-r", metavar="TEXT", help="What you need it for.", show_default=False)],
    duration: For = None,
    udp: Annotated[bool, typer.Option("--udp", help="Ask for UDP.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Ask for something that a rule permits with an approval. A flow that waits for it goes on when it is approved."""
    question: dict[str, Any] = {"op": "request", "host": name.strip("[]"), "protocol": "udp" if udp else "tcp", "reason": reason}
    if ":" in name.rpartition("]")[2]:
        question["host"], question["port"] = read_destination(name)
    if duration is not None:
        question["seconds"] = _seconds(duration)
    answer = ask_once(state or state_dir(), question)
    if as_json:
        print_json(answer)
    elif answer["state"] == "approved":
        print(f"{clean(answer['segment'])} is approved until {when(answer['until'])}")
    else:
        print(f"asked for {clean(answer['segment'])}: request {answer['id']} waits for an approver")


def show(
    everything: Annotated[bool, typer.Option("--all", help="Also those that were answered.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """List requests: your own, and after `cloister admin sign-in` those you may answer."""
    from cloister.cli.api import has_signed_in

    directory = state or state_dir()
    if has_signed_in(directory):
        with open_api(state) as api:
            found = api.call("GET", "/requests")
    else:
        found = ask_once(directory, {"op": "requests"})["requests"]
    shown = [item for item in found if everything or item["state"] == "pending"]
    if as_json:
        print_json(shown)
        return
    rows = [[item["id"], item["user"], item["segment"], f"{item['seconds']} s", item["state"], item["reason"]] for item in shown]
    print_table(("id", "user", "application", "for", "state", "reason"), rows, empty="no request waits")


def approve(id: Id, duration: For = None, note: Note = "", state: State = None, as_json: Json = False) -> None:
    """Approve somebody else's request, for as long as was asked for or for less."""
    body: dict[str, Any] = {"note": note} | ({} if duration is None else {"seconds": _seconds(duration)})
    _answer(id, "approve", body, state, as_json=as_json)


def deny(id: Id, note: Note = "", state: State = None, as_json: Json = False) -> None:
    """Turn a request down, or end what was approved."""
    _answer(id, "deny", {"note": note}, state, as_json=as_json)


def withdraw(id: Id, state: State = None, as_json: Json = False) -> None:
    """Take your own request back; what was approved ends at once."""
    from cloister.cli.api import has_signed_in

    directory = state or state_dir()
    try:
        answer = ask_once(directory, {"op": "withdraw", "id": id})["requests"][0]
    except ClientError as error:
        if error.code not in ("not_authenticated", "not_found") or not has_signed_in(directory):
            raise
        _answer(id, "withdraw", None, state, as_json=as_json)  # whoever asked over the API
    else:
        _tell(answer, as_json=as_json)


def _answer(id: str, verb: str, body: dict[str, Any] | None, state: Any, *, as_json: bool) -> None:
    with open_api(state) as api:
        answer = api.call("POST", f"/requests/{path_part(id)}/{verb}", body)
    _tell(answer, as_json=as_json)


def _tell(answer: dict[str, Any], *, as_json: bool) -> None:
    until = f", until {when(answer['until'])}" if answer["state"] == "approved" else ""
    text = f"{answer['state']}: {clean(answer['user'])} to {clean(answer['segment'])}{until}"
    tell_answer(answer, text, as_json=as_json)


def _seconds(duration: str) -> int:
    try:
        return parse_duration(duration)
    except ValueError as error:
        raise ClientError("argument_invalid", str(error), "write a duration such as `30m`") from None
