"""Programs by their tokens: what is wanted of a token of each kind of issuer, which claims it is told apart by, and whom it may act for. Pure.

Kubernetes: projected service-account tokens. GitHub and GitLab: the ID tokens of their CI. SPIFFE: JWT-SVID. Anything else: an OpenID Connect issuer.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cloister.identity.strict_json import NotStrict, read_object
from cloister.identity.tokens.jws import MAX_TOKEN_CHARS
from cloister.identity.tokens.keys import KeySet
from cloister.identity.tokens.types import REGISTERED, Expected, TokenRefused, VerifiedClaims
from cloister.model.documents import Document
from cloister.model.programs import TokenIssuer, Workload
from cloister.model.reasons import Code

SVID_TYPES = frozenset({"", "jwt", "jose"})  # JWT-SVID specification, section 2.3
_SERVICE_ACCOUNT = "kubernetes.io"
_SVID_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*", re.ASCII)  # SPIFFE ID specification, section 2.2


def expected_of(issuer: TokenIssuer, audience: str) -> Expected:
    """What a token of this issuer has to say. `audience` is what it must name where the document does not say."""
    algorithms = frozenset[str](issuer.algorithms)
    audiences = frozenset({issuer.audience or audience})
    if issuer.type == "spiffe":
        return Expected(None, audiences, algorithms, SVID_TYPES, required=frozenset({"sub", "exp"}))
    return Expected(issuer.issuer, audiences, algorithms, required=REGISTERED)


def inline_keys(issuer: TokenIssuer) -> KeySet | None:
    """The keys that the document holds, None where they have to be fetched."""
    if issuer.keys is None:
        return None
    keys = [dict(key) for key in issuer.keys.keys]
    if (
        issuer.type == "spiffe"
    ):  # a bundle says what each key is for in words of its own (SPIFFE Trust Domain and Bundle, section 4.2)
        keys = [{**key, "use": "sig"} for key in keys if key.get("use") in ("jwt-svid", "sig")]
    return KeySet.from_jwks({"keys": keys}, frozenset(issuer.algorithms))


def may_be_of(token: str, issuers: Iterable[tuple[str, TokenIssuer]]) -> list[tuple[str, TokenIssuer]]:
    """Those of the configured issuers whose keys are worth a try. What the token says chooses where to look, and proves nothing."""
    claims = _peek(token)
    said, subject = claims.get("iss"), claims.get("sub")
    found = []
    for id, issuer in issuers:
        if issuer.disabled:
            continue
        is_svid = issuer.type == "spiffe" and isinstance(subject, str) and subject.startswith(f"{issuer.issuer}/")
        if is_svid or (issuer.type != "spiffe" and said == issuer.issuer):
            found.append((id, issuer))
    return found


def telling_claims(issuer: TokenIssuer, proved: VerifiedClaims) -> Mapping[str, str]:
    """The claims that workloads are told apart by: those that are text, and for Kubernetes the parts of `kubernetes.io`. Raises TokenRefused."""
    texts = {name: value for name, value in proved.claims.items() if isinstance(value, str)}
    match issuer.type:
        case "spiffe":
            if not proved.subject.startswith(f"{issuer.issuer}/") or not _SVID_PATH.fullmatch(
                proved.subject.removeprefix(issuer.issuer)
            ):
                raise TokenRefused(Code.TOKEN_ISSUER, f"the token's `sub` is no SPIFFE id below `{issuer.issuer}`")
            return texts
        case "kubernetes":
            return texts | _service_account(proved)
        case _:
            return texts


def matches(workload: Workload, subject: str, claims: Mapping[str, str]) -> bool:
    """Whether a token of the workload's issuer is this workload's: the subject equal, every claim equal or of that beginning."""
    if workload.subject is not None and workload.subject != subject:
        return False
    return all(name in claims and _fits(pattern, claims[name]) for name, pattern in workload.claims.items())


def may_act(person: VerifiedClaims, program: VerifiedClaims) -> bool:
    """Whether the person's token names this very program as one that acts (RFC 8693, sections 4.1 and 4.4): by issuer and subject, nothing less.

    Both claims, if both are there; an actor without `iss` is one of the person's own issuer. Chains of actors are not followed.
    """
    named = [person.claims[name] for name in ("act", "may_act") if name in person.claims]
    return bool(named) and all(
        isinstance(actor, dict) and actor.get("sub") == program.subject and actor.get("iss", person.issuer) == program.issuer
        for actor in named
    )


def mark_of(issuer: Document | None, what: Document | None, for_by: Document | None, *, kid: str | None, subject: str) -> str:
    """What an enrolment stands on, as a digest: the issuer, the workload or connector group, the issuer that vouched for a person, and which key and subject.

    Labels do not count, nor how long a proof lasts, nor keys besides the one that verified: a rotation ends nobody whose key is still there.
    """
    said = [_standing(issuer, kid), _standing(what, None), _standing(for_by, ""), subject]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=list).encode()).hexdigest()[:32]


# ------------------------------------------------------------------


def _standing(document: Document | None, kid: str | None) -> Any:
    """`kid` picks one key of an issuer; None stands for all of them: a token that names none was verified by the only key there was."""
    match document:
        case TokenIssuer(keys=keys):
            fields = document.model_dump(mode="json", exclude={"labels", "keys", "proof_lasts", "connectors", "disabled"})
            listed = [] if keys is None else [dict(key) for key in keys.keys]
            return [fields, [key for key in listed if kid is None or key.get("kid") == kid]]
        case Workload():
            return document.model_dump(mode="json", include={"issuer", "subject", "claims"})
        case _:
            return None if document is None else document.name


def _service_account(proved: VerifiedClaims) -> dict[str, str]:
    """`kubernetes.io` of a bound token: namespace, service account, pod (Kubernetes, "Managing Service Accounts"). The subject says the same."""
    inside = proved.claims.get(_SERVICE_ACCOUNT)
    inside = inside if isinstance(inside, dict) else {}
    account, pod = inside.get("serviceaccount"), inside.get("pod")
    namespace, name = inside.get("namespace"), account.get("name") if isinstance(account, dict) else None
    if not isinstance(namespace, str) or not isinstance(name, str):
        raise TokenRefused(Code.TOKEN_CLAIM, "the token is no bound service-account token: it has no `kubernetes.io`")
    if proved.subject != f"system:serviceaccount:{namespace}:{name}":
        raise TokenRefused(Code.TOKEN_CLAIM, "the token's `sub` and its `kubernetes.io` name different service accounts")
    told = {"namespace": namespace, "serviceaccount": name}
    for part in ("name", "uid"):
        if isinstance(pod, dict) and isinstance(value := pod.get(part), str):
            told["pod" if part == "name" else "pod_uid"] = value
    return told


def _fits(pattern: str, value: str) -> bool:
    return value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern


def _peek(token: str) -> Mapping[str, Any]:
    """The claims of a token that nothing vouches for yet."""
    parts = token.split(".") if len(token) <= MAX_TOKEN_CHARS else []
    if len(parts) != 3:
        raise TokenRefused(Code.TOKEN_MALFORMED, "this is no signed token: it has not three parts")
    try:
        return read_object(base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_", validate=True))
    except (NotStrict, binascii.Error, ValueError) as error:
        raise TokenRefused(Code.TOKEN_MALFORMED, "the token's claims cannot be read") from error
