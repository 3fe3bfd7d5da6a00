"""Whoever vouches for the programs of the examination: an issuer of tokens whose keys are made anew each time."""

import itertools
import json
import time

from joserfc import jws
from joserfc.jwk import ECKey

ISSUER = "https://ci.example"
AUDIENCE = "https://exchange.example"
NAME = "ci"
PROOF_LASTS = 3600  # seconds from the token's issue


class Issuer:
    def __init__(self) -> None:
        self._key, self._other = (ECKey.generate_key("P-256", parameters={"kid": "k1", "alg": "ES256", "use": "sig"}) for _ in "ab")
        self._numbers = itertools.count()

    @property
    def document(self) -> str:
        """The one document of the fixture that cannot be written beforehand."""
        fields = {
            "kind": "token-issuer",
            "name": NAME,
            "issuer": ISSUER,
            "keys": {"keys": [self._key.as_dict(private=False)]},
            "audience": AUDIENCE,
            "proof_lasts": f"{PROOF_LASTS}s",
        }
        return json.dumps(fields) + "\n"

    def token(self, program: str, *, forged: bool = False, issued: int | None = None) -> str:
        """A token of this program, fresh unless it is told when it was issued; a forged one is signed by a key that says it is the issuer's."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": program,
            "iat": now if issued is None else issued,
            "exp": now + 600,
            "jti": f"{time.time_ns()}-{next(self._numbers)}",
        }
        header = {"alg": "ES256", "typ": "JWT", "kid": "k1"}
        return jws.serialize_compact(
            header, json.dumps(claims).encode(), self._other if forged else self._key, algorithms=["ES256"]
        )
