import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.model.first_contact import (
    ExchangeTarget,
    Unreadable,
    make_provisioning_key,
    read_exchange_target,
    read_provisioning_key,
)

ROOT = "ab" * 32


def test_printed_key_reads_back_as_itself() -> None:
    key = make_provisioning_key(ROOT)
    assert read_provisioning_key(key.text + "\n") == key
    assert len(key.text) <= 256


def test_key_secret_shows_in_no_representation_and_no_error() -> None:
    key = make_provisioning_key(ROOT)
    assert key.secret not in repr(key)
    with pytest.raises(Unreadable) as caught:
        read_provisioning_key(key.text + "x")
    assert key.secret not in str(caught.value)


@given(st.text(max_size=600))
def test_any_other_text_is_no_key(text: str) -> None:
    with pytest.raises(Unreadable):
        read_provisioning_key(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exchange.example", ExchangeTarget("exchange.example", 443)),
        ("Exchange.Example:8443", ExchangeTarget("exchange.example", 8443)),
        (f"127.0.0.1:1#sha256-{ROOT}", ExchangeTarget("127.0.0.1", 1, ROOT)),
        (f"[::1]:65535#SHA256-{ROOT.upper()}", ExchangeTarget("[::1]", 65535, ROOT)),
        ("[::1]", ExchangeTarget("[::1]", 443)),
    ],
)
def test_exchange_target_reads_and_prints_back(text: str, expected: ExchangeTarget) -> None:
    target = read_exchange_target(text)
    assert target == expected
    assert read_exchange_target(str(target)) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":443",
        "a b",
        "host:0",
        "host:65536",
        "host:443#",
        "host#sha256-12",
        "http://host",
        "user@host",
        "host/path",
        "-host",
        "ho$t",
        "a" * 254,
        "host:443 x",
        "host:４４３",
    ],
)
def test_malformed_target_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        read_exchange_target(text)
