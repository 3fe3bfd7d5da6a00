"""Documents about programs: what they refuse, and that nobody's job matches by being too wide."""

import pytest

from cloister.model.documents import to_fields
from cloister.model.parse import parse_documents, parse_fields
from cloister.model.print import print_documents
from cloister.model.references import check_documents

KEY = "{kty: RSA, kid: '1', n: abc, e: AQAB, x5c: [a, b]}"


def _message(text: str) -> str:
    result = parse_documents(text)
    errors = result.errors or tuple(check_documents(result.documents, result.origins))
    return errors[0].message if errors else ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("issuer: https://i.example", ""),
        ("issuer: nothing", "`issuer` is what its tokens say"),
        ("type: kubernetes, issuer: https://i.example", "never asks a cluster"),
        ("type: spiffe, issuer: https://i.example", "trust domain"),
        ("type: spiffe, issuer: 'spiffe://A.example', jwks_uri: https://x.example", "trust domain"),
        ("type: spiffe, issuer: 'spiffe://a.example'", "needs `keys`"),
        (f"issuer: https://i.example, keys: {{keys: [{KEY}]}}, jwks_uri: https://x.example", "keep one"),
        ("type: github, issuer: https://i.example, people: true", "programs only"),
        ("issuer: https://i.example, keys: {keys: [{kty: RSA, d: secret}]}", "secret parts"),
        ("issuer: https://i.example, keys: {keys: [{n: x}]}", "`kty`"),
        ("issuer: https://i.example, keys: {keys: [{kty: RSA, n: 5}]}", "in quotes"),
        ("issuer: https://i.example, algorithms: [HS256]", "is not possible"),
        ("issuer: https://i.example, algorithms: [none]", "is not possible"),
        ("issuer: https://i.example, connectors: {group: lab, subjects: [x]}", "there is no connector group `lab`"),
    ],
)
def test_token_issuer_says_what_is_missing(fields: str, message: str) -> None:
    found = _message(f"{{kind: token-issuer, name: i, {fields}}}")
    assert message in found
    assert bool(message) == bool(found)
    assert "secret'" not in found


GITHUB = "{kind: token-issuer, name: gh, type: github, issuer: https://github.example}\n---\n"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("issuer: gh, claims: {repository: org/repo}", ""),
        ("issuer: https://github.example, claims: {repository: org/*}", ""),
        ("issuer: gh, subject: repo:org/repo", ""),
        ("issuer: https://elsewhere.example, subject: x", ""),
        ("issuer: local, subject: x", ""),
        ("issuer: local, claims: {a: b}", "there is no token issuer `local`"),
        ("issuer: gh", "every program of the issuer"),
        ("issuer: gh, claims: {ref: refs/heads/main}", "anybody's job"),
        ("issuer: gh, claims: {repository: org*}", "anybody's job"),
        ("issuer: gh, claims: {repository_owner: org*}", "anybody's job"),
        ("issuer: gh, claims: {repository: '*'}", "anybody's job"),
        ("issuer: gh, claims: {repository: 'o*g/repo'}", "not at its end"),
        ("issuer: hg, subject: x", "there is no token issuer `hg`"),
        ("issuer: https://elsewhere.example, claims: {a: b}", "there is no token issuer"),
    ],
)
def test_workload_asks_for_somebody_in_particular(fields: str, message: str) -> None:
    found = _message(f"{GITHUB}{{kind: workload, name: w, {fields}}}")
    assert message in found
    assert bool(message) == bool(found)


def test_workload_does_not_name_two_issuers_at_once() -> None:
    twins = "".join(f"{{kind: token-issuer, name: {name}, issuer: https://i.example}}\n---\n" for name in ("a", "b"))
    assert "several token issuers" in _message(twins + "{kind: workload, name: w, issuer: https://i.example, subject: s}")
    assert _message(twins + "{kind: workload, name: w, issuer: b, subject: s}") == ""


def test_pasted_keys_are_printed_and_stored_as_they_were() -> None:
    text = f"{{kind: token-issuer, name: i, issuer: https://i.example, keys: {{keys: [{KEY}]}}, proof_lasts: 2h}}"
    (document,) = parse_documents(text).documents
    assert parse_documents(print_documents([document])).documents == (document,)
    assert parse_fields(to_fields(document)) == document
