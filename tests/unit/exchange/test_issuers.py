import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.exchange.outside import Outside, outside, resolve_to_loopback, respond
from tests.unit.identity.tokens.minting import CLIENT, NOW, Minted, ec, jwks, rsa

from cloister.exchange.errors import Refusal
from cloister.exchange.issuers import FRESH_SECONDS, KEEP_SECONDS, RENEW_SECONDS, WELL_KNOWN, Issuer, IssuerKeys
from cloister.exchange.outgoing import Outgoing
from cloister.identity.tokens.types import Expected, TokenRefused
from cloister.model.reasons import Code

ALGORITHMS = frozenset({"RS256", "ES256"})


class Provider:
    def __init__(self, service: Outside) -> None:
        self.service = service
        self.now = float(NOW)
        self.issuer = Issuer(service.url, ALGORITHMS, service.reach)
        self.keys = IssuerKeys(Outgoing(resolve_to_loopback, seconds=2), lambda: self.now)
        self.describe()
        self.publish(rsa())

    def describe(self, **changes: Any) -> None:
        described = {"issuer": self.service.url, "jwks_uri": f"{self.service.url}/jwks", **changes}
        self.service.answers[WELL_KNOWN] = respond({name: value for name, value in described.items() if value is not ...})

    def publish(self, *keys: Any) -> None:
        self.service.answers["/jwks"] = respond(jwks(*keys))

    async def verify(self, token: Minted) -> str:
        expected = Expected(self.service.url, frozenset({CLIENT}), ALGORITHMS)
        return (await self.keys.verify(self.issuer, str(token), expected)).subject

    def mint(self, key: Callable[..., Any] = rsa, *name: str, **header: Any) -> Minted:
        made = key(*name)
        return Minted({"iss": self.service.url}, header, made, "RS256" if key is rsa else "ES256")


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Provider]:
    async with outside(tmp_path) as service:
        yield Provider(service)


async def test_keys_are_found_once_and_kept(provider: Provider) -> None:
    assert await asyncio.gather(*(provider.verify(provider.mint()) for _ in range(20))) == ["u-1"] * 20
    assert (provider.service.count(WELL_KNOWN), provider.service.count("/jwks")) == (1, 1)
    provider.now += FRESH_SECONDS
    with pytest.raises(TokenRefused):  # by its time: the keys were looked for again first
        await provider.verify(provider.mint())
    assert provider.service.count("/jwks") == 2


async def test_rotation_is_followed_at_once_but_not_on_everybodys_word(provider: Provider) -> None:
    assert await provider.verify(provider.mint())
    provider.publish(rsa(), ec("next"))
    provider.now += RENEW_SECONDS
    assert await provider.verify(provider.mint(ec, "next")) == "u-1"
    assert provider.service.count("/jwks") == 2
    for n in range(100):  # a flood of names that do not exist: one look in ten seconds
        with pytest.raises(TokenRefused) as refused:
            await provider.verify(provider.mint(kid=f"made-up-{n}"))
        assert refused.value.code == Code.TOKEN_KEY_UNKNOWN
    assert provider.service.count("/jwks") == 2
    provider.now += RENEW_SECONDS
    with pytest.raises(TokenRefused):
        await asyncio.gather(*(provider.verify(provider.mint(kid=f"made-up-{n}")) for n in range(10)))
    assert provider.service.count("/jwks") == 3


async def test_a_key_that_is_withdrawn_is_not_believed_any_more(provider: Provider) -> None:
    assert await provider.verify(provider.mint())
    provider.publish(ec())
    provider.now += FRESH_SECONDS
    with pytest.raises(TokenRefused) as refused:
        await provider.verify(provider.mint())
    assert refused.value.code == Code.TOKEN_KEY_UNKNOWN


async def test_a_clock_that_is_set_back_keeps_no_key_alive(provider: Provider) -> None:
    assert await provider.verify(provider.mint())
    provider.publish(ec())
    provider.now -= FRESH_SECONDS
    with pytest.raises(TokenRefused) as refused:
        await provider.verify(provider.mint())
    assert refused.value.code == Code.TOKEN_KEY_UNKNOWN


async def test_the_last_good_set_serves_for_a_bounded_time(provider: Provider) -> None:
    await provider.verify(provider.mint())
    provider.service.answers.clear()
    provider.now += KEEP_SECONDS - 1
    assert (await provider.keys.keys(provider.issuer)).keys
    provider.now += 1
    with pytest.raises(Refusal) as refused:
        await provider.keys.keys(provider.issuer)
    assert refused.value.code == Code.OUTGOING_FAILED


async def test_case_05_what_a_token_says_causes_no_other_fetch(provider: Provider) -> None:
    await provider.verify(provider.mint())
    seen = list(provider.service.asked)
    for header in (
        {"jku": f"{provider.service.url}/evil"},
        {"x5u": f"{provider.service.url}/evil"},
        {"jwk": {}},
        {"kid": "/etc/passwd"},
    ):
        with pytest.raises(TokenRefused):
            await provider.verify(provider.mint(**header))
    assert provider.service.asked == seen


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"issuer": "https://evil.example"}, Code.PROVIDER_MISMATCH),
        ({"issuer": ...}, Code.PROVIDER_MISMATCH),
        ({"issuer": None}, Code.PROVIDER_MISMATCH),
        ({"jwks_uri": ...}, Code.PROVIDER_MISMATCH),
        ({"jwks_uri": 1}, Code.PROVIDER_MISMATCH),
        ({"jwks_uri": "https://evil.example/jwks"}, Code.PROVIDER_MISMATCH),
        ({"jwks_uri": "https://169.254.169.254/jwks"}, Code.PROVIDER_MISMATCH),
        ({"jwks_uri": "http://evil.example/jwks"}, Code.URL_FORBIDDEN),
        ({"jwks_uri": "file:///etc/passwd"}, Code.URL_FORBIDDEN),
        ({"token_endpoint": "https://evil.example/token"}, Code.PROVIDER_MISMATCH),
        ({"authorization_endpoint": "https://evil.example/auth"}, Code.PROVIDER_MISMATCH),
        ({"device_authorization_endpoint": "https://evil.example/auth"}, Code.PROVIDER_MISMATCH),
        ({"end_session_endpoint": "javascript:alert(1)"}, Code.URL_FORBIDDEN),
    ],
)
async def test_case_09_discovery_of_somebody_else_is_refused(provider: Provider, changes: dict[str, Any], code: Code) -> None:
    provider.describe(**changes)
    with pytest.raises(Refusal) as refused:
        await provider.keys.check(provider.issuer)
    assert refused.value.code == code
    said = changes.get("issuer")
    assert not isinstance(said, str) or f"`{said}`" in refused.value.message
    with pytest.raises(Refusal):
        await provider.keys.metadata(provider.issuer)
    assert provider.service.count("/jwks") == 0


async def test_case_09_discovery_that_turns_bad_is_refused_at_refresh(provider: Provider) -> None:
    await provider.verify(provider.mint())
    provider.describe(issuer="https://evil.example")
    provider.publish(rsa("evil"))
    provider.now += RENEW_SECONDS
    with pytest.raises(TokenRefused):
        await provider.verify(provider.mint(rsa, "evil"))
    assert await provider.verify(provider.mint()) == "u-1"  # the last good set, for its time


async def test_case_09_keys_that_redirect_inside_are_refused(provider: Provider) -> None:
    provider.service.answers["/jwks"] = respond(b"", 302, "location: http://169.254.169.254/latest\r\n")
    with pytest.raises(Refusal) as refused:
        await provider.keys.check(provider.issuer)
    assert refused.value.code == Code.OUTGOING_FAILED
    provider.service.answers["/jwks"] = respond({"keys": [{"kty": "oct", "k": "AAAA"}]})
    with pytest.raises(Refusal) as refused:
        await provider.keys.check(provider.issuer)
    assert refused.value.code == Code.PROVIDER_MISMATCH


async def test_another_host_for_endpoints_is_accepted_where_listed(provider: Provider, tmp_path: Path) -> None:
    provider.describe(token_endpoint="https://oauth2.example/token")
    listed = Issuer(provider.service.url, ALGORITHMS, provider.service.reach, frozenset({"oauth2.example"}))
    assert (await provider.keys.check(listed))["token_endpoint"] == "https://oauth2.example/token"


async def test_a_failing_issuer_is_not_asked_for_every_token(provider: Provider) -> None:
    provider.service.answers.clear()
    for _ in range(20):
        with pytest.raises(Refusal):
            await provider.verify(provider.mint())
    assert provider.service.count(WELL_KNOWN) == 1
    provider.describe()
    provider.publish(rsa())
    provider.now += RENEW_SECONDS
    assert await provider.verify(provider.mint()) == "u-1"
