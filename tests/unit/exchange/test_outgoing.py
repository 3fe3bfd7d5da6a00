import asyncio
import dataclasses
import ipaddress
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.exchange.outside import HOST, Outside, outside, resolve_to_loopback, respond

from cloister.exchange.errors import Refusal
from cloister.exchange.outgoing import MAX_ANSWER_BYTES, PUBLIC, Outgoing, Reach, check_url, is_permitted, shown_url
from cloister.model.reasons import Code

FORMS = Path(__file__).parents[2] / "data" / "attacks" / "ssrf.json"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside(tmp_path) as found:
        yield found


async def refused(code: Code, url: str, reach: Reach, outgoing: Outgoing | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await (outgoing or Outgoing(resolve_to_loopback)).get_json(url, reach)
    assert caught.value.code == code, caught.value.message
    return caught.value


async def test_a_listed_host_is_asked_and_vouched_for_by_its_own_ca(service: Outside) -> None:
    service.answers["/x"] = respond({"a": 1})
    outgoing = Outgoing(resolve_to_loopback)
    assert await outgoing.get_json(f"{service.url}/x?y=1", service.reach) == {"a": 1}
    assert f"host: {HOST}:{service.port}" in service.asked[0].lower()
    # Neither the public CAs nor another name's certificate will do.
    await refused(Code.OUTGOING_FAILED, f"{service.url}/x", Reach(frozenset({HOST})))
    other = service.url.replace(HOST, "other.test")
    await refused(Code.OUTGOING_FAILED, f"{other}/x", Reach(frozenset({"other.test"}), service.ca_file))
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "::1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "169.254.1.1", "fd00:ec2::254", "fe80::1",
        "fc00::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1",
        "255.255.255.255", "100.100.100.200", "192.0.2.1", "198.18.0.1", "240.0.0.1", "ff02::1",
    ],
)  # fmt: skip
async def test_case_93_a_name_that_leads_inside_is_not_asked(service: Outside, address: str) -> None:
    async def inside(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34", address]  # one forbidden address among public ones refuses the name

    await refused(Code.URL_FORBIDDEN, f"{service.url}/x", Reach(ca_file=service.ca_file), Outgoing(inside))
    assert service.connections == 0


def test_case_93_some_addresses_are_never_asked_even_where_listed() -> None:
    for text in (
        "169.254.169.254",
        "fd00:ec2::254",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "::ffff:10.0.0.1",
        "100.100.100.200",
    ):
        assert not is_permitted(ipaddress.ip_address(text), listed=True), text
    for text in ("127.0.0.1", "10.0.0.1", "::1", "fc00::1", "64:ff9b::10.0.0.1", "93.184.216.34", "2606:2800:220:1::1"):
        assert is_permitted(ipaddress.ip_address(text), listed=True), text
    for text in ("93.184.216.34", "2606:2800:220:1::1", "64:ff9b::93.184.216.34"):
        assert is_permitted(ipaddress.ip_address(text), listed=False), text


async def test_case_93_every_form_of_a_forbidden_address_in_a_url_is_refused() -> None:
    async def nobody(host: str, _port: int) -> list[str]:
        raise AssertionError(f"`{host}` was resolved")

    document: dict[str, Any] = json.loads(FORMS.read_text())
    forms = [form for form in _texts(document) if form]
    assert len(forms) > 100
    outgoing = Outgoing(nobody)
    for form in forms:
        with pytest.raises((Refusal, AssertionError)) as caught:  # a name is resolved, and what it resolves to is judged
            await outgoing.send("GET", f"https://{form}/x", PUBLIC)
        assert isinstance(caught.value, AssertionError) or caught.value.code == Code.URL_FORBIDDEN, form


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [
            text for key, inner in value.items() if key in ("form", "forms", "host", "text", "input") for text in _texts(inner)
        ] + [text for inner in value.values() if isinstance(inner, list | dict) for text in _texts(inner)]
    return [text for inner in value for text in _texts(inner)] if isinstance(value, list) else []


async def test_case_93_a_name_is_resolved_once_and_that_answer_is_dialled(service: Outside) -> None:
    asked = 0

    async def rebinding(_host: str, _port: int) -> list[str]:
        nonlocal asked
        asked += 1
        return ["127.0.0.1"] if asked == 1 else ["169.254.169.254"]

    service.answers["/x"] = respond({"a": 1})
    assert await Outgoing(rebinding).get_json(f"{service.url}/x", service.reach) == {"a": 1}
    assert asked == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_case_93_no_redirect_is_followed(service: Outside, status: int) -> None:
    service.answers["/x"] = respond(b"", status, "location: http://169.254.169.254/latest\r\n")
    service.answers["/y"] = respond(b"", status, f"location: {service.url}/z\r\n")
    service.answers["/z"] = respond({"a": 1})
    await refused(Code.OUTGOING_FAILED, f"{service.url}/x", service.reach)
    await refused(Code.OUTGOING_FAILED, f"{service.url}/y", service.reach)
    assert service.count("/z") == 0


async def test_case_93_an_answer_without_end_is_cut(service: Outside) -> None:
    service.answers["/at"] = respond(b'{"a":"' + b"x" * (MAX_ANSWER_BYTES - 8) + b'"}')
    service.answers["/over"] = respond(b'{"a":"' + b"x" * (MAX_ANSWER_BYTES - 7) + b'"}')
    service.answers["/bomb"] = respond(b"\x1f\x8b", headers="content-encoding: gzip\r\n")
    assert await Outgoing(resolve_to_loopback).get_json(f"{service.url}/at", service.reach)
    await refused(Code.OUTGOING_FAILED, f"{service.url}/over", service.reach)
    await refused(Code.OUTGOING_FAILED, f"{service.url}/bomb", service.reach)


async def test_case_93_a_service_that_never_answers_costs_bounded_time(service: Outside) -> None:
    release = asyncio.Event()

    async def never(_request: str = "") -> bytes:
        await release.wait()
        return b""

    service.answers["/x"] = never
    service.answers["/y"] = respond(b"{", length=100)  # begins and breaks off
    said = await refused(Code.OUTGOING_FAILED, f"{service.url}/x", service.reach, Outgoing(resolve_to_loopback, seconds=0.3))
    assert "within `0.3` s" in said.message
    await refused(Code.OUTGOING_FAILED, f"{service.url}/y", service.reach)
    release.set()


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example/x", "ftp://idp.example/", "file:///etc/passwd", "https://", "https:///x", "//idp.example", "idp.example",
        "https://user:pass@idp.example/", "https://idp.example@evil.example/", "https://idp.example\\@evil.example/", "https://idp.example/#x",
        "https://idp example/", "https://idp.example:0x50/", "https://[::1%25lo]/", "https://1.2.3/", "https://0x7f000001/", "gopher://idp.example/",
        "https://idp.example/\r\nx: y", "https://idp.\u0435xample/", "https://" + "a" * 5000,
    ],
)  # fmt: skip
def test_case_93_urls_that_can_be_read_in_two_ways_are_refused(url: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_url(url, PUBLIC)
    assert caught.value.code == Code.URL_FORBIDDEN


def test_plain_http_only_where_the_host_is_listed() -> None:
    reach = Reach(frozenset({"idp.lab.internal"}))
    assert check_url("http://IDP.lab.internal/x", reach).port == 80
    assert dataclasses.replace(reach)  # a value: it keys caches
    for url in ("http://other.lab.internal/x", "http://idp.lab.internal.evil.example/x"):
        with pytest.raises(Refusal):
            check_url(url, reach)


def test_what_is_shown_of_a_url_holds_no_query() -> None:
    assert shown_url("https://idp.example/x?code=secret#y") == "https://idp.example/x"


async def test_a_service_that_cannot_be_reached_is_told_in_words(service: Outside) -> None:
    plain = f"http{service.url.removeprefix('https')}/x"
    said = await refused(Code.OUTGOING_FAILED, plain, service.reach)
    assert not any(name in said.message for name in ("Error", "Timeout")), said.message
    said = await refused(Code.OUTGOING_FAILED, f"https://{HOST}:1/x", service.reach)
    assert said.message == f"`https://{HOST}:1/x` cannot be reached: the connection fails"


async def test_an_unreadable_ca_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    for path in (tmp_path / "no.pem", tmp_path / "absent.pem"):
        await refused(Code.ARGUMENT_INVALID, f"https://{HOST}/x", Reach(frozenset({HOST}), path))
