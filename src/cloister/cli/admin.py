"""What an administrator types: documents, accounts, keys, and the ends of things, over the REST API."""

import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from cloister.cli.asking import need_groups, open_api, path_part, tell_answer, when
from cloister.cli.client import Json, State, ask_line, read_password
from cloister.cli.exits import Exit, exit_code
from cloister.cli.listing import get
from cloister.cli.output import clean, print_json
from cloister.client.dirs import state_dir
from cloister.client.errors import ClientError

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
MAX_BUNDLE = 8 << 20


class Revocable(StrEnum):
    SESSION = "session"
    AGENT = "agent"
    KEY = "key"
    DELEGATION = "delegation"
    USER_SESSIONS = "user-sessions"


class Scope(StrEnum):
    ALL = "all"
    USER = "user"
    DEVICE = "device"
    SEGMENT = "segment"
    AGENT = "agent"
    CONNECTOR_GROUP = "connector-group"
    SESSION = "session"


class KeyRole(StrEnum):
    CONNECTOR = "connector"
    CLIENT = "client"
    RELAY = "relay"


class AccountRole(StrEnum):
    USER = "user"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Deletable(StrEnum):
    SEGMENT = "segment"
    CONNECTOR_GROUP = "connector-group"
    RULE = "rule"
    USER = "user"
    GROUP = "group"
    DEVICE = "device"
    WORKLOAD = "workload"
    WEBHOOK = "webhook"
    IDENTITY_PROVIDER = "identity-provider"
    TOKEN_ISSUER = "token-issuer"  # noqa: S105 (a kind of document)
    POSTURE_PROFILE = "posture-profile"
    NETWORK = "network"
    SIGNAL_TRANSMITTER = "signal-transmitter"


def add_to(app: typer.Typer) -> None:
    panel = "For administrators"
    account = typer.Typer(name="admin", help="Sign in as an administrator.", no_args_is_help=True, rich_markup_mode=None)
    account.command("sign-in", epilog="Example: cloister admin sign-in exchange.example#sha256-5f3a… --user admin")(sign_in)
    account.command("sign-out")(sign_out)
    account.command("password")(change_password)
    app.add_typer(account, rich_help_panel=panel)
    app.command("apply", rich_help_panel=panel, epilog="Example: cloister apply -f policy.yaml --dry-run")(apply)
    app.command("get", rich_help_panel=panel, epilog="Example: cloister get sessions --user ada")(get)
    make = typer.Typer(name="create", help="Create a user, a key or a group.", no_args_is_help=True, rich_markup_mode=None)
    make.command("user", epilog="Example: cloister create user ada --password-stdin < password.txt")(create_user)
    make.command("key", epilog="Example: cloister create key --role connector --group lab --uses 3 > key.txt")(create_key)
    make.command("group", epilog="Example: cloister create group researchers --member ada")(create_group)
    app.add_typer(make, rich_help_panel=panel)
    app.command("delete", rich_help_panel=panel)(delete)
    app.command("revoke", rich_help_panel=panel, epilog="Example: cloister revoke session 0123456789abcdef")(revoke)
    app.command("confirm", rich_help_panel=panel)(confirm)
    app.command("disable", rich_help_panel=panel)(disable)
    app.command("enable", rich_help_panel=panel)(enable)
    app.command("kill", rich_help_panel=panel, epilog="Example: cloister kill user ada --reason 'lost laptop'")(kill)
    app.command("unkill", rich_help_panel=panel)(unkill)
    app.command("why", rich_help_panel=panel, epilog="Example: cloister why ada jupyter.lab.internal:8888")(why)


# ------------------------------------------------------------------ who is asking


def sign_in(
    target: Annotated[str, typer.Argument(metavar="HOST[:PORT][#sha256-…]", show_default=False)],
    user: Annotated[str | None, typer.Option("--user", "-u", metavar="NAME", help="Account; asked for if left out.")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")] = False,
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="NAME", help="Sign in at this identity provider instead, in a browser.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser if there is a display.")] = True,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Sign in as an administrator; the token stays in the state directory."""
    from cloister.agent.process import read_target
    from cloister.cli.api import Administrator, Api, fetch_root, save_administrator
    from cloister.cli.sign_in import sign_in_at_provider

    where = read_target(target)
    root_pem = fetch_root(where)
    with Api(where.address, root_pem) as api:
        if provider is not None:
            answer = sign_in_at_provider(api, provider, browser=browser, as_json=as_json)
        else:
            account = user or ask_line("user: ")
            answer = api.call("POST", "/sign-in", {"user": account, "password": read_password(from_stdin=password_stdin)})
    administrator = Administrator(where.address, root_pem, answer["user"], answer["token"], answer["expires_at"])
    save_administrator(state or state_dir(), administrator)
    if as_json:
        print_json({"exchange": where.address, "user": answer["user"], "role": answer["role"], "expires_at": answer["expires_at"]})
    else:
        print(f"signed in to {where.address} as {clean(answer['user'])} ({answer['role']}), until {when(answer['expires_at'])}")


def sign_out(state: State = None, as_json: Json = False) -> None:
    """End the token and forget it."""
    from cloister.cli.api import forget_administrator

    try:
        with open_api(state) as api:
            api.call("POST", "/sign-out")
    except ClientError as error:
        if error.code != "not_authenticated":
            raise
    forget_administrator(state or state_dir())
    tell_answer({"signed_out": True}, "signed out", as_json=as_json)


def change_password(
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the old and the new password from standard input, a line each.")
    ] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Change your own password; every token of the account ends."""
    from cloister.cli.api import forget_administrator

    if password_stdin:
        old, _, new = sys.stdin.read(4096).rstrip("\r\n").partition("\n")
    else:
        old, new = read_password(prompt="old password: "), read_password(prompt="new password: ")
        if read_password(prompt="new password again: ") != new:
            raise ClientError("argument_invalid", "the new passwords differ", "try again")
    with open_api(state) as api:
        api.call("PUT", "/me/password", {"old": old.rstrip("\r"), "new": new})
    forget_administrator(state or state_dir())
    tell_answer({"changed": True}, "password changed; sign in again with `cloister admin sign-in`", as_json=as_json)


# ------------------------------------------------------------------ documents


def apply(
    file: Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="Documents in YAML or JSON; `-` for standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Write segments, rules, groups and the rest: all documents of a file, or none of them."""
    content = _read_bundle(file)
    with open_api(state) as api:
        try:
            answer = api.call("POST", "/documents", content=content, query={"dry_run": "true" if dry_run else None})
        except ClientError as refusal:
            if not refusal.errors:
                raise
            for error in refusal.errors if not as_json else ():
                print(f"{clean(file)}:{_position(error)}: {clean(error.get('message'))}", file=sys.stderr)
            count = len(refusal.errors)
            summary = f"`{clean(file)}` has {count} error{'s' if count > 1 else ''}; nothing was changed"
            placed = [{"file": file, **error} for error in refusal.errors]
            raise ClientError(refusal.code, summary, refusal.remedy, placed) from None
    if as_json:
        print_json(answer)
        return
    for verb in ("created", "changed", "deleted"):
        for name in answer[verb]:
            print(f"{'would be ' if dry_run else ''}{verb}: {clean(name)}")
    if not any(answer[verb] for verb in ("created", "changed", "deleted")):
        print("nothing to change")
    for notice in answer.get("notices", ()):  # an exchange of before says none
        print(f"notice: {clean(notice)}", file=sys.stderr)


def _read_bundle(file: str) -> bytes:
    try:
        if file == "-":
            content = sys.stdin.buffer.read(MAX_BUNDLE + 1)
        else:
            with open(file, "rb") as source:
                content = source.read(MAX_BUNDLE + 1)
    except OSError as error:
        raise ClientError("argument_invalid", f"`{file}` cannot be read: {error.strerror}", "check the path") from error
    if len(content) > MAX_BUNDLE:
        raise ClientError("too_large", f"`{file}` is larger than {MAX_BUNDLE} bytes", "split it")
    return content


def _position(error: Mapping[str, Any]) -> str:
    line, column = error.get("line"), error.get("column")
    return f"{line}:{column}" if line is not None and column is not None else str(line or "")


# ------------------------------------------------------------------ accounts and keys


def create_user(
    name: Name,
    display: Annotated[str | None, typer.Option("--display", metavar="TEXT", help="The name that people see.")] = None,
    role: Annotated[AccountRole, typer.Option("--role", help="What the account may do in the API.")] = AccountRole.USER,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")] = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="For a service that gets a token of its own: it cannot sign in.")
    ] = False,
    group: Annotated[list[str] | None, typer.Option("--group", metavar="NAME", help="Join this group; may be repeated.")] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make a local account."""
    if no_password and password_stdin:
        raise ClientError("argument_invalid", "`--no-password` and `--password-stdin` contradict each other", "leave one out")
    body: dict[str, Any] = {"name": name, "role": role.value}
    if not no_password:
        body["password"] = read_password(from_stdin=password_stdin)
    if display is not None:
        body["display"] = display
    with open_api(state) as api:
        need_groups(api, group or [])
        answer = api.call("POST", "/users", body)
        for joined in group or []:
            api.call("PUT", f"/groups/{path_part(joined)}/members/{path_part(name)}")
    tell_answer(answer, f"user `{clean(name)}` created", as_json=as_json)


def create_key(
    role: Annotated[KeyRole, typer.Option("--role", help="What may enrol with it.")],
    group: Annotated[str | None, typer.Option("--group", metavar="NAME", help="Connector group (connectors).")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="NAME", help="For this user (clients).")] = None,
    workload: Annotated[str | None, typer.Option("--workload", metavar="NAME", help="For this workload (clients).")] = None,
    address: Annotated[
        str | None, typer.Option("--address", metavar="HOST:PORT", help="Fixes what it may advertise (relays).")
    ] = None,
    uses: Annotated[int, typer.Option("--uses", min=1, help="How many may enrol.")] = 1,
    seconds: Annotated[int, typer.Option("--seconds", min=1, help="How long it is good for.")] = 3600,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What it is for.")] = "",
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make a provisioning key. It is printed once, alone on standard output: send it to a file, never onto a command line."""
    body: dict[str, Any] = {"role": role.value, "uses": uses, "seconds": seconds, "note": note}
    optional = {"group": group, "user": user, "workload": workload, "address": address}
    body |= {key: value for key, value in optional.items() if value is not None}
    with open_api(state) as api:
        answer = api.call("POST", "/keys", body)
    if as_json:
        print_json(answer)
        return
    print(answer["key"])
    print(f"key {answer['id']} for {uses} {role.value}(s), until {when(answer['expires_at'])}", file=sys.stderr)


def create_group(
    name: Name,
    member: Annotated[list[str] | None, typer.Option("--member", metavar="USER", help="A member; may be repeated.")] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make a group of users."""
    import json

    document: dict[str, Any] = {"kind": "group", "name": name}
    if member:
        document["users"] = member
    with open_api(state) as api:
        answer = api.call("PUT", f"/groups/{path_part(name)}", content=json.dumps(document).encode())
    tell_answer(answer, f"group `{clean(name)}` created", as_json=as_json)


def delete(
    kind: Annotated[Deletable, typer.Argument(show_default=False)], name: Name, state: State = None, as_json: Json = False
) -> None:
    """Delete a document; sessions that depended on it end."""
    with open_api(state) as api:
        answer = api.call("DELETE", f"/{kind.value}s/{path_part(name)}")
    tell_answer(answer, f"{kind.value} `{clean(name)}` deleted", as_json=as_json)


# ------------------------------------------------------------------ the ends of things


def revoke(
    kind: Annotated[Revocable, typer.Argument(show_default=False)],
    id: Annotated[str, typer.Argument(metavar="ID", help="Id; for `user-sessions` the user's name.", show_default=False)],
    state: State = None,
    as_json: Json = False,
) -> None:
    """End a session, an agent, a key, a delegation, or all sessions of a user, now."""
    with open_api(state) as api:
        match kind:
            case Revocable.SESSION:
                answer = api.call("POST", f"/sessions/{path_part(id)}/revoke")
            case Revocable.AGENT:
                answer = api.call("POST", f"/agents/{path_part(id)}/revoke")
            case Revocable.KEY:
                answer = api.call("DELETE", f"/keys/{path_part(id)}")
            case Revocable.DELEGATION:
                answer = api.call("DELETE", f"/delegations/{path_part(id)}")
            case Revocable.USER_SESSIONS:
                answer = api.call("POST", f"/users/{path_part(id)}/revoke-sessions")
    tell_answer(answer, f"{kind.value.replace('-', ' ')} `{clean(id)}` revoked", as_json=as_json)


def confirm(
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="An agent's id.", show_default=False)] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every agent that is not revoked.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Serve agents again after a restore, or after a twin was seen."""
    if (id is None) is not everyone:
        raise ClientError("argument_invalid", "name one agent, or pass --all", "see `cloister get agents`")
    with open_api(state) as api:
        answer = api.call("POST", "/agents/confirm" if id is None else f"/agents/{path_part(id)}/confirm")
    tell_answer(answer, "confirmed", as_json=as_json)


def disable(name: Name, state: State = None, as_json: Json = False) -> None:
    """Disable a user: sessions, links and tokens end at once."""
    with open_api(state) as api:
        answer = api.call("POST", f"/users/{path_part(name)}/disable")
    tell_answer(answer, f"user `{clean(name)}` disabled", as_json=as_json)


def enable(name: Name, state: State = None, as_json: Json = False) -> None:
    """Enable a user again."""
    with open_api(state) as api:
        answer = api.call("POST", f"/users/{path_part(name)}/enable")
    tell_answer(answer, f"user `{clean(name)}` enabled", as_json=as_json)


def kill(
    scope: Annotated[Scope, typer.Argument(show_default=False)],
    target: Annotated[str, typer.Argument(metavar="[TARGET]", help="Name or id; nothing for `all`.")] = "",
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="What people are told.")
    ] = "switched off by an administrator",
    seconds: Annotated[int | None, typer.Option("--seconds", min=1, help="How long; until removed if left out.")] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Pull a kill switch: every session in its scope ends now, and none begins until it is removed."""
    body: dict[str, Any] = {"scope": scope.value, "target": target, "reason": reason}
    if seconds is not None:
        body["seconds"] = seconds
    with open_api(state) as api:
        answer = api.call("POST", "/kill-switches", body)
    tell_answer(answer, f"kill switch {answer['id']} is on; `cloister unkill {answer['id']}` removes it", as_json=as_json)


def unkill(
    id: Annotated[str, typer.Argument(metavar="ID", show_default=False)], state: State = None, as_json: Json = False
) -> None:
    """Remove a kill switch."""
    with open_api(state) as api:
        answer = api.call("DELETE", f"/kill-switches/{path_part(id)}")
    tell_answer(answer, f"kill switch `{clean(id)}` is off", as_json=as_json)


def why(
    user: Annotated[str, typer.Argument(metavar="USER", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME[:PORT]", show_default=False)],
    udp: Annotated[bool, typer.Option("--udp", help="Ask about UDP.")] = False,
    state: State = None,
    as_json: Json = False,
) -> int:
    """Say why a user may or may not reach a name now, with every rule that was looked at."""
    from cloister.cli.connect import read_destination
    from cloister.model.reasons import reason

    query: dict[str, Any] = {"user": user, "host": name.strip("[]"), "protocol": "udp" if udp else "tcp"}
    if ":" in name.rpartition("]")[2]:
        query["host"], query["port"] = read_destination(name)
    with open_api(state) as api:
        answer = api.call("GET", "/explain", query=query)
    if as_json:
        print_json(answer)
    else:
        # An administrator is told why, not what the person reads.
        told = reason(answer["cause"]).message if answer["code"] == "not_found" else answer["message"]
        is_served = answer["code"] == "ok"
        verdict = "allowed" if is_served else "allowed, but not served now" if answer["allowed"] else "not allowed"
        print(f"{clean(user)} to {clean(name)}: {verdict}: {clean(told)} [{answer['cause'] or answer['code']}]")
        for rule in answer["rules"]:
            print(f"  {clean(rule)}")
    return Exit.DENIED if not answer["allowed"] else exit_code(answer["code"])
