"""One language of hosts: what a document may say is what the core reads, in the same canonical form."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloister import _core
from cloister.model.hosts import HostError, parse_host

FORMS = json.loads((Path(__file__).parents[2] / "data" / "attacks" / "ssrf.json").read_text())["cases"]


def in_core(text: str) -> str | None:
    try:
        return _core.parse_host(text)
    except _core.CoreError as error:
        return None if error.code == "host_malformed" else error.code


def in_model(text: str) -> str | None:
    try:
        return parse_host(text)
    except HostError:
        return None


def test_case_59_documents_and_core_read_every_known_form_alike() -> None:
    for form in FORMS:
        assert in_model(form["text"]) == in_core(form["text"]), form


@given(st.one_of(st.text(max_size=60), st.from_regex(r"[0-9a-zA-Z.:-]{1,40}", fullmatch=True), st.ip_addresses().map(str)))
@example("a" * 63 + ".b")
@example("a" * 64)
@example(".".join(["a" * 49] * 5) + ".abc")
@example(".".join(["a" * 49] * 5) + ".abcd")
@example("::ffff:1.2.3.4")
@example("0x")
@example("a.")
@example("a..")
@example("xn--a")
def test_case_59_documents_and_core_read_any_text_alike(text: str) -> None:
    assert in_model(text) == in_core(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("169.254.169.254", "metadata"),
        ("::ffff:10.0.0.1", "embedded_ipv4"),
        ("localhost", "loopback"),
        ("10.0.0.1", None),
    ],
)
def test_forbidden_addresses_have_their_reason(text: str, why: str | None) -> None:
    assert _core.forbidden_address(text) == why
