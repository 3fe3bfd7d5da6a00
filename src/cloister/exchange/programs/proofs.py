"""From tokens to what they prove. The key that verifies a token says whose it is; nothing in a request does (cases 3, 5, 23)."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from cloister.exchange.errors import Refusal
from cloister.exchange.issuers import Issuer, IssuerKeys
from cloister.exchange.outgoing import Reach
from cloister.exchange.programs.clusters import believed
from cloister.exchange.programs.delegations import Delegations, is_delegation
from cloister.exchange.programs.types import Lent, Program, Spent, Vouched
from cloister.exchange.programs.vouching import mark_of_program
from cloister.exchange.signals.standing import is_voided
from cloister.exchange.state import State
from cloister.identity.programs import expected_of, inline_keys, matches, may_act, may_be_of, telling_claims
from cloister.identity.tokens.jws import peek_kid
from cloister.identity.tokens.keys import KeySet
from cloister.identity.tokens.types import LEEWAY, TokenRefused, VerifiedClaims
from cloister.identity.tokens.verify import verify
from cloister.model.documents import User
from cloister.model.programs import TokenIssuer, Workload
from cloister.model.reasons import Code
from cloister.store.types import Subject

MAX_LEASE = 400 * 86400  # a token that is good for longer is nothing to bind to a key

_VAGUE = {Code.TOKEN_KEY_UNKNOWN: 0, Code.TOKEN_SIGNATURE: 1}  # what the keys of any other issuer of the same name say


class Proofs:
    def __init__(self, state: State, issuers: IssuerKeys, delegations: Delegations, clock: Callable[[], float]) -> None:
        self._state = state
        self._issuers = issuers
        self._delegations = delegations
        self._clock = clock
        self._keys: dict[str, tuple[TokenIssuer, KeySet]] = {}

    async def vouch(self, token: str, subject_token: str | None, *, known: Lent | None = None) -> Vouched:
        """Everything that a program's enrolment or new proof stands on. `known` is the person's word that still holds. Raises Refusal."""
        try:
            program = await self._program(token)
            lent = known if subject_token is None else await self._person(subject_token, program)
        except TokenRefused as refused:
            raise Refusal(refused.code, refused.message) from None
        return self._vouched(program, lent)

    # ------------------------------------------------------------ the program

    async def _program(self, token: str) -> Program:
        id, issuer, claims = await self._verify(token, people=False)
        told = telling_claims(issuer, claims)
        is_connector = issuer.connectors is not None and claims.subject in issuer.connectors.subjects
        workloads = [
            workload_id
            for workload_id, document in self._state.parsed.items()
            if isinstance(document, Workload)
            and document.issuer in (issuer.name, issuer.issuer)
            and matches(document, claims.subject, told)
        ]
        if len(workloads) + is_connector > 1:
            raise Refusal(Code.WORKLOAD_AMBIGUOUS)
        if not workloads and not is_connector:
            raise Refusal(Code.WORKLOAD_UNKNOWN)
        if workloads and not self._state.is_active_principal(workloads[0]):
            raise Refusal(Code.USER_DISABLED)
        connectors = issuer.connectors if is_connector else None
        group = None if connectors is None else self._state.find("connector-group", connectors.group)
        lasts = issuer.proof_lasts if connectors is None else connectors.proof_lasts
        return Program(
            issuer=id,
            claims=claims,
            workload=None if is_connector else workloads[0],
            group=None if group is None else group.id,
            until=self._until(claims, lasts),
            kid=peek_kid(token),
            spent=_spent(id, claims, token),
        )

    def _until(self, claims: VerifiedClaims, lasts: int) -> int:
        """A proof holds from the token's issue, so that one token presented again and again gains nothing."""
        now = int(self._clock())
        if claims.expires_at - now > MAX_LEASE:
            raise TokenRefused(Code.TOKEN_CLAIM, "the token is good for more than a year: ask for one that expires")
        until = claims.issued_at + lasts if claims.issued_at else min(now + lasts, claims.expires_at)
        if until <= now:
            raise TokenRefused(
                Code.TOKEN_EXPIRED, f"the token was issued more than `{lasts}` seconds ago, which is how long it vouches"
            )
        return until

    # ------------------------------------------------------------ the person

    async def _person(self, text: str, program: Program) -> Lent:
        """Whoever let this very program act for them. Any other program gets nothing for it."""
        if program.workload is None:
            raise Refusal(Code.DELEGATION_INVALID, "a connector acts for nobody")
        if is_delegation(text):
            return self._delegations.find(text, program.workload)
        id, issuer, claims = await self._verify(text, people=True)
        if not may_act(claims, program.claims):
            raise Refusal(Code.DELEGATION_INVALID, "the person's token names no such program in `act` or `may_act`")
        user = self._user(issuer.issuer, claims.subject)
        at = claims.claims.get("auth_time")
        at = at if isinstance(at, int) and not isinstance(at, bool) and 0 < at <= self._clock() else None
        if is_voided(self._state.evidence.of(Subject("user", user)).values(), self._state.documents, at or claims.issued_at):
            raise Refusal(Code.DELEGATION_INVALID, "the person's token is of a sign-in that was ended since")
        return Lent(
            user=user,
            until=claims.expires_at,
            by=id,
            signed_in_at=at,
            sign_in_issuer=f"token/{issuer.name}",  # never the name of an identity provider, so no rule takes it for one
            sign_in_vouched_at=min(claims.issued_at, int(self._clock())) or None,
            spent=_spent(id, claims, text),
        )

    def _user(self, issuer: str, subject: str) -> str:
        for id, document in self._state.parsed.items():
            if isinstance(document, User) and (document.issuer, document.subject) == (issuer, subject) and issuer != "local":
                if document.disabled:
                    raise Refusal(Code.USER_DISABLED)
                return id
        raise Refusal(Code.DELEGATION_INVALID, "the person's token speaks of nobody who is a user here")

    # ------------------------------------------------------------ keys

    async def _verify(self, token: str, *, people: bool) -> tuple[str, TokenIssuer, VerifiedClaims]:
        """The one issuer whose keys verify the token, and its claims. Raises TokenRefused, or Refusal while an issuer cannot be asked."""
        configured = [
            (id, document)
            for id, document in self._state.library.referers.items()
            if isinstance(document, TokenIssuer) and (document.people or not people)
        ]
        refused: TokenRefused | Refusal | None = None
        found: list[tuple[str, TokenIssuer, VerifiedClaims]] = []
        for id, issuer in may_be_of(token, configured):
            try:
                found.append((id, issuer, await self._verify_by(id, issuer, token)))
            except (TokenRefused, Refusal) as error:
                if refused is None or _VAGUE.get(error.code, 2) > _VAGUE.get(refused.code, 2):
                    refused = error
        if len(found) > 1:
            raise Refusal(Code.WORKLOAD_AMBIGUOUS, "several token issuers have the key of this token", "register each key once")
        if found:
            return found[0]
        raise refused or TokenRefused(Code.TOKEN_ISSUER, "no token issuer is described here that could have made this token")

    async def _verify_by(self, id: str, issuer: TokenIssuer, token: str) -> VerifiedClaims:
        expected = expected_of(issuer, f"https://{self._state.keyring.trust_domain}")
        keys = self._inline_keys(id, issuer)
        if keys is not None:
            return verify(token, keys, expected, int(self._clock()))
        reach = Reach(frozenset(issuer.allow_internal), None if issuer.ca_file is None else Path(issuer.ca_file))
        asked = Issuer(issuer.issuer, expected.algorithms, reach, frozenset(issuer.endpoint_hosts), issuer.jwks_uri)
        return await self._issuers.verify(asked, token, expected)

    def _inline_keys(self, id: str, issuer: TokenIssuer) -> KeySet | None:
        if issuer.keys is None:
            return None
        believed_now = believed(self._state, id, issuer, int(self._clock()))
        known = self._keys.get(id)
        if known is not None and known[0] == believed_now:
            return known[1]
        keys = inline_keys(believed_now)
        if keys is not None:
            self._keys = {other: entry for other, entry in self._keys.items() if other in self._state.documents}
            self._keys[id] = (believed_now, keys)
        return keys

    # ------------------------------------------------------------

    def _vouched(self, program: Program, lent: Lent | None) -> Vouched:
        """Read once more after all waiting: what was removed in the meantime vouches for nothing."""
        parsed = self._state.parsed
        issuer = parsed.get(program.issuer)
        gone = any(id not in parsed for id in (program.workload, program.group, lent and lent.by, lent and lent.user) if id)
        if not isinstance(issuer, TokenIssuer) or issuer.disabled or gone:
            raise Refusal(Code.PROOF_ENDED)
        return Vouched(
            role="connector" if program.workload is None else "client",
            name=f"token:{issuer.name}:{program.claims.subject}"[:160],
            principal=program.workload if lent is None else lent.user,
            actor=None if lent is None else program.workload,
            group=program.group,
            by=program.issuer,
            for_by=None if lent is None else lent.by,
            mark=mark_of_program(self._state, program, lent),
            until=program.until if lent is None else min(program.until, lent.until),
            delegation=None if lent is None else lent.delegation,
            lent=lent,
            spent=tuple(spent for spent in (program.spent, None if lent is None else lent.spent) if spent is not None),
        )


def _spent(issuer: str, claims: VerifiedClaims, token: str) -> Spent:
    """By `jti` (RFC 7519, section 4.1.7) where there is one: two spellings of one token are one token.

    Else by what is signed and the first half of the signature: of one of ECDSA anybody can make a second one that differs in the other half.
    """
    jti = claims.text("jti")
    signed, _, signature = token.rpartition(".")
    text = f"token\0{signed}.{signature[: (len(signature) - 1) // 2]}" if jti is None else f"jti\0{issuer}\0{jti}"
    return Spent(hashlib.sha256(text.encode()).hexdigest(), claims.expires_at + 2 * LEEWAY)
