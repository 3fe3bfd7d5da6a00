"""What a user types: sign-in, entrances, names, and why not."""

import asyncio
import getpass
import logging
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cloister.cli.connect import connect as carry
from cloister.cli.connect import read_destination
from cloister.cli.exits import exit_code
from cloister.cli.output import clean, print_json, print_table
from cloister.client.dirs import state_dir
from cloister.client.errors import ClientError, NotRunning
from cloister.client.talk import ask

if TYPE_CHECKING:
    from cloister.model.messages.from_exchange import SignInStarted

State = Annotated[
    Path | None,
    typer.Option(
        "--state", envvar="CLOISTER_STATE", metavar="DIR", help="State directory.", show_default="~/.local/state/cloister"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Destination = Annotated[str, typer.Argument(metavar="NAME:PORT", show_default=False)]
MAX_PASSWORD = 1024


def add_to(app: typer.Typer) -> None:
    panel = "For users"
    app.command("login", rich_help_panel=panel, epilog="Example: cloister login exchange.example#sha256-5f3a…")(sign_in)
    app.command("logout", rich_help_panel=panel)(sign_out)
    app.command("up", rich_help_panel=panel, epilog="Example: sudo cloister up && curl http://jupyter.lab.internal:8888")(start)
    app.command("down", rich_help_panel=panel)(stop)
    app.command(
        "proxy", rich_help_panel=panel, epilog="Example: curl -x socks5h://127.0.0.1:1080 http://jupyter.lab.internal:8888"
    )(open_proxy)
    app.command("forward", rich_help_panel=panel, epilog="Example: cloister forward db.lab.internal:5432 15432")(open_forward)
    app.command("connect", rich_help_panel=panel, epilog="Example, in ~/.ssh/config: ProxyCommand cloister connect %h:%p")(connect)
    app.command("apps", rich_help_panel=panel)(list_apps)
    app.command("status", rich_help_panel=panel)(show_status)
    app.command("explain", rich_help_panel=panel, epilog="Example: cloister explain jupyter.lab.internal:8888")(explain)


def _directory(state: Path | None) -> Path:
    return state or state_dir()


# ------------------------------------------------------------------ sign-in


def sign_in(
    target: Annotated[str | None, typer.Argument(metavar="HOST[:PORT][#sha256-…]", show_default=False)] = None,
    user: Annotated[
        str | None, typer.Option("--user", "-u", metavar="NAME", help="An account of the exchange itself, with a password.")
    ] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")] = False,
    provider: Annotated[str, typer.Option("--provider", metavar="NAME", help="The identity provider to sign in at.")] = "",
    device: Annotated[
        bool, typer.Option("--device", help="This machine has no browser: sign in on another one with a code.")
    ] = False,
    step_up: Annotated[bool, typer.Option("--step-up", help="Sign in again, stronger or just now, and keep what is open.")] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser if there is a display.")] = True,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Sign in: this machine makes its own key and is enrolled for you.

    At an identity provider, in your browser; with --user by a password of the exchange. The fingerprint tells the true exchange from anybody
    else; without one, only a publicly trusted web certificate will do. Without HOST: again at the exchange of before.
    """
    from cloister.agent.disk import StateDir
    from cloister.agent.enrol import by_password, by_sign_in
    from cloister.agent.errors import AgentError
    from cloister.agent.process import read_target
    from cloister.cli.sign_in import show_sign_in, sign_in_again
    from cloister.client.login import recognise
    from cloister.client.login import sign_in as enrol_user

    if step_up:
        sign_in_again(_directory(state), device=device, browser=browser, as_json=as_json)
        return
    disk = StateDir(_directory(state))
    known = disk.load_identity("client")
    if target is None and known is None:
        raise ClientError(
            "argument_invalid", "no exchange is named", "write `cloister login HOST`, as your administrator gave it to you"
        )
    recognised = recognise(read_target(target or (known.address if known else "")), disk)
    has_started: list[bool] = []

    def on_started(started: "SignInStarted") -> None:
        has_started.append(True)
        show_sign_in(started.model_dump(), browser=browser, as_json=as_json)

    signed_in = None
    if user is None and not password_stdin:
        try:
            signed_in = asyncio.run(
                enrol_user(disk, recognised, by_sign_in(provider, "device" if device else "browser"), on_started)
            )
        except AgentError as error:
            if error.code != "sign_in_failed" or has_started or provider or device:
                raise  # else the exchange has no provider: a password it is
    account = user or ""
    if signed_in is None:
        account = user or ask_line("user: ")
        proof = by_password(account, read_password(from_stdin=password_stdin))
        signed_in = asyncio.run(enrol_user(disk, recognised, proof))
    identity = signed_in.identity
    if as_json:
        print_json({"exchange": identity.address, "device": identity.agent, "user": account or None})
    else:
        print(f"signed in to {identity.address}{f' as {clean(account)}' if account else ''}; this device is {identity.agent}")
        if signed_in.has_stopped_client:
            print("the client that ran on the sign-in of before has stopped; start it again")
        print("next: `cloister apps` lists what you can reach, `sudo cloister up` makes the names work")


def sign_out(state: State = None, as_json: Json = False) -> None:
    """Tell the exchange, end the running client and remove this machine's key."""
    from cloister.agent.disk import StateDir
    from cloister.cli.sign_in import tell_exchange
    from cloister.client.login import sign_out as forget

    disk = StateDir(_directory(state))
    logging.getLogger("cloister").setLevel(logging.ERROR)  # that the exchange ends this device is what was asked for
    told, url = tell_exchange(disk.path)
    was_signed_in = forget(disk)
    if as_json:
        print_json({"signed_out": was_signed_in, "exchange_told": told, "provider_url": url})
        return
    print("signed out; the key of this machine is gone" if was_signed_in else "nobody was signed in")
    if was_signed_in and not told:
        print("the exchange could not be told: its administrator still sees this device until its certificate ends")
    if url:
        print(f"your provider keeps its own session: {clean(url)} ends it")


def ask_line(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise ClientError("argument_invalid", "no user is named", "pass --user NAME")
    return input(prompt).strip()


def read_password(*, from_stdin: bool = False, prompt: str = "password: ") -> str:
    """From the terminal without echo, or from standard input; never from the command line."""
    if from_stdin:
        password = sys.stdin.read(MAX_PASSWORD + 2).rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass(prompt)
    else:
        raise ClientError("argument_invalid", "there is no terminal to ask for the password", "pipe it in with --password-stdin")
    if not password or len(password) > MAX_PASSWORD:
        raise ClientError("argument_invalid", f"the password is empty or longer than {MAX_PASSWORD} characters")
    return password


# ------------------------------------------------------------------ the background process


def start(
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay in the foreground (for systemd).")] = False,
    state: State = None,
    pool4: Annotated[
        str, typer.Option("--pool4", metavar="CIDR", help="Synthetic IPv4 addresses, in 100.64.0.0/10.")
    ] = "100.88.0.0/16",
    pool6: Annotated[
        str, typer.Option("--pool6", metavar="CIDR", help="Synthetic IPv6 addresses, in fc00::/7.")
    ] = "fd6c:6f69:7374::/64",
    as_json: Json = False,
) -> None:
    """Make the names of your applications work for every program of yours (Linux; needs root or CAP_NET_ADMIN)."""
    from cloister.cli.up import UpOptions, run_background, run_foreground

    options = UpOptions(state=_directory(state), pool4=pool4, pool6=pool6)
    if foreground:
        run_foreground(options)
        return
    answer = run_background(options)
    if as_json:
        print_json(answer)
    else:
        print(
            f"up: signed in to {clean(answer['exchange'])} as {clean(answer['principal'])}; `cloister apps` lists what you can reach"
        )


def stop(state: State = None, as_json: Json = False) -> None:
    """End the running client; resolver and routes are as before."""
    from cloister.agent.disk import StateDir
    from cloister.cli.up import clean_up
    from cloister.client.login import stop_running

    was_running = stop_running(StateDir(_directory(state)))
    clean_up(_directory(state))
    if as_json:
        print_json({"stopped": was_running})
    else:
        print("the client has stopped" if was_running else "no client was running")


# ------------------------------------------------------------------ entrances


def open_proxy(
    listen: Annotated[
        str, typer.Option("--listen", metavar="[ADDRESS:]PORT", help="Loopback address and port.")
    ] = "127.0.0.1:1080",
    state: State = None,
    as_json: Json = False,
) -> None:
    """Open a SOCKS5 and HTTP CONNECT proxy on this machine, for you alone, until Ctrl-C. Needs no root."""
    _hold(
        _directory(state),
        {"op": "proxy", "address": listen if ":" in listen else f":{listen}"},
        lambda address: f"SOCKS5 and HTTP CONNECT on {address}; try `curl -x socks5h://{address} http://NAME:PORT`; Ctrl-C ends it",
        as_json=as_json,
    )


def open_forward(
    destination: Destination,
    local: Annotated[
        str, typer.Argument(metavar="[[ADDRESS:]PORT]", help="Loopback address and port; a free one if left out.")
    ] = "0",
    udp: Annotated[bool, typer.Option("--udp", help="Forward UDP.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Open one local port that leads to one destination, until Ctrl-C. Needs no root."""
    host, port = read_destination(destination)
    protocol: Literal["tcp", "udp"] = "udp" if udp else "tcp"
    address = local if ":" in local else f":{local}"
    _hold(
        _directory(state),
        {"op": "forward", "address": address, "host": host, "port": port, "protocol": protocol},
        lambda bound: f"{bound} leads to {clean(destination)}; Ctrl-C ends it",
        as_json=as_json,
    )


def _hold(directory: Path, request: dict[str, Any], describe: Any, *, as_json: bool) -> None:
    """Open an entrance, say where, tell what happens to its flows, and stay until a signal or the client's end."""
    from cloister.cli.local import running_client

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with running_client(directory) as inside, ask(directory, request) as conversation:
        address = conversation.first()["address"]
        try:
            print(f'{{"address": "{address}"}}' if as_json else describe(address), flush=True)
            threading.Thread(target=tell_notices, args=(directory,), daemon=True).start()
            for _ in conversation.answers():
                pass
        except KeyboardInterrupt:
            return
        inside.raise_failure()
        raise ClientError("stopped", "the client has stopped", "start it again")


def tell_notices(directory: Path) -> None:
    try:
        with ask(directory, {"op": "watch"}) as conversation:
            for notice in conversation.answers():
                if "text" in notice:
                    remedy = f"; {clean(notice['remedy'])}" if notice["remedy"] else ""
                    print(f"notice: {clean(notice['text'])}{remedy} [{notice['code']}]", file=sys.stderr, flush=True)
    except (ClientError, OSError, ValueError):
        return  # the client ends: the command that watches says so itself


def connect(destination: Destination, state: State = None) -> int:
    """Carry standard input and output to one destination, as ssh's ProxyCommand does."""
    from cloister.cli.local import running_client

    read_destination(destination)
    directory = _directory(state)
    with running_client(directory):
        return carry(directory, destination)


# ------------------------------------------------------------------ what there is, and why not


def list_apps(state: State = None, as_json: Json = False) -> None:
    """List the applications you can see."""
    apps = ask_once(_directory(state), {"op": "apps"})["apps"]
    if as_json:
        print_json(apps)
        return
    rows = [[a["name"], a["hosts"], a["ports"], a["protocol"], "yes" if a["healthy"] else "no"] for a in apps]
    print_table(
        ("name", "hosts", "ports", "protocol", "healthy"), rows, empty="no application is visible to you; ask your administrator"
    )


def show_status(state: State = None, as_json: Json = False) -> None:
    """Show the running client: link, sessions, tunnels, and what it had to refuse."""
    try:
        with ask(_directory(state), {"op": "status"}) as conversation:
            status = conversation.first()
    except NotRunning:
        if as_json:
            print_json({"running": False})
            return
        raise
    if as_json:
        print_json({"running": True, **status})
        return
    link = "up" if status["link"] == "up" else f"down ({status['reason'] or 'connecting'})"
    print(f"exchange  {clean(status['exchange'])}, link {link}")
    print(f"user      {clean(status['principal']) or 'not known yet'}, device {status['device']}")
    print(f"renewal   certificate valid until {_when(status['certificate_until'])}")
    for tunnel in status["tunnels"]:
        print(f"tunnel    to connector {tunnel['connector']}, {tunnel['state']}")
    for session in status["sessions"]:
        print(f"session   {session['session']} to {clean(session['destination'])}")
    for entrance in status["entrances"]:
        print(f"entrance  {clean(entrance['address'])} for {clean(entrance['for'])}")
    if status["sign_in"] is not None:
        print(f"sign-in   waits for you at {clean(status['sign_in']['url'])} with code {clean(status['sign_in']['code'])}")
    for notice in status["notices"][-8:]:
        remedy = f"; {clean(notice['remedy'])}" if notice["remedy"] else ""
        print(f"notice    {_when(notice['at'])} {clean(notice['text'])}{remedy} [{notice['code']}]")


def explain(
    name: Annotated[str, typer.Argument(metavar="NAME[:PORT]", show_default=False)],
    udp: Annotated[bool, typer.Option("--udp", help="Ask about UDP.")] = False,
    state: State = None,
    as_json: Json = False,
) -> int:
    """Say whether you may reach a name now, and if not, why and what to do."""
    request: dict[str, Any] = {"op": "explain", "host": name.strip("[]"), "protocol": "udp" if udp else "tcp"}
    if ":" in name.rpartition("]")[2]:
        request["host"], request["port"] = read_destination(name)
    answer = ask_once(_directory(state), request)
    if as_json:
        print_json(answer)
    else:
        is_open = answer["code"] == "ok"
        verdict = "allowed" if is_open else "allowed, but not served now" if answer["allowed"] else "not allowed"
        why = f": {clean(answer['message'])}" if answer["message"] else ""
        remedy = f"; {clean(answer['remedy'])}" if answer["remedy"] and not is_open else ""
        print(f"{clean(name)} is {verdict}{why}{remedy} [{answer['code']}]")
        if answer["rules"]:
            print(f"rules: {clean(answer['rules'])}")
    return exit_code(answer["code"])


def ask_once(directory: Path, request: dict[str, Any]) -> dict[str, Any]:
    """One question to the running client, or to one that is started for it."""
    from cloister.cli.local import running_client

    with running_client(directory), ask(directory, request) as conversation:
        return conversation.first()


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
