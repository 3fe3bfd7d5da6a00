"""Where a program finds the token that says who it is: a file, an environment variable, or GitHub's endpoint. Never the command line.

Kubernetes and SPIFFE put tokens into files and renew them there; GitLab puts one into a variable; GitHub gives out fresh ones (its documentation,
"OpenID Connect reference"). Which file or variable is the operator's word; what is in it is never printed.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode, urlsplit

from cloister.agent.errors import AgentError
from cloister.model.reasons import Code

MAX_TOKEN_BYTES = 65536
DEADLINE = 10.0  # seconds for GitHub's answer
DEFAULT_FILE = Path("/var/run/secrets/cloister/token")
DEFAULT_VARIABLE = "CLOISTER_ID_TOKEN"
GITHUB_URL, GITHUB_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"


class TokenSource(Protocol):
    """`read` gives the token as it is now. Raises AgentError, whose message never holds it."""

    def read(self) -> str: ...


@dataclass(frozen=True, slots=True)
class TokenFile:
    path: Path

    def read(self) -> str:
        try:
            with open(self.path, encoding="ascii") as file:
                token = file.read(MAX_TOKEN_BYTES + 1).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a token"
            raise AgentError(
                Code.ARGUMENT_INVALID, f"the token file `{self.path}` cannot be read: {reason}", "check the path and its mode"
            ) from error
        return _checked(token, f"the token file `{self.path}`")


@dataclass(frozen=True, slots=True, repr=False)
class TokenVariable:
    """Read once, so that the variable can be kept from the job's own processes."""

    name: str
    value: str

    def read(self) -> str:
        return _checked(self.value.strip(), f"the variable `{self.name}`")


@dataclass(frozen=True, slots=True, repr=False)
class GithubTokens:
    url: str
    bearer: str
    audience: str

    def read(self) -> str:
        import httpx

        if urlsplit(self.url).scheme != "https":
            raise AgentError(Code.ARGUMENT_INVALID, f"`{GITHUB_URL}` is no `https` URL", "run this inside a GitHub Actions job")
        separator = "&" if "?" in self.url else "?"
        try:
            answer = httpx.get(
                self.url + separator + urlencode({"audience": self.audience}),
                headers={"authorization": f"Bearer {self.bearer}", "accept": "application/json"},
                timeout=DEADLINE,
                follow_redirects=False,
            )
            token = answer.json()["value"] if answer.status_code == 200 else ""
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            token = ""
        return _checked(token if isinstance(token, str) else "", "GitHub's answer to a request for an ID token")


def find_source(
    environment: Mapping[str, str], audience: Callable[[], str], *, file: Path | None = None, variable: str | None = None
) -> TokenSource:
    """What the operator names, else what the surroundings offer. Raises AgentError if there is nothing."""
    if file is not None:
        return TokenFile(file)
    if variable is not None:
        return TokenVariable(variable, environment.get(variable, ""))
    if environment.get(DEFAULT_VARIABLE):
        return TokenVariable(DEFAULT_VARIABLE, environment[DEFAULT_VARIABLE])
    if environment.get(GITHUB_URL) and environment.get(GITHUB_TOKEN):
        return GithubTokens(environment[GITHUB_URL], environment[GITHUB_TOKEN], audience())
    if os.access(DEFAULT_FILE, os.R_OK):
        return TokenFile(DEFAULT_FILE)
    raise AgentError(
        Code.NOT_AUTHENTICATED,
        "nothing here says which program this is",
        "pass --token-file or --token-env; in GitHub Actions give the job `permissions: {id-token: write}`",
    )


def _checked(token: str, what: str) -> str:
    if not token or len(token) > MAX_TOKEN_BYTES or not token.isascii() or not token.isprintable() or " " in token:
        raise AgentError(Code.TOKEN_MALFORMED, f"{what} holds no token", "see where the token should come from")
    return token
