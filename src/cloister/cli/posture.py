"""`cloister posture`: what this device reports, and what is asked of it. `cloister device`: what the exchange knows of a device."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cloister.cli.asking import open_api, path_part, tell_answer, when
from cloister.cli.client import Json, State
from cloister.cli.exits import Exit
from cloister.cli.output import clean, print_json, print_table
from cloister.client.dirs import owner, state_dir
from cloister.client.errors import ClientError
from cloister.client.talk import ask
from cloister.model.durations import parse_duration
from cloister.model.reasons import Code


def add_to(app: typer.Typer) -> None:
    app.command("posture", rich_help_panel="For users")(show_posture)
    device = typer.Typer(help="What is known of devices.", no_args_is_help=True, rich_markup_mode=None)
    device.command("facts", epilog="Example: cloister device facts anna-laptop")(show_facts)
    device.command(
        "set-facts", epilog="Example: cloister device set-facts anna-laptop --source mdm --fact compliant=true --lasts 8h"
    )(set_facts)
    device.command("token", epilog="Example: cloister device token mdm --account mdm-service")(create_token)
    device.command("add-client", epilog="Example: cloister device add-client anna-laptop 0123456789abcdef")(add_client)
    device.command("remove-client", epilog="Example: cloister device remove-client 0123456789abcdef")(remove_client)
    app.add_typer(device, name="device", rich_help_panel="For administrators")


# ------------------------------------------------------------------ this device


def show_posture(state: State = None, as_json: Json = False) -> int:
    """Show what this device reports of itself, and which posture profiles it fulfils. Works signed out, too.

    The exit status is 1 if a profile that your rules ask for is not fulfilled.
    """
    found, exchange = _report(state or state_dir())
    profiles = _judge(found)
    if as_json:
        print_json({"exchange": exchange, "facts": found["facts"], "unreadable": found["unreadable"], "profiles": profiles})
    else:
        _print_report(found, profiles, asked=bool(exchange))
    return Exit.OK if all(profile["holds"] for profile in profiles) else Exit.FAILED


def _report(directory: Path) -> tuple[dict[str, Any], str]:
    """What the client says, and the exchange that it says it to; without one, what it would say if nobody asked for more."""
    from cloister.cli.local import running_client

    try:
        with running_client(directory):
            with ask(directory, {"op": "posture"}) as conversation:
                found = conversation.first()
            with ask(directory, {"op": "status"}) as conversation:
                return found, str(conversation.first()["exchange"])
    except ClientError as error:
        from cloister.client.posture.service import collect_once

        if error.code != Code.NOT_AUTHENTICATED:
            print(f"note: {clean(error.message)}: profiles are not known", file=sys.stderr)
        return collect_once(owner()), ""


def _judge(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The exchange's own rules, on what is reported; what others say of this device is not known here."""
    from cloister.identity.posture.rules import evaluate
    from cloister.identity.posture.types import Seen
    from cloister.model.parse import parse_fields
    from cloister.model.posture import OWN_REPORT, OWNER, PostureProfile

    facts = {(OWN_REPORT, fact["name"]): Seen(fact["value"], fact["observed_at"]) for fact in found["facts"]}
    judged: list[dict[str, Any]] = []
    for fields in found["profiles"]:
        try:
            profile = parse_fields(fields)
        except ValueError:
            judged.append({"name": fields.get("name"), "holds": False, "failed": {"": "asks what this version does not know"}})
            continue
        if isinstance(profile, PostureProfile):
            outcome = evaluate(profile, facts, found["now"])
            others = {
                key: f"is for `{requirement.source}` to say" if requirement.source != OWN_REPORT else "is for the exchange to say"
                for key, requirement in profile.require.items()
                if requirement.source != OWN_REPORT or key == OWNER
            }
            failed = {key: why for key, why in outcome.failed.items() if key not in others}
            judged.append({"name": profile.name, "holds": not failed, "failed": failed, "not_known_here": others})
    return judged


def _print_report(found: dict[str, Any], profiles: list[dict[str, Any]], *, asked: bool) -> None:
    now = found["now"]
    rows = [[fact["name"], fact["value"], f"{max(0, now - fact['observed_at'])} s"] for fact in found["facts"]]
    print_table(("fact", "value", "age"), sorted(rows), empty="nothing is reported yet")
    for name, why in sorted(found["unreadable"].items()):
        print(f"not reported: {clean(name)}: {clean(why)}")
    for profile in profiles:
        print(f"profile {clean(profile['name'])}: {'fulfilled' if profile['holds'] else 'not fulfilled'}")
        for key, why in [*profile["failed"].items(), *profile.get("not_known_here", {}).items()]:
            print(f"  {clean(key)} {clean(why)}")
    if not profiles:
        print("no posture profile is asked of you" if asked else "sign in to see which posture profiles are asked of you")


# ------------------------------------------------------------------ what the exchange knows


Device = Annotated[str, typer.Argument(metavar="DEVICE", show_default=False)]
Client = Annotated[bool, typer.Option("--client", help="DEVICE is the id of one client.")]
ClientId = Annotated[str, typer.Argument(metavar="CLIENT", show_default=False)]


def show_facts(device: Device, client: Client = False, state: State = None, as_json: Json = False) -> None:
    """Show what is known of a device: who is on it, what it and others report, which profiles hold."""
    kind = "agents" if client else "devices"
    with open_api(state) as api:
        answer = api.call("GET", f"/{kind}/{path_part(device)}/facts")
    if as_json:
        print_json(answer)
        return
    clients = [answer] if client else answer["clients"]
    rows = [["device", *_cells(fact)] for fact in ([] if client else answer["facts"])]
    for item in clients:
        rows += [[item["id"], *_cells(fact)] for fact in item["facts"]]
    if not client:
        print(f"device {clean(answer['device'])}, owner {clean(answer['owner']) or 'nobody'}")
    for item in clients:
        link = "up" if item["up"] else "down"
        networks = f", networks {clean(item['networks'])}" if item["networks"] else ""
        print(f"client {item['id']} of {clean(item['principal'])}, link {link}, from {clean(item['address'])}{networks}")
        for profile in item["profiles"]:
            failed = ", ".join(f"{clean(key)} {clean(why)}" for key, why in profile["failed"].items())
            print(f"  profile {clean(profile['name'])}: {'fulfilled' if profile['holds'] else f'not fulfilled: {failed}'}")
    print_table(("of", "source", "fact", "value", "observed", "until"), rows, empty="no fact is known")


def _cells(fact: dict[str, Any]) -> list[object]:
    value = fact["value"] if fact["refused"] is None else f"refused: {fact['refused']}"
    return [fact["source"], fact["name"], value, when(fact["observed_at"]), when(fact["expires_at"])]


def set_facts(
    device: Device,
    source: Annotated[str, typer.Option("--source", metavar="NAME", help="Whose word it is.")],
    fact: Annotated[
        list[str] | None, typer.Option("--fact", metavar="NAME=VALUE", help="One fact; may be given several times.")
    ] = None,
    lasts: Annotated[str, typer.Option("--lasts", metavar="DURATION", help="How long the facts count.")] = "24h",
    client: Client = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Say everything that a source outside says of a device; what it said before and does not say now is withdrawn."""
    try:
        seconds = parse_duration(lasts)
    except ValueError as error:
        raise ClientError(Code.ARGUMENT_INVALID, str(error), "write a duration such as `8h`") from None
    facts = [{"name": name, "value": value, "seconds": seconds} for name, value in map(_pair, fact or [])]
    kind = "agents" if client else "devices"
    with open_api(state) as api:
        answer = api.call("PUT", f"/{kind}/{path_part(device)}/facts/{path_part(source)}", {"facts": facts})
    tell_answer(answer, f"{clean(source)} says {len(facts)} facts of {clean(device)}", as_json=as_json)


def add_client(device: Device, client: ClientId, state: State = None, as_json: Json = False) -> None:
    """Say that a client runs on a device: what is known of the device, its owner and its labels count for it. `cloister get agents` lists clients."""
    _set_device(client, device, f"client {clean(client)} runs on {clean(device)}", state, as_json=as_json)


def remove_client(client: ClientId, state: State = None, as_json: Json = False) -> None:
    """Say that a client runs on no device that is described here."""
    _set_device(client, None, f"client {clean(client)} runs on no device", state, as_json=as_json)


def _set_device(client: str, device: str | None, told: str, state: Path | None, *, as_json: bool) -> None:
    with open_api(state) as api:
        answer = api.call("PUT", f"/agents/{path_part(client)}/device", {"device": device})
    tell_answer(answer, told, as_json=as_json)


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name or not value:
        raise ClientError(Code.ARGUMENT_INVALID, f"`{text}` is no fact", "write NAME=VALUE")
    return name, value


def create_token(
    source: Annotated[str, typer.Argument(metavar="SOURCE", show_default=False)],
    account: Annotated[str, typer.Option("--account", metavar="NAME", help="The service's account, with the role `user`.")],
    lasts: Annotated[str, typer.Option("--lasts", metavar="DURATION", help="How long the token is good.")] = "90d",
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make a token with which a service may push the facts of one source, and nothing else. It is shown this once."""
    try:
        seconds = parse_duration(lasts)
    except ValueError as error:
        raise ClientError(Code.ARGUMENT_INVALID, str(error), "write a duration such as `90d`") from None
    with open_api(state) as api:
        answer = api.call("POST", f"/fact-sources/{path_part(source)}/tokens", {"account": account, "seconds": seconds})
    tell_answer(answer, answer["token"], as_json=as_json)
