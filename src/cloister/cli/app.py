"""The command tree. Every command imports what it needs when it runs, so that `--help` and short commands start quickly."""

import logging
import sys
from typing import Annotated

import typer

from cloister.cli import admin, agents, client, directory, exchange, posture, programs, requests, signals
from cloister.cli.exits import Exit, tell_failure

app = typer.Typer(
    name="cloister",
    help="Exactly the private services that policy allows, and nothing else.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with local variables could show a secret
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
client.add_to(app)
requests.add_to(app)
programs.add_to(app)
admin.add_to(app)
directory.add_to(app)
posture.add_to(app)
signals.add_to(app)
agents.add_to(app)
exchange.add_to(app)


def _print_version(value: bool) -> None:
    if value:
        from cloister import _core

        print(f"cloister {_core.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # noqa: ARG001 (its callback does the work)
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more, to standard error.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for chatty in ("httpx", "httpcore", "asyncio", "alembic", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def run() -> None:
    """Run the command line; every way out has a documented exit code, and a failure is one line on standard error."""
    from cloister.agent.errors import AgentError
    from cloister.cli.exits import fail
    from cloister.client.errors import ClientError

    as_json = "--json" in sys.argv
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        sys.exit(Exit.INTERRUPTED)
    except typer.TyperException as error:
        format_message = getattr(error, "format_message", error.__str__)
        context = getattr(error, "ctx", None)
        if context is not None and format_message() == context.get_help():  # a group without a command: its help is the answer
            print(format_message(), file=sys.stderr)
            sys.exit(Exit.USAGE)
        remedy = f"see `{context.command_path if context else 'cloister'} --help`"
        tell_failure("argument_invalid", _uncapitalised(format_message()), remedy, as_json=as_json)
        sys.exit(Exit.USAGE)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        sys.exit(Exit.FAILED)
    except ClientError as error:
        fail(error.code, error.message, error.remedy, error.errors, as_json=as_json)
    except AgentError as error:
        fail(error.code, error.message, error.remedy, as_json=as_json)
    except Exception as error:
        if logging.getLogger().isEnabledFor(logging.INFO):
            raise  # a process that runs for long, or --verbose: whoever looks needs to see where
        message = f"something failed inside Cloister: {type(error).__name__}: {error}"
        fail("internal", message, "run it again with `cloister --verbose` and report what it prints", as_json=as_json)
    sys.exit(code if isinstance(code, int) else Exit.OK)


def _uncapitalised(text: str) -> str:
    """As our own messages are written: on one line, and without what only names an exception."""
    text = " ".join(text.split())
    return text[:1].lower() + text[1:].replace(": Value error, ", ": ", 1).rstrip(".")
