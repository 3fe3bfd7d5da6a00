"""`cloister run` and `cloister delegate`: programs that act for themselves, and people who let them act for them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cloister.cli.client import Json, State
from cloister.cli.output import clean, print_json

FilePath = Path | None


def add_to(app: typer.Typer) -> None:
    app.command(
        "run",
        rich_help_panel="For programs",
        epilog="Example: cloister run --exchange exchange.example#sha256-5f3a… -- curl http://jupyter.lab.internal:8888",
        context_settings={"allow_interspersed_args": False},
    )(run_job)
    app.command(
        "delegate", rich_help_panel="For users", epilog="Example: cloister delegate nightly-report --for 1h > delegation.txt"
    )(delegate)


def run_job(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND [ARGUMENT]…", show_default=False)],
    exchange: Annotated[
        str,
        typer.Option("--exchange", envvar="CLOISTER_EXCHANGE", metavar="HOST[:PORT][#sha256-…]", help="Where the exchange is."),
    ],
    token_file: Annotated[
        FilePath,
        typer.Option("--token-file", envvar="CLOISTER_TOKEN_FILE", metavar="FILE", help="File with this program's token."),
    ] = None,
    token_env: Annotated[
        str | None, typer.Option("--token-env", metavar="NAME", help="Variable with this program's token.")
    ] = None,
    subject_file: Annotated[
        FilePath,
        typer.Option("--subject-file", metavar="FILE", help="File with the delegation or token of the person it acts for."),
    ] = None,
    subject_env: Annotated[
        str | None, typer.Option("--subject-env", metavar="NAME", help="Variable with the delegation or token of that person.")
    ] = None,
    audience: Annotated[
        str | None,
        typer.Option("--audience", metavar="TEXT", help="What a token asked of GitHub names.", show_default="the exchange's own"),
    ] = None,
    forward: Annotated[
        list[str] | None,
        typer.Option("--forward", metavar="NAME:PORT[=LOCAL]", help="A local port instead of proxy variables; may be repeated."),
    ] = None,
    up: Annotated[
        bool, typer.Option("--up", help="Make names work for every program instead (Linux, root), as `cloister up` does.")
    ] = False,
    state: Annotated[
        FilePath, typer.Option("--state", metavar="DIR", help="Where the key is while the command runs.", show_default="in memory")
    ] = None,
) -> int:
    """Run a command as a program with an identity of its own: in a CI job, a pod, a workload with an SVID.

    The token comes from --token-file or --token-env, else from CLOISTER_ID_TOKEN, GitHub Actions, or /var/run/secrets/cloister/token. The command
    gets proxy variables that lead to what the program may reach. When it ends, so does the identity; the exit code is the command's.
    """
    from cloister.cli.run import RunOptions, run
    from cloister.cli.up import UpOptions

    options = RunOptions(
        command=command,
        exchange=exchange,
        token_file=token_file,
        token_env=token_env,
        subject_file=subject_file,
        subject_env=subject_env,
        audience=audience,
        forwards=forward or (),
        capture=UpOptions(state or Path(), "100.88.0.0/16", "fd6c:6f69:7374::/64") if up else None,
        state=state,
    )
    return run(options)


def delegate(
    workload: Annotated[str | None, typer.Argument(metavar="[WORKLOAD]", help="The program's name.", show_default=False)] = None,
    duration: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long it may act for you.")] = "1h",
    end: Annotated[str | None, typer.Option("--end", metavar="ID", help="End one of your delegations now.")] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Let a program act for you for a while, within what rules permit it to do for you.

    Prints a text that only this program can use; give it to `cloister run --subject-file`. It ends with its time, with --end, and with this sign-in.
    """
    from cloister.cli.client import ask_once
    from cloister.client.dirs import state_dir
    from cloister.client.errors import ClientError
    from cloister.model.durations import parse_duration

    if (workload is None) == (end is None):
        raise ClientError(
            "argument_invalid", "name either a workload or, with --end, a delegation", "see `cloister delegate --help`"
        )
    directory = state or state_dir()
    if end is not None:
        answer = ask_once(directory, {"op": "end_delegation", "id": end})
        print_json(answer) if as_json else print(f"delegation {clean(end)} has ended")
        return
    try:
        seconds = parse_duration(duration)
    except ValueError as error:
        raise ClientError("argument_invalid", str(error), "write a duration such as `1h`") from error
    made: dict[str, Any] = ask_once(directory, {"op": "delegate", "workload": workload, "seconds": seconds})
    print_json(made) if as_json else print(made["delegation"])
