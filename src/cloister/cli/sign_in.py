"""Signing in at an identity provider, as the terminal shows it: where, with which code, and how it ended."""

import json
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloister.cli.output import clean
from cloister.client.browser import open_browser
from cloister.client.errors import ClientError, NotRunning
from cloister.client.talk import ask

if TYPE_CHECKING:
    from cloister.cli.api import Api


def show_sign_in(started: dict[str, Any], *, browser: bool, as_json: bool) -> None:
    """On standard error: standard output is for how it ends."""
    if as_json:
        line = {name: started[name] for name in ("url", "code", "expires")}
        print(json.dumps({"sign_in": line}), file=sys.stderr, flush=True)
        return
    url, code = clean(started["url"]), clean(started["code"])
    minutes = max(1, round((started["expires"] - time.time()) / 60))
    if started["method"] == "device":
        print(f"on any device, open {url} and check or type the code {code}", file=sys.stderr)
    elif browser and open_browser(started["url"]):
        print(f"your browser asks you to sign in: {url}", file=sys.stderr)
        print(f"it must show the code {code}", file=sys.stderr)
    else:
        print(f"open {url} in a browser", file=sys.stderr)
        print(f"it must show the code {code}", file=sys.stderr)
    print(f"waiting for you, for {minutes} minutes; Ctrl-C gives up", file=sys.stderr, flush=True)


def sign_in_again(directory: Path, *, device: bool, browser: bool, as_json: bool) -> None:
    """For the client that runs, or for one inside this command: the same person, again."""
    from cloister.cli.local import running_client

    request = {"op": "step_up", "method": "device" if device else "browser"}
    with running_client(directory), ask(directory, request) as conversation:
        for answer in conversation.answers():
            if "url" in answer:
                show_sign_in(answer, browser=browser, as_json=as_json)
                continue
            if as_json:
                print(json.dumps(answer))
            else:
                print(f"signed in again, with strength {clean(answer['strength'])}")
            return
    raise ClientError("stopped", "the client ended before the sign-in did", "start it again")


def tell_exchange(directory: Path) -> tuple[bool, str]:
    """Whether the exchange knows that this sign-in is over, and where the session at the provider ends."""
    from cloister.cli.local import running_client

    told, url = False, ""
    try:
        with running_client(directory), ask(directory, {"op": "sign_out"}) as conversation:
            for answer in conversation.answers():  # until the client has let go of everything
                told, url = True, str(answer["url"])
    except (ClientError, NotRunning, OSError):
        pass
    return told, url


def sign_in_at_provider(api: "Api", provider: str, *, browser: bool, as_json: bool) -> dict[str, Any]:
    """The answer of the API with a token in it, once the person has signed in."""
    offer = api.call("POST", "/sign-in/provider", {"provider": provider, "device": socket.gethostname()[:128]})
    shown = {"url": offer["url"], "code": offer["code"], "expires": offer["expires_at"], "method": "browser"}
    show_sign_in(shown, browser=browser, as_json=as_json)
    while True:
        try:
            answer: dict[str, Any] = api.call("POST", "/sign-in/wait", {"secret": offer["secret"]})
        except ClientError as error:
            if error.code != "sign_in_pending":
                raise
        else:
            return answer
