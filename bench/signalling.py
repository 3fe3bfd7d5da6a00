"""Others whose word the exchange takes: a transmitter of security events (RFC 8417, CAEP), and an issuer of programs' tokens."""

import http.client
import itertools
import json
import ssl
import time
from collections.abc import Iterable
from typing import Any

from deployment import Deployment
from joserfc import jws
from joserfc.jwk import ECKey

ISSUER = "https://ssf.example"
AUDIENCE = "https://exchange.example"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
NAME = "ssf"
LASTS = 60  # seconds from its issue that a program's token vouches


def _new_key() -> ECKey:
    return ECKey.generate_key("P-256", parameters={"kid": "k1", "alg": "ES256", "use": "sig"})


def _sign(claims: dict[str, Any], kind: str, key: ECKey) -> str:
    header = {"alg": "ES256", "typ": kind, "kid": "k1"}
    return jws.serialize_compact(header, json.dumps(claims).encode(), key, algorithms=["ES256"])


class TokenIssuer:
    """Vouches for programs."""

    def __init__(self, deployment: Deployment, programs: Iterable[str]) -> None:
        self._key = _new_key()
        self._numbers = itertools.count()
        issuer = {
            "kind": "token-issuer",
            "name": "ci",
            "issuer": "https://ci.example",
            "keys": {"keys": [self._key.as_dict(private=False)]},
            "audience": AUDIENCE,
            "proof_lasts": f"{LASTS}s",
        }
        workloads = [{"kind": "workload", "name": program, "issuer": "ci", "subject": program} for program in programs]
        deployment.apply("\n---\n".join(json.dumps(document) for document in [issuer, *workloads]))

    def token(self, program: str, left: int) -> tuple[str, int]:
        """A token that vouches for so many seconds more, and until when."""
        issued = int(time.time()) + left - LASTS
        claims = {
            "iss": "https://ci.example",
            "aud": AUDIENCE,
            "sub": program,
            "iat": issued,
            "exp": issued + 3600,
            "jti": f"{time.time_ns()}-{next(self._numbers)}",
        }
        return _sign(claims, "JWT", self._key), issued + LASTS


class Transmitter:
    def __init__(self, deployment: Deployment) -> None:
        self._key = _new_key()
        document = {
            "kind": "signal-transmitter",
            "name": NAME,
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "algorithms": ["ES256"],
            "keys": [self._key.as_dict(private=False)],
            "users": {"issuer": "local"},
        }
        deployment.apply(json.dumps(document))
        self._secret = deployment.call("POST", f"/signal-transmitters/{NAME}/secret")["secret"]
        context = ssl.create_default_context(cadata=deployment.root())
        self._web = http.client.HTTPSConnection(deployment.address, context=context)
        self._numbers = itertools.count()

    def say(self, event: str, user: str, **body: Any) -> None:
        """One event about a local user, in force when this returns."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": int(time.time()),
            "jti": f"{time.time_ns()}-{next(self._numbers)}",
            "sub_id": {"format": "iss_sub", "iss": "local", "sub": user},
            "events": {CAEP + event: body},
        }
        self._push(_sign(claims, "secevent+jwt", self._key))

    def _push(self, token: str) -> None:
        headers = {"authorization": f"Bearer {self._secret}", "content-type": "application/secevent+jwt"}
        self._web.close()
        self._web.request("POST", f"/api/v1/signals/{NAME}", token, headers)
        answer = self._web.getresponse()
        text = answer.read()
        if answer.status != 202:
            raise OSError(f"the event was not taken: {answer.status} {text[:300]!r}")
