"""`cloister risk` and `cloister signals`: scores of users and devices, and the transmitters of security events."""

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from cloister.cli.asking import open_api, path_part, tell_answer, when
from cloister.cli.client import Json, State, read_password
from cloister.cli.output import clean, print_json, print_table

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]


class Scored(StrEnum):
    USER = "user"
    DEVICE = "device"


class Decay(StrEnum):
    NONE = "none"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


Kind = Annotated[Scored, typer.Argument(show_default=False)]
Source = Annotated[str | None, typer.Option("--source", metavar="NAME", help="One source alone; `override` for an override.")]


def add_to(app: typer.Typer) -> None:
    panel = "For administrators"
    risk = typer.Typer(name="risk", help="Risk scores of users and devices.", no_args_is_help=True, rich_markup_mode=None)
    risk.command("show", epilog="Example: cloister risk show user ada")(show_risk)
    risk.command("set", epilog="Example: cloister risk set user ada 80 --seconds 3600 --reason 'laptop reported stolen'")(set_risk)
    risk.command("clear", epilog="Example: cloister risk clear user ada")(clear_risk)
    app.add_typer(risk, rich_help_panel=panel)
    signals = typer.Typer(name="signals", help="Transmitters of security events.", no_args_is_help=True, rich_markup_mode=None)
    signals.command("show", epilog="Example: cloister signals show corp")(show_transmitter)
    signals.command("secret", epilog="Example: cloister signals secret corp > secret.txt")(set_secret)
    app.add_typer(signals, rich_help_panel=panel)


def show_risk(kind: Kind, name: Name, state: State = None, as_json: Json = False) -> None:
    """Show a score, and what it is made of."""
    with open_api(state) as api:
        answer = api.call("GET", _path(kind, name))
    if as_json:
        print_json(answer)
        return
    print(f"{kind.value} `{clean(name)}`: {answer['score']} of 100")
    if (override := answer["override"]) is not None:
        print(f"set to {override['score']} until {when(override['ends'])}: {clean(override['reason'])}")
    rows = [[part["source"], part["left"], part["score"], when(part["at"]), part["decay"]] for part in answer["parts"]]
    if rows:
        print_table(("source", "left", "said", "at", "decay"), rows, empty="")


def set_risk(
    kind: Kind,
    name: Name,
    score: Annotated[int, typer.Argument(metavar="SCORE", min=0, max=100, show_default=False)],
    seconds: Annotated[int | None, typer.Option("--seconds", min=60, help="How long it counts.")] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; for the audit.")] = "",
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="NAME", help="Say it as this source, beside what others say; else it overrides."),
    ] = None,
    decay: Annotated[Decay, typer.Option("--decay", help="How it fades (with --source).")] = Decay.NONE,
    half_life: Annotated[int, typer.Option("--half-life", min=60, help="Seconds until half is left (with --source).")] = 21600,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Override a score for a while, or say what another source says. Sessions that it forbids end at once."""
    body: dict[str, Any] = {"score": score, "reason": reason}
    if seconds is not None:
        body["seconds"] = seconds
    if source is not None:
        body |= {"source": source, "decay": decay.value, "half_life": half_life}
    with open_api(state) as api:
        answer = api.call("PUT", _path(kind, name), body)
    tell_answer(answer, f"{kind.value} `{clean(name)}`: {answer['score']} of 100", as_json=as_json)


def clear_risk(kind: Kind, name: Name, source: Source = None, state: State = None, as_json: Json = False) -> None:
    """Forget what one source says, or everything that counts towards the score."""
    with open_api(state) as api:
        answer = api.call("DELETE", _path(kind, name), query={"source": source})
    tell_answer(answer, f"risk of {kind.value} `{clean(name)}` cleared", as_json=as_json)


def show_transmitter(name: Name, state: State = None, as_json: Json = False) -> None:
    """Show how a transmitter's stream fares since the exchange started."""
    with open_api(state) as api:
        answer = api.call("GET", f"/signal-transmitters/{path_part(name)}/status")
    if as_json:
        print_json(answer)
        return
    for key, value in answer.items():
        print(f"{key:<16} {clean(when(value) if isinstance(value, int) and key.endswith('_at') else value)}")


def set_secret(
    name: Name,
    from_stdin: Annotated[
        bool, typer.Option("--stdin", help="Store the secret on standard input, which the transmitter gave out for polling.")
    ] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make the secret that a pushing transmitter presents; it is printed once, alone on standard output. The one before ends."""
    path = f"/signal-transmitters/{path_part(name)}/secret"
    with open_api(state) as api:
        if from_stdin:
            answer = api.call("PUT", path, {"secret": read_password(from_stdin=True)})
            tell_answer(answer, f"secret of `{clean(name)}` stored", as_json=as_json)
            return
        answer = api.call("POST", path)
    if as_json:
        print_json(answer)
        return
    print(answer["secret"])
    print(f"secret of `{clean(name)}`: the transmitter sends it as `Authorization: Bearer`", file=sys.stderr)


def _path(kind: Scored, name: str) -> str:
    return f"/{kind.value}s/{path_part(name)}/risk"
