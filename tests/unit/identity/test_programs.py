"""Laws of what tells programs apart. Pure."""

from typing import Any

import pytest
from tests.unit.identity.tokens.minting import ISSUER, NOW, Minted, jwks, rsa

from cloister.identity.programs import expected_of, inline_keys, mark_of, matches, may_act, may_be_of, telling_claims
from cloister.identity.tokens.keys import KeySet
from cloister.identity.tokens.types import Expected, TokenRefused, VerifiedClaims
from cloister.identity.tokens.verify import verify
from cloister.model.documents import Document
from cloister.model.programs import TokenIssuer, Workload

KEYS = KeySet.from_jwks(jwks(rsa()), frozenset({"RS256"}))


def _issuer(**fields: Any) -> TokenIssuer:
    return TokenIssuer.model_validate({"name": "x", "issuer": ISSUER} | fields)


def _proved(**claims: Any) -> VerifiedClaims:
    return verify(str(Minted(claims)), KEYS, Expected(ISSUER, frozenset({"cloister"}), frozenset({"RS256"})), NOW)


def _workload(**fields: Any) -> Workload:
    return Workload.model_validate({"name": "w", "issuer": "x"} | fields)


@pytest.mark.parametrize(
    ("claims", "told", "fits"),
    [
        ({"ref": "main"}, {"ref": "main"}, True),
        ({"ref": "main"}, {"ref": "main2"}, False),
        ({"ref": "main"}, {"ref": "Main"}, False),
        ({"ref": "refs/heads/*"}, {"ref": "refs/heads/main"}, True),
        ({"ref": "refs/heads/*"}, {"ref": "refs/head"}, False),
        ({"ref": "*"}, {}, False),
        ({"ref": "*"}, {"ref": ""}, True),
        ({"ref": "main", "env": "prod"}, {"ref": "main"}, False),
    ],
)
def test_every_claim_is_equal_or_of_that_beginning(claims: dict[str, str], told: dict[str, str], fits: bool) -> None:
    assert matches(_workload(claims=claims), "s", told) is fits


def test_subject_is_compared_whole() -> None:
    assert matches(_workload(subject="repo:a/b"), "repo:a/b", {})
    assert not matches(_workload(subject="repo:a/b"), "repo:a/b:ref", {})


def test_only_text_tells_programs_apart() -> None:
    told = telling_claims(_issuer(), _proved(n=1, b=True, l=["a"], o={"a": "b"}, t="x"))
    assert {name for name in told if len(name) == 1} == {"t"}


@pytest.mark.parametrize("path", ["", "/", "/..%2f", "/a b", "x", "/..", "/a/../b", "/./b", "/a/."])
def test_svid_outside_of_the_trust_domain_is_refused(path: str) -> None:
    issuer = _issuer(type="spiffe", issuer="spiffe://a.example", keys={"keys": ({"kty": "RSA"},)})
    with pytest.raises(TokenRefused):
        telling_claims(issuer, _proved(sub="spiffe://b.example/x"))
    if path != "/":
        with pytest.raises(TokenRefused):
            telling_claims(issuer, _proved(sub=f"spiffe://a.example{path}"))


def test_of_a_bundle_only_the_keys_for_jwt_count() -> None:
    keys = [*jwks(rsa(), use="x509-svid")["keys"], *jwks(rsa("other"), use="jwt-svid")["keys"]]
    issuer = _issuer(type="spiffe", issuer="spiffe://a.example", keys={"keys": tuple(keys)})
    found = inline_keys(issuer)
    assert found is not None
    assert [key.kid for key in found.keys] == ["other"]
    assert expected_of(issuer, "a").issuer is None


def test_candidates_are_those_that_the_token_points_at() -> None:
    issuers = [("1", _issuer()), ("2", _issuer(issuer="https://other.example")), ("3", _issuer(disabled=True)), ("4", _issuer())]
    assert [id for id, _ in may_be_of(str(Minted()), issuers)] == ["1", "4"]


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.!.c", "a.e30.c.d", "a.W10.c"])
def test_what_is_no_token_points_nowhere(token: str) -> None:
    with pytest.raises(TokenRefused):
        may_be_of(token, [("1", _issuer())])


def test_case_10_duplicate_keys_point_nowhere() -> None:
    from tests.unit.identity.tokens.minting import encode

    twice = encode(f'{{"iss":"{ISSUER}","iss":"{ISSUER}"}}'.encode())
    with pytest.raises(TokenRefused):
        may_be_of(f"a.{twice}.c", [("1", _issuer())])


def test_person_names_the_program_by_issuer_and_subject() -> None:
    program = _proved(sub="p")
    assert may_act(_proved(may_act={"sub": "p"}), program)  # of the same issuer
    assert may_act(_proved(act={"sub": "p", "iss": ISSUER}, may_act={"sub": "p"}), program)
    assert not may_act(_proved(), program)
    for named in ({"sub": "q"}, {"iss": ISSUER}, {"sub": "p", "iss": "https://b.example"}, [{"sub": "p"}], "p", None):
        assert not may_act(_proved(may_act=named), program)
        assert not may_act(_proved(act={"sub": "p"}, may_act=named), program)


def test_mark_follows_what_vouched_and_nothing_else() -> None:
    one, two = ({"kty": "RSA", "kid": kid, "n": "x", "e": "AQAB"} for kid in ("1", "2"))

    def mark(issuer: TokenIssuer, what: Document, kid: str | None = "1") -> str:
        return mark_of(issuer, what, None, kid=kid, subject="")

    issuer, workload = _issuer(keys={"keys": (one,)}), _workload(subject="s")
    known = mark(issuer, workload)
    assert known == mark(_issuer(keys={"keys": (two, one)}, labels={"a": "b"}, proof_lasts=60), workload)
    assert known == mark(issuer, _workload(subject="s", labels={"a": "b"}))
    assert known != mark(_issuer(keys={"keys": (two,)}), workload)
    assert known != mark(_issuer(keys={"keys": ({**one, "n": "y"},)}), workload)
    assert known != mark(_issuer(keys={"keys": (one,)}, audience="a"), workload)
    assert known != mark(issuer, _workload(subject="t"))
