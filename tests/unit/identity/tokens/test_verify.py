import ast
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.unit.identity.tokens.minting import CLIENT, ISSUER, NOW, Minted, as_json, ec, encode, jwks, okp, rsa, sign

import cloister
from cloister.identity.tokens.jws import MAX_TOKEN_CHARS
from cloister.identity.tokens.keys import ALGORITHMS, KeySet
from cloister.identity.tokens.types import Expected, TokenRefused, VerifiedClaims
from cloister.identity.tokens.verify import verify
from cloister.model.reasons import Code

ALL = frozenset(ALGORITHMS)
RS = frozenset({"RS256"})


def expect(**changes: Any) -> Expected:
    return Expected(**{"issuer": ISSUER, "audiences": frozenset({CLIENT}), "algorithms": RS, **changes})


def keys(algorithms: frozenset[str] = RS) -> KeySet:
    return KeySet.from_jwks(jwks(rsa(), ec(), okp()), algorithms)


def refuse(token: str, code: Code, expected: Expected | None = None, known: KeySet | None = None) -> None:
    expected = expected or expect()
    with pytest.raises(TokenRefused) as refused:
        verify(token, known or keys(expected.algorithms), expected, NOW)
    assert refused.value.code == code
    assert token[:40] not in refused.value.message or len(token) < 40


def test_a_good_token_gives_its_claims() -> None:
    verified = verify(str(Minted({"groups": ["ml"], "aud": [CLIENT, "other"]})), keys(), expect(), NOW)
    assert (verified.issuer, verified.subject, verified.audience) == (ISSUER, "u-1", (CLIENT, "other"))
    assert (verified.issued_at, verified.expires_at) == (NOW - 5, NOW + 300)
    assert verified.texts("groups") == ("ml",)
    assert verified.text("groups") is None


@pytest.mark.parametrize(("algorithm", "key"), [("RS256", rsa), ("PS256", rsa), ("ES256", ec), ("EdDSA", okp)])
def test_each_family_of_algorithms_verifies(algorithm: str, key: Any) -> None:
    token = str(Minted(key=key(), algorithm=algorithm))
    assert verify(token, keys(ALL), expect(algorithms=ALL), NOW).subject == "u-1"


# ---------------------------------------------------------------- case 1


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "nOnE"])
def test_case_01_unsigned_tokens_are_refused_before_a_claim_is_read(algorithm: str) -> None:
    good = str(Minted())
    _, payload, signature = good.split(".")
    header = encode(as_json({"alg": algorithm, "kid": "rsa"}))
    refuse(f"{header}.{payload}.{signature}", Code.TOKEN_ALGORITHM)
    refuse(f"{header}.{payload}.", Code.TOKEN_MALFORMED)
    # Claims that would refuse the token by themselves are not what it is refused for.
    refuse(f"{header}.{encode(b'not json')}.{signature}", Code.TOKEN_ALGORITHM)


def test_case_01_stripped_changed_and_foreign_signatures_are_refused() -> None:
    header, payload, signature = str(Minted()).split(".")
    other = encode(as_json({"iss": ISSUER, "aud": CLIENT, "sub": "admin", "iat": NOW, "exp": NOW + 300}))
    refuse(f"{header}.{payload}.", Code.TOKEN_MALFORMED)
    refuse(f"{header}.{payload}", Code.TOKEN_MALFORMED)
    refuse(f"{header}.{other}.{signature}", Code.TOKEN_SIGNATURE)
    refuse(f"{header}.{payload}.{signature}.{signature}", Code.TOKEN_MALFORMED)
    refuse(f"{header}.{payload}.{signature[4:]}", Code.TOKEN_SIGNATURE)
    refuse(f"{header}.{payload}.{signature}=", Code.TOKEN_MALFORMED)
    refuse(str(Minted(key=rsa("other"), header={"kid": "rsa"})), Code.TOKEN_SIGNATURE)


def test_case_01_json_serialisation_is_not_read() -> None:
    header, payload, signature = str(Minted()).split(".")
    refuse(as_json({"protected": header, "payload": payload, "signature": signature}).decode(), Code.TOKEN_MALFORMED)


def test_case_01_only_the_verifier_makes_verified_claims() -> None:
    with pytest.raises(TypeError, match="in no other way"):
        VerifiedClaims(ISSUER, "u-1", (CLIENT,), NOW, NOW, {}, object())
    users = set()
    for path in Path(cloister.__file__).parent.rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        if "MADE_BY_VERIFY" in names:
            users.add(path.name)
    assert users == {"types.py", "verify.py"}


def test_verified_claims_cannot_be_changed_afterwards() -> None:
    verified = verify(str(Minted()), keys(), expect(), NOW)
    with pytest.raises(TypeError):
        verified.claims["sub"] = "admin"  # type: ignore[index]


# ---------------------------------------------------------------- case 2


def test_case_02_public_key_as_a_shared_secret_is_refused() -> None:
    raw = rsa().public_key
    forms = [
        raw.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        raw.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        raw.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        as_json(rsa().as_dict(private=False)),
        ec().public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    ]
    claims = as_json({"iss": ISSUER, "aud": CLIENT, "sub": "admin", "iat": NOW, "exp": NOW + 300})
    for form in forms:
        for algorithm in ("HS256", "HS384", "HS512"):
            token = sign({"alg": algorithm, "kid": "rsa"}, claims, form, algorithm)
            refuse(token, Code.TOKEN_ALGORITHM)
            refuse(token, Code.TOKEN_ALGORITHM, expect(algorithms=ALL))
            # Not even where somebody configures it: there is no symmetric algorithm here.
            refuse(token, Code.TOKEN_ALGORITHM, expect(algorithms=ALL | {algorithm}))


def test_case_02_another_algorithm_of_the_same_key_is_refused() -> None:
    refuse(str(Minted(algorithm="PS256")), Code.TOKEN_ALGORITHM)
    refuse(str(Minted(algorithm="RS512")), Code.TOKEN_ALGORITHM)
    # Both are configured, but the key is bound to one by its set.
    bound = KeySet.from_jwks(jwks(rsa(), alg="RS256"), ALL)
    refuse(str(Minted(algorithm="PS256")), Code.TOKEN_KEY_UNKNOWN, expect(algorithms=ALL), bound)
    assert verify(str(Minted()), bound, expect(algorithms=ALL), NOW)


def test_case_02_header_that_lies_about_the_family_is_refused() -> None:
    claims = as_json({"iss": ISSUER, "aud": CLIENT, "sub": "admin", "iat": NOW, "exp": NOW + 300})
    for header, algorithm, key in (("RS256", "PS256", rsa()), ("ES256", "RS256", rsa()), ("EdDSA", "ES256", ec())):
        for kid in ("rsa", "ec", "okp", None):
            token = sign({"alg": header} | ({"kid": kid} if kid else {}), claims, key, algorithm)
            with pytest.raises(TokenRefused) as refused:
                verify(token, keys(ALL), expect(algorithms=ALL), NOW)
            assert refused.value.code in (Code.TOKEN_SIGNATURE, Code.TOKEN_KEY_UNKNOWN)


def test_case_02_curve_belongs_to_the_algorithm() -> None:
    wide = ec("wide", "P-384")
    known = KeySet.from_jwks(jwks(wide), ALL)
    claims = as_json({"iss": ISSUER, "aud": CLIENT, "sub": "u-1", "iat": NOW, "exp": NOW + 300})
    refuse(sign({"alg": "ES256", "kid": "wide"}, claims, wide, "ES256"), Code.TOKEN_KEY_UNKNOWN, expect(algorithms=ALL), known)
    assert verify(sign({"alg": "ES384", "kid": "wide"}, claims, wide, "ES384"), known, expect(algorithms=ALL), NOW)


# ---------------------------------------------------------------- case 3

OPTIONAL: list[dict[str, Any]] = [
    {},
    {"typ": "JWT"},
    {"typ": "jwt", "cty": "JWT"},
    {"x5t": "AAAA", "x5t#S256": "AAAA"},
    {"alg": "RS256", "iss": ISSUER, "aud": CLIENT, "sub": "u-1"},  # claims repeated in the header (RFC 7519 §5.3)
]
EXTRA: list[dict[str, Any]] = [
    {},
    {"azp": CLIENT},
    {"nbf": NOW - 60, "jti": "1", "auth_time": NOW},
    {"client_id": CLIENT, "scope": "openid", "tid": "t-1", "iss_": ISSUER},
]


@pytest.mark.parametrize("header", OPTIONAL)
@pytest.mark.parametrize("extra", EXTRA)
def test_case_03_no_optional_field_switches_a_check_off(header: dict[str, Any], extra: dict[str, Any]) -> None:
    assert verify(str(Minted(extra, header)), keys(), expect(), NOW)
    for wrong, code in (
        ({"iss": "https://other.example"}, Code.TOKEN_ISSUER),
        ({"iss": ISSUER + "/"}, Code.TOKEN_ISSUER),
        ({"iss": ISSUER.upper()}, Code.TOKEN_ISSUER),
        ({"iss": [ISSUER]}, Code.TOKEN_ISSUER),
        ({"iss": ...}, Code.TOKEN_ISSUER),
        ({"iss": None}, Code.TOKEN_ISSUER),
        ({"aud": "other"}, Code.TOKEN_AUDIENCE),
        ({"aud": ["other", "more"]}, Code.TOKEN_AUDIENCE),
        ({"aud": CLIENT + " other"}, Code.TOKEN_AUDIENCE),
        ({"aud": []}, Code.TOKEN_AUDIENCE),
        ({"aud": [CLIENT, 1]}, Code.TOKEN_AUDIENCE),
        ({"aud": {CLIENT: 1}}, Code.TOKEN_AUDIENCE),
        ({"aud": None}, Code.TOKEN_AUDIENCE),
        ({"aud": ...}, Code.TOKEN_AUDIENCE),
        ({"aud": "*"}, Code.TOKEN_AUDIENCE),
        ({"aud": ["x"] * 65 + [CLIENT]}, Code.TOKEN_AUDIENCE),
        ({"exp": ...}, Code.TOKEN_CLAIM),
        ({"iat": ...}, Code.TOKEN_CLAIM),
        ({"sub": ...}, Code.TOKEN_CLAIM),
    ):
        refuse(str(Minted({**extra, **wrong}, header)), code)


def test_case_03_time_is_checked_at_its_edges() -> None:
    assert verify(str(Minted({"exp": NOW - 29})), keys(), expect(), NOW)
    refuse(str(Minted({"exp": NOW - 30})), Code.TOKEN_EXPIRED)
    assert verify(str(Minted({"nbf": NOW + 30, "iat": NOW + 30})), keys(), expect(), NOW)
    refuse(str(Minted({"nbf": NOW + 31})), Code.TOKEN_EXPIRED)
    refuse(str(Minted({"iat": NOW + 31})), Code.TOKEN_EXPIRED)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"aud": "other"}, f"the token is for `other`, and not for `{CLIENT}`"),
        ({"aud": "a\u202eb`"}, f"the token is for `a\\x202eb\\x60`, and not for `{CLIENT}`"),
        ({"exp": NOW - 100}, "the token expired 100 s ago"),
        ({"iat": NOW + 100}, "the token is good in 100 s only, by the clock of the exchange"),
    ],
)
def test_a_token_that_is_refused_is_told_with_the_value_that_is_wrong(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(TokenRefused) as refused:
        verify(str(Minted(wrong)), keys(), expect(), NOW)
    assert refused.value.message == said


@pytest.mark.parametrize("value", [True, False, "9999999999", None, [], {}, -1, 1 << 53, 1e300])
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_case_03_an_instant_that_is_none_refuses(name: str, value: Any) -> None:
    refuse(str(Minted({name: value})), Code.TOKEN_CLAIM)


@pytest.mark.parametrize("value", ["", 7, None, ["u-1"], "a\nb", "x" * 256, "u\u202e1"])
def test_case_03_a_subject_that_is_no_line_of_text_refuses(value: Any) -> None:
    refuse(str(Minted({"sub": value})), Code.TOKEN_CLAIM)


def test_a_verification_that_would_accept_anything_is_a_mistake_of_ours() -> None:
    for nothing in ({"audiences": frozenset()}, {"algorithms": frozenset()}):
        with pytest.raises(ValueError, match="accept anything"):
            verify(str(Minted()), keys(), expect(**nothing), NOW)


# ---------------------------------------------------------------- case 5


@pytest.mark.parametrize(
    "kid",
    ["../../etc/passwd", "' OR '1'='1", "https://evil.example/key", "rsa\0", "", "RSA", "rsa ", "x" * 1000, "%72sa"],
)
def test_case_05_kid_only_looks_up(kid: str) -> None:
    refuse(str(Minted(header={"kid": kid})), Code.TOKEN_MALFORMED if "\0" in kid else Code.TOKEN_KEY_UNKNOWN)


@pytest.mark.parametrize("kid", [1, None, ["rsa"], {"rsa": 1}, True])
def test_case_05_kid_of_another_type_never_finds_a_key_by_name(kid: Any) -> None:
    known = KeySet.from_jwks(jwks(rsa(), rsa("second")), RS)
    with pytest.raises(TokenRefused):
        verify(str(Minted(header={"kid": kid})), known, expect(), NOW)


def test_case_05_keys_that_the_token_brings_are_refused() -> None:
    evil = rsa("evil")
    for header in (
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/cert"},
        {"jwk": evil.as_dict(private=False)},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
    ):
        refuse(str(Minted(header=header)), Code.TOKEN_MALFORMED)
        with pytest.raises(TokenRefused):
            verify(str(Minted(key=evil, header=header)), keys(), expect(), NOW)


def test_case_05_a_token_without_kid_gets_no_choice_of_keys() -> None:
    token = str(Minted(header={"kid": ...}))
    assert verify(token, keys(), expect(), NOW)  # one RSA key, one algorithm: nothing to choose
    two = KeySet.from_jwks(jwks(rsa(), rsa("second")), RS)
    refuse(token, Code.TOKEN_KEY_UNKNOWN, known=two)


# ---------------------------------------------------------------- case 10


def test_case_10_oversized_tokens_are_refused_before_they_are_read() -> None:
    refuse("A" * (MAX_TOKEN_CHARS + 1), Code.TOKEN_MALFORMED)
    refuse(str(Minted({"groups": [f"group-{n}" for n in range(10_000)]})), Code.TOKEN_MALFORMED)
    refuse(str(Minted({"x": "y" * (1 << 20)})), Code.TOKEN_MALFORMED)
    assert verify(str(Minted({"groups": [f"group-{n}" for n in range(1_000)]})), keys(), expect(), NOW)


def test_case_10_duplicate_keys_refuse_the_token() -> None:
    claims = as_json({"iss": ISSUER, "aud": CLIENT, "sub": "u-1", "iat": NOW, "exp": NOW + 300})
    twice = claims[:-1] + b',"sub":"admin"}'
    refuse(sign({"alg": "RS256", "kid": "rsa"}, twice, rsa(), "RS256"), Code.TOKEN_MALFORMED)
    refuse(sign(b'{"alg":"RS256","kid":"rsa","alg":"RS256"}', claims, rsa(), "RS256"), Code.TOKEN_MALFORMED)
    refuse(sign(b'{"alg":"RS256","kid":"rsa"}', claims[:-1] + b',"a":{"b":1,"b":2}}', rsa(), "RS256"), Code.TOKEN_MALFORMED)


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 1000 + b"]" * 1000,
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b"[]",
        b"1",
        b"",
        b"null",
        b'{"a":NaN}',
        b'{"a":1e999}',
        b"\xff{}",
    ],
)
def test_case_10_payloads_that_are_no_plain_object_are_refused(payload: bytes) -> None:
    refuse(sign({"alg": "RS256", "kid": "rsa"}, payload, rsa(), "RS256"), Code.TOKEN_MALFORMED)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "a\udfffb"])
def test_case_10_half_characters_and_nul_refuse_the_token(text: str) -> None:
    refuse(str(Minted({"groups": [text]})), Code.TOKEN_MALFORMED)
    refuse(str(Minted({text: 1})), Code.TOKEN_MALFORMED)


# ---------------------------------------------------------------- case 17


@pytest.mark.parametrize(
    "kind", ["logout+jwt", "secevent+jwt", "at+jwt", "cloister-ticket+jwt", "application/logout+jwt", "JWS", 1, None]
)
def test_case_17_a_token_of_another_kind_is_refused(kind: Any) -> None:
    refuse(str(Minted(header={"typ": kind})), Code.TOKEN_TYPE)


def test_case_17_a_kind_that_is_wanted_is_the_only_one_accepted() -> None:
    logout = expect(types=frozenset({"logout+jwt"}))
    assert verify(str(Minted(header={"typ": "logout+jwt"})), keys(), logout, NOW)
    assert verify(str(Minted(header={"typ": "application/Logout+JWT"})), keys(), logout, NOW)
    refuse(str(Minted()), Code.TOKEN_TYPE, logout)
    refuse(str(Minted(header={"typ": "JWT"})), Code.TOKEN_TYPE, logout)
