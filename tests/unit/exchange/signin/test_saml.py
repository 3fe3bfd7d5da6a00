"""SAML 2.0 sign-in against pysaml2's own identity provider, and what must not pass for it."""

import base64
import re
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from saml2.saml import (
    NAMEID_FORMAT_EMAILADDRESS,
    NAMEID_FORMAT_TRANSIENT,
    SCM_HOLDER_OF_KEY,
    SCM_SENDER_VOUCHES,
    Audience,
    AudienceRestriction,
    NameID,
)
from saml2.xmldsig import DIGEST_SHA1, SIG_RSA_SHA1
from tests.unit.exchange.conftest import World
from tests.unit.exchange.signin.conftest import SignInLab
from tests.unit.exchange.signin.provider import Browser
from tests.unit.exchange.signin.saml_idp import ENTITY, MFA_CLASS, SamlIdp, make_idp, wrap

from cloister.identity.saml.structure import MAX_BYTES, check_structure
from cloister.identity.tokens.types import TokenRefused
from cloister.model.messages.from_exchange import Enrolled, Refused

pytestmark = pytest.mark.skipif(shutil.which("xmlsec1") is None, reason="needs xmlsec1")


@dataclass
class Acme:
    lab: SignInLab
    idp: SamlIdp

    async def go(self, browser: Browser) -> tuple[Any, str]:
        """A terminal, and the URL with the request that a person's browser is sent to."""
        terminal = await self.lab.offer()
        sent = await browser.submit(await browser.open(terminal.started.url), until="idp.example")
        return terminal, sent.headers["location"]

    async def post(self, browser: Browser, response: str, state: str) -> httpx.Response:
        """The provider's form: it comes from another site, so without a cookie that is not for such."""
        fields = {"SAMLResponse": base64.b64encode(response.encode()).decode(), "RelayState": state}
        cookies, browser.web.cookies = browser.web.cookies, httpx.Cookies()
        answer = await browser.web.post(self.idp.acs, data=fields)
        browser.web.cookies = cookies
        return await browser._follow(answer, "\0")

    async def sign_in(self, **changes: Any) -> str:
        browser = self.lab.browser()
        terminal, url = await self.go(browser)
        page = await self.post(browser, *self.idp.answer(url, **changes))
        assert page.status_code == 200, page.text
        outcome = await terminal.outcome()
        assert isinstance(outcome, Enrolled)
        return outcome.agent

    async def refused(self, change: Callable[[str], str] = str, **changes: Any) -> str:
        """The code with which a changed answer is refused; nobody is made and nobody enrolled."""
        browser = self.lab.browser()
        terminal, url = await self.go(browser)
        before = len(self.lab.world.running.state.documents)
        response, state = self.idp.answer(url, **changes)
        page = await self.post(browser, change(response), state)
        assert page.status_code == 403, page.text
        outcome = await terminal.outcome()
        assert isinstance(outcome, Refused)
        assert len(self.lab.world.running.state.documents) == before
        return outcome.code


@pytest.fixture
async def acme(lab: World, tmp_path: Path) -> AsyncIterator[Acme]:
    idp = make_idp(tmp_path / "saml", f"https://{lab.running.address}")
    await lab.apply("{kind: group, name: acme.science}")
    await lab.apply(idp.document())
    signing = SignInLab(lab, None)  # type: ignore[arg-type]  # no OpenID provider here
    yield Acme(signing, idp)
    for browser in signing.browsers:
        await browser.close()


async def test_a_person_signs_in_by_saml(acme: Acme) -> None:
    agent = await acme.sign_in()
    state = acme.lab.world.running.state
    row = state.agents[agent]
    assert state.name_of(row.principal) == "acme.ada"
    assert (row.sign_in_issuer, row.sign_in_strength) == ("acme", "password")
    assert row.signed_in_at
    assert state.membership.groups_of("user", "acme.ada") == {"acme.science"}
    user = state.parsed[row.principal or ""]
    assert (user.issuer, user.subject) == (ENTITY, "u-1")  # type: ignore[union-attr]
    strong = await acme.sign_in(authn={"class_ref": MFA_CLASS, "authn_auth": ENTITY}, sign_response=True)
    assert state.agents[strong].sign_in_strength == "mfa"
    assert state.agents[strong].principal == row.principal


@pytest.mark.parametrize("number", range(1, 9))
async def test_case_01_wrapped_assertions_sign_nobody_in(acme: Acme, number: int) -> None:
    assert await acme.refused(lambda response: wrap(response, number)) in ("token_malformed", "token_signature")


@pytest.mark.parametrize("number", range(1, 9))
async def test_case_01_wrapped_assertions_have_a_shape_of_their_own(acme: Acme, number: int) -> None:
    """Not only the library refuses them: the shape alone does, whatever the library makes of it."""
    _, url = await acme.go(acme.lab.browser())
    response, _ = acme.idp.answer(url)
    check_structure(response.encode())
    with pytest.raises(TokenRefused):
        check_structure(wrap(response, number).encode())


async def test_case_01_unsigned_and_altered_assertions_sign_nobody_in(acme: Acme) -> None:
    assert await acme.refused(sign_assertion=False) == "token_malformed"
    assert await acme.refused(sign_assertion=False, sign_response=True) == "token_malformed"
    assert await acme.refused(lambda response: response.replace(">u-1<", ">admin<")) == "token_signature"
    assert await acme.refused(lambda response: response.replace(">science<", ">admins<")) == "token_signature"
    strip = re.compile(r"<(\w+):Signature[ >].*?</\1:Signature>", re.DOTALL)
    assert await acme.refused(lambda response: strip.sub("", response)) == "token_malformed"
    assert await acme.refused(lambda response: response.replace("u-1", "u-<!-- -->1")) == "token_malformed"


async def test_case_01_another_key_signs_nobody_in(acme: Acme, tmp_path: Path) -> None:
    """A key that the response itself brings along, and one that nobody configured."""
    stranger = make_idp(tmp_path / "stranger", f"https://{acme.lab.world.running.address}")
    browser = acme.lab.browser()
    terminal, url = await acme.go(browser)
    assert (await acme.post(browser, *stranger.answer(url))).status_code == 403
    outcome = await terminal.outcome()
    assert isinstance(outcome, Refused)
    assert outcome.code == "token_signature"


async def test_case_02_weak_algorithms_are_refused(acme: Acme) -> None:
    assert await acme.refused(sign_alg=SIG_RSA_SHA1) == "token_algorithm"
    assert await acme.refused(digest_alg=DIGEST_SHA1) == "token_algorithm"
    hmac = "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"
    rsa = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
    assert await acme.refused(lambda response: response.replace(rsa, hmac)) == "token_algorithm"


async def test_case_03_right_signature_for_somebody_else_is_refused(acme: Acme, tmp_path: Path) -> None:
    assert await acme.refused(sp_entity_id="https://other.example/saml") in ("token_signature", "token_malformed")
    assert await acme.refused(destination="https://other.example/acs") == "token_signature"
    assert await acme.refused(in_response_to="id-of-another-request") == "token_signature"
    acme.lab.world.clock.offset += 0
    other = make_idp(tmp_path / "other", f"https://{acme.lab.world.running.address}", entity="https://other.example/saml")
    await acme.lab.world.apply(acme.idp.document(certificate_files=[str(other.certificate)]))
    browser = acme.lab.browser()
    terminal, url = await acme.go(browser)
    assert (await acme.post(browser, *other.answer(url))).status_code == 403
    assert isinstance(await terminal.outcome(), Refused)


def _data(response: Any) -> Any:
    return response.assertion[0].subject.subject_confirmation[0].subject_confirmation_data


def _audience(*texts: str) -> Any:
    return AudienceRestriction(audience=[Audience(text=text) for text in texts])


ADDRESSED_ELSEWHERE: dict[str, Callable[[Any], object]] = {
    "no conditions": lambda response: setattr(response.assertion[0], "conditions", None),
    "no audience": lambda response: setattr(response.assertion[0].conditions, "audience_restriction", []),
    "another audience as well": lambda response: response.assertion[0].conditions.audience_restriction.append(
        _audience("https://other.example")
    ),
    "another recipient": lambda response: setattr(_data(response), "recipient", "https://other.example/acs"),
    "no recipient": lambda response: setattr(_data(response), "recipient", None),
    "no end": lambda response: setattr(_data(response), "not_on_or_after", None),
    "no request": lambda response: setattr(_data(response), "in_response_to", None),
    "nothing confirmed": lambda response: setattr(
        response.assertion[0].subject.subject_confirmation[0], "subject_confirmation_data", None
    ),
    "for who vouches": lambda response: setattr(
        response.assertion[0].subject.subject_confirmation[0], "method", SCM_SENDER_VOUCHES
    ),
    "for a holder of a key": lambda response: setattr(
        response.assertion[0].subject.subject_confirmation[0], "method", SCM_HOLDER_OF_KEY
    ),
    "no name": lambda response: setattr(response.assertion[0].subject, "name_id", None),
}


@pytest.mark.parametrize("what", ADDRESSED_ELSEWHERE)
async def test_case_03_a_signed_assertion_says_itself_that_it_is_for_this_sign_in(acme: Acme, what: str) -> None:
    """What stands around it is not signed: an assertion made for somebody else, or for nobody in particular, fits into any response."""
    change = ADDRESSED_ELSEWHERE[what]
    code = await acme.refused(lambda response: acme.idp.signed(response, change), sign_assertion=False)
    assert code in ("token_audience", "token_signature", "token_malformed")


async def test_a_response_need_not_say_whose_it_is(acme: Acme) -> None:
    browser = acme.lab.browser()
    terminal, url = await acme.go(browser)
    response, state = acme.idp.answer(url, sign_assertion=False)
    page = await acme.post(browser, acme.idp.signed(response, lambda made: setattr(made, "issuer", None)), state)
    assert page.status_code == 200, page.text
    assert isinstance(await terminal.outcome(), Enrolled)


async def test_case_04_a_response_works_once_and_for_its_own_sign_in(acme: Acme) -> None:
    browser = acme.lab.browser()
    terminal, url = await acme.go(browser)
    response, state = acme.idp.answer(url)
    assert (await acme.post(browser, response, state)).status_code == 200
    assert isinstance(await terminal.outcome(), Enrolled)
    assert (await acme.post(browser, response, state)).status_code == 403
    _, second = await acme.go(browser)
    state_of_second = acme.idp.answer(second)[1]
    assert (await acme.post(browser, response, state_of_second)).status_code == 403  # an answer to another request
    assert (await acme.post(browser, response, "made up")).status_code == 403


async def test_case_04_a_response_brought_by_another_browser_is_refused(acme: Acme) -> None:
    browser = acme.lab.browser()
    terminal, url = await acme.go(browser)
    assert (await acme.post(acme.lab.browser(), *acme.idp.answer(url))).status_code == 403
    outcome = await terminal.outcome()
    assert isinstance(outcome, Refused)
    assert outcome.code == "sign_in_mismatch"


async def test_case_07_names_that_do_not_last_are_refused(acme: Acme) -> None:
    for form in (NAMEID_FORMAT_TRANSIENT, NAMEID_FORMAT_EMAILADDRESS):
        assert await acme.refused(name_id=NameID(format=form, text="ada@example.org")) == "token_claim"
    assert await acme.refused(name_id=NameID(text="x" * 300)) == "token_claim"


@pytest.mark.parametrize(
    "text",
    [
        b"", b"<", b"<a/>", b"x" * (MAX_BYTES + 1),
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b'<?xml version="1.0"?><?x y?><a/>',
        b"<a>" * 2000 + b"</a>" * 2000,
        b'<p:Response xmlns:p="urn:oasis:names:tc:SAML:2.0:protocol"/>',
    ],
)  # fmt: skip
def test_case_10_hostile_xml_is_refused(text: bytes) -> None:
    with pytest.raises(TokenRefused):
        check_structure(text)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "iso-8859-1", "windows-1252", "koi8-r"])
async def test_case_19_a_response_in_another_encoding_is_refused(acme: Acme, encoding: str) -> None:
    """Two parsers may read it as two texts, and comments and instructions hide in it from a look at the bytes."""
    _, url = await acme.go(acme.lab.browser())
    honest = re.sub(r"^<\?xml[^>]*>\s*", "", acme.idp.answer(url)[0])
    check_structure(f'<?xml version="1.0" encoding="UTF-8"?>{honest}'.encode())
    check_structure(honest.encode())
    hidden = honest.replace(">u-1<", ">u-1<!---->.x<") if encoding.startswith("utf-16") else honest
    with pytest.raises(TokenRefused):
        check_structure(f'<?xml version="1.0" encoding="{encoding}"?>{hidden}'.encode(encoding))


async def test_step_up_asks_for_a_new_and_stronger_sign_in(acme: Acme) -> None:
    from cloister.identity.oidc.request import Wish
    from cloister.identity.saml.provider import make_client, make_request

    document = acme.lab.world.running.state.parsed
    provider = next(item for item in document.values() if item.kind == "identity-provider")
    client = make_client(provider, [acme.idp.certificate.read_text()], acme.idp.sp, acme.idp.acs)  # type: ignore[arg-type]
    _, url = make_request(client, provider, "state", Wish((MFA_CLASS,), 0))  # type: ignore[arg-type]
    import zlib
    from urllib.parse import parse_qs, urlsplit

    request = zlib.decompress(base64.b64decode(parse_qs(urlsplit(url).query)["SAMLRequest"][0]), -15).decode()
    assert 'ForceAuthn="true"' in request
    assert MFA_CLASS in request
