"""`cloister exchange`: the composition of the broker, and what its operator does with its data."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.asking import open_api
from cloister.cli.client import Json, State
from cloister.cli.output import print_json
from cloister.client.errors import ClientError

if TYPE_CHECKING:
    from cloister.exchange.main import Running

Data = Annotated[
    Path, typer.Option("--data-dir", envvar="CLOISTER_DATA", metavar="DIR", help="Where state, keys and records are kept.")
]


DATA = Path("/var/lib/cloister")


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        name="exchange", help="Run the broker, and keep its data safe.", no_args_is_help=True, rich_markup_mode=None
    )
    group.command(
        "run",
        epilog="Example: cloister exchange run --data-dir /var/lib/cloister --listen 0.0.0.0:443 --advertise exchange.example:443",
    )(run_exchange)
    group.command("backup", epilog="Example: cloister exchange backup --data-dir /var/lib/cloister --out monday.backup")(backup)
    group.command("restore", epilog="Example: cloister exchange restore --from monday.backup --data-dir /var/lib/cloister")(restore)
    group.command("reset-password", epilog="Example: cloister exchange reset-password admin --data-dir /var/lib/cloister")(
        reset_password
    )
    group.command("rotate-ca", epilog="Example: cloister exchange rotate-ca")(rotate_ca)
    group.command("rotate-ticket-key")(rotate_ticket_key)
    app.add_typer(group, rich_help_panel="Processes")


def run_exchange(
    data_dir: Data = DATA,
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="The one public port.")] = "0.0.0.0:443",
    advertise: Annotated[
        str, typer.Option("--advertise", metavar="HOST:PORT", help="The address that agents dial; `--listen` if left out.")
    ] = "",
    web_certificate: Annotated[
        Path | None, typer.Option("--web-certificate", metavar="FILE", help="PEM chain for the web; else the exchange's own CA.")
    ] = None,
    web_key: Annotated[Path | None, typer.Option("--web-key", metavar="FILE", help="PEM key of --web-certificate.")] = None,
    relay: Annotated[bool, typer.Option("--relay/--no-relay", help="Carry flows too, or leave that to relays.")] = True,
    suffix: Annotated[
        list[str] | None,
        typer.Option("--suffix", metavar="NAME", help="Private suffix below which only the client answers; may be repeated."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Threads that move bytes.")] = 1,
    as_json: Json = False,
) -> None:
    """Run the exchange: links, policy, sessions, the API, and by default a relay, behind one port.

    The first start makes the CA and one administrator, whose password is shown once. SIGTERM drains.
    """
    from cloister.exchange.main import run
    from cloister.exchange.settings import Settings

    if logging.getLogger().level > logging.INFO:
        logging.getLogger().setLevel(logging.INFO)
    settings = Settings(
        data=data_dir,
        listen=listen,
        advertise=advertise,
        web_certificate=web_certificate,
        web_key=web_key,
        relay=relay,
        private_suffixes=tuple(suffix or ()),
        threads=threads,
    )
    with _in_one_sentence():
        asyncio.run(run(settings, on_ready=_print_json if as_json else _print_text))


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    """What an operator can put right is told as a refusal, not as a crash."""
    from cloister import _core
    from cloister.exchange.errors import Refusal

    try:
        yield
    except Refusal as refusal:
        raise ClientError(refusal.code, refusal.message, refusal.remedy) from refusal
    except _core.CoreError as error:
        raise ClientError(error.code, f"the exchange cannot start: {error}", "check --listen and --advertise") from error
    except OSError as error:
        place = f" (`{error.filename}`)" if error.filename else ""
        raise ClientError("argument_invalid", f"{error.strerror or error}{place}", "check the paths and their modes") from error


def backup(
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="A new file; it holds every key, so keep it as safe as the exchange.")
    ],
    data_dir: Data = DATA,
    as_json: Json = False,
) -> None:
    """Copy database and keys into one private file, while the exchange runs or not. Access records are not part of it."""
    from cloister.exchange.backup import write_backup

    with _in_one_sentence():
        write_backup(data_dir, out)
    if as_json:
        print_json({"file": str(out), "bytes": out.stat().st_size})
    else:
        print(f"written: {out} ({out.stat().st_size} bytes)")


def restore(
    source: Annotated[Path, typer.Option("--from", metavar="FILE", help="What `backup` wrote.")],
    data_dir: Data = DATA,
    as_json: Json = False,
) -> None:
    """Make an empty directory the exchange of a backup. Tickets, tokens and keys of before are void; agents wait for `cloister confirm`."""
    from cloister.exchange.backup import restore_backup

    with _in_one_sentence():
        agents = restore_backup(source, data_dir, int(time.time()))
    if as_json:
        print_json({"data": str(data_dir), "agents_to_confirm": agents})
    else:
        print(f"restored into {data_dir}; {agents} agents wait for `cloister confirm ID` or `cloister confirm --all`")


def reset_password(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An administrator.", show_default=False)],
    data_dir: Data = DATA,
    as_json: Json = False,
) -> None:
    """Give an administrator whose password is lost a new one, shown once. The exchange must be stopped; tokens of the account end."""
    from cloister.exchange.recovery import reset_password

    with _in_one_sentence():
        password = reset_password(data_dir, name, int(time.time()))
    if as_json:
        print_json({"administrator": {"name": name, "password": password}})
    else:
        print(f"administrator  {name}, password {password}")
        print("               this password is shown once and kept nowhere; `cloister admin sign-in` takes it")


def rotate_ca(
    compromised: Annotated[
        bool,
        typer.Option(
            "--compromised", help="No overlap: everything that the old key vouched for ends, and every agent enrols again."
        ),
    ] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Replace the CA of a running exchange. Planned, nothing is cut: agents learn the new root first, then get new certificates."""
    with open_api(state) as api:
        answer = api.call("POST", "/trust/rotate-ca", {"compromised": compromised})
    if as_json:
        print_json(answer)
        return
    for authority in answer["authorities"]:
        print(f"{authority['state']:<10} sha256-{authority['root_sha256']}")
    if compromised:
        print("every agent must enrol again, with keys and login lines that carry the new fingerprint; sign in again as well")


def rotate_ticket_key(state: State = None, as_json: Json = False) -> None:
    """Replace the key that signs tickets; nothing is cut."""
    with open_api(state) as api:
        answer = api.call("POST", "/trust/rotate-ticket-key")
    if as_json:
        print_json(answer)
        return
    for key in answer["ticket_keys"]:
        print(f"{key['state']:<10} {key['kid']}")


def _print_text(running: "Running") -> None:
    from cloister.agent.process import notify_ready

    print(f"exchange       {running.address} (listening at {running.server.address})")
    print(f"sign in        cloister login {running.address}#sha256-{running.root_sha256}", flush=True)
    first = running.first_administrator
    if first is not None:
        print(f"administrator  {first.name}, password {first.password}")
        print("               this password is shown once and kept nowhere; `cloister admin sign-in` takes it", flush=True)
    notify_ready()


def _print_json(running: "Running") -> None:
    """One line, so that a program can wait for it."""
    from cloister.agent.process import notify_ready

    first = running.first_administrator
    answer = {
        "address": running.address,
        "listen": running.server.address,
        "root_sha256": running.root_sha256,
        "administrator": {"name": first.name, "password": first.password} if first is not None else None,
    }
    print(json.dumps(answer), flush=True)
    notify_ready()
