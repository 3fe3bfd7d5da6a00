"""Sign-in at a real OpenID provider as it should go: people, groups, devices, step-up, logout."""

import asyncio
import contextlib
import sqlite3
import time
from urllib.parse import urlsplit

from tests.unit.exchange.conftest import eventually
from tests.unit.exchange.signin.conftest import SignInLab
from tests.unit.exchange.signin.provider import HARDWARE, MFA, SECRET, Browser, forms_of

from cloister.model.messages.from_agent import EnrolBySignIn, SignOut, StepUp, WantSession
from cloister.model.messages.from_exchange import (
    Catalogue,
    EndSession,
    Enrolled,
    Refused,
    Session,
    SignedIn,
    SignedOut,
    SignInStarted,
)

JUPYTER = WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp")
POSTGRES = WantSession(ref=2, host="db.lab.internal", port=5432, protocol="tcp")


async def test_a_person_signs_in_and_reaches_what_the_groups_of_the_token_permit(corp: SignInLab) -> None:
    await corp.world.connector()
    agent = await corp.sign_in("ada")
    row = corp.world.running.state.agents[agent.id]
    assert corp.user_of(agent) == "corp.ada"
    assert (row.sign_in_issuer, row.sign_in_strength) == ("corp", "password")
    assert row.sign_in_session
    assert {segment.name for segment in (await agent.receive(Catalogue)).segments} == {"jupyter", "postgres"}
    agent.send(JUPYTER)
    assert (await agent.receive(Session)).ref == 1
    agent.send(POSTGRES)
    assert (await agent.receive(Refused)).code == "step_up_required"


async def test_a_stronger_sign_in_opens_what_asks_for_it(corp: SignInLab) -> None:
    await corp.world.connector()
    await corp.world.apply(corp.idp.document(max_age="12h"))
    agent = await corp.sign_in("ada", acr=MFA)
    row = corp.world.running.state.agents[agent.id]
    assert row.sign_in_strength == "mfa"
    assert abs((row.signed_in_at or 0) - time.time()) < 60
    agent.send(POSTGRES)
    assert (await agent.receive(Session)).ref == 2


# ------------------------------------------------------------------ who is who


async def test_case_07_the_same_mail_is_not_the_same_person(corp: SignInLab) -> None:
    """Two accounts with one mail address, and the same subject at another client of another document: each its own user, nothing inherited."""
    ada, eve = await corp.sign_in("ada"), await corp.sign_in("eve")
    assert corp.user_of(ada) == "corp.ada"
    assert corp.user_of(eve) == "corp.eve"
    groups = corp.world.running.state.membership
    assert groups.groups_of("user", "corp.ada") == {"corp.science"}
    assert groups.groups_of("user", "corp.eve") == frozenset()


async def test_case_07_an_account_that_is_made_again_inherits_nothing(corp: SignInLab) -> None:
    """The provider gives the name and the mail of somebody who left to somebody new: another subject, so another user, under another name."""
    first = await corp.sign_in("ada")
    await corp.world.api.ok("PUT", "/users/corp.ada/role", json={"role": "admin"})
    await corp.idp.set_account("u-2", preferred_username="ada", name="Ada Second", email="ada@example.org", groups=[])
    second = await corp.sign_in("u-2")
    assert corp.user_of(first) == "corp.ada"
    assert corp.user_of(second).startswith("corp.ada-")
    state = corp.world.running.state
    assert state.agents[second.id].principal not in state.accounts
    assert state.membership.groups_of("user", corp.user_of(second)) == frozenset()


async def test_case_07_a_user_that_was_deleted_here_is_somebody_new(corp: SignInLab) -> None:
    first = await corp.sign_in("ada")
    principal = corp.world.running.state.agents[first.id].principal
    await corp.world.api.ok("PUT", "/users/corp.ada/role", json={"role": "auditor"})
    await corp.world.api.ok("DELETE", "/users/corp.ada")
    second = await corp.sign_in("ada")
    state = corp.world.running.state
    assert state.agents[second.id].principal != principal
    assert state.agents[second.id].principal not in state.accounts


async def test_case_07_the_name_of_a_deleted_user_goes_to_nobody_by_itself(corp: SignInLab) -> None:
    """The next one whom the provider calls the same would own what is owned by name: machines, and applications by their label."""
    await corp.sign_in("ada")
    await corp.world.add_user("eve.local")
    await corp.world.apply("{kind: device, name: laptop-of-ada, owner: corp.ada}")
    for name in ("corp.ada", "eve.local"):
        await corp.world.api.ok("DELETE", f"/users/{name}")
    await corp.idp.set_account("u-2", preferred_username="ada", name="Ada Second", groups=[])
    second = await corp.sign_in("u-2")
    assert corp.user_of(second).startswith("corp.ada-")
    assert ("user", "eve.local") in corp.world.running.state.directories.retired


async def test_case_07_a_person_who_is_deleted_again_and_again_is_let_in_again(corp: SignInLab) -> None:
    names = set()
    for _ in range(4):
        agent = await corp.sign_in("ada")
        names.add(name := corp.user_of(agent))
        await corp.world.api.ok("DELETE", f"/users/{name}")
    assert len(names) == 4


async def test_case_07_names_at_the_provider_are_data(corp: SignInLab) -> None:
    """Renamed, odd, empty or somebody else's: a name picks nobody and never takes one that is taken."""
    await corp.world.add_user("corp.root")
    for account, expected in (("A@b@c", "corp.a@b@c"), ("../../root", "corp.root-"), ("Ädä", "corp."), ("admin", "corp.admin")):
        await corp.idp.set_account(account, name="Somebody", groups=[])
        agent = await corp.sign_in(account)
        assert corp.user_of(agent).startswith(expected)
    renamed = await corp.sign_in("eve")
    await corp.idp.set_account("eve", preferred_username="eva", name="Eva Married", groups=[])
    again = await corp.sign_in("eve")
    state = corp.world.running.state
    assert state.agents[renamed.id].principal == state.agents[again.id].principal


async def test_case_08_the_domain_of_a_mail_address_decides_nothing(corp: SignInLab) -> None:
    """A second provider that asserts the first one's addresses, names and groups: its people are below its own name, in its own groups."""
    await corp.world.apply(corp.idp.document("partner", issuer=corp.idp.issuer, prefix="partner."))
    await corp.world.api.ok("PUT", "/identity-providers/partner/secret", json={"secret": SECRET})
    await corp.world.apply("{kind: group, name: partner.science}")
    agent = await corp.sign_in("ada", "partner")
    assert corp.user_of(agent) == "partner.ada"
    assert corp.world.running.state.membership.groups_of("user", "partner.ada") == {"partner.science"}


async def test_a_provider_that_makes_no_users_lets_only_known_ones_in(corp: SignInLab) -> None:
    await corp.world.apply(corp.idp.document(users="existing"))
    terminal = await corp.offer()
    page = await corp.walk(terminal.started)
    assert page.status_code == 403
    refused = await terminal.outcome()
    assert isinstance(refused, Refused)
    assert refused.code == "not_authorised"
    await corp.world.apply(f"{{kind: user, name: ada-of-corp, issuer: '{corp.idp.issuer}', subject: ada}}")
    assert corp.user_of(await corp.sign_in("ada")) == "ada-of-corp"


async def test_a_disabled_user_is_not_signed_in(corp: SignInLab) -> None:
    await corp.sign_in("ada")
    await corp.world.api.ok("POST", "/users/corp.ada/disable")
    terminal = await corp.offer()
    assert (await corp.walk(terminal.started)).status_code == 403
    refused = await terminal.outcome()
    assert isinstance(refused, Refused)
    assert refused.code == "user_disabled"


# ------------------------------------------------------------------ groups


async def test_case_11_groups_of_the_token_replace_earlier_ones_and_end_what_needed_them(corp: SignInLab) -> None:
    await corp.world.connector()
    await corp.world.apply("{kind: group, name: local-group, users: []}")
    agent = await corp.sign_in("ada")
    await corp.world.api.ok("PUT", "/groups/local-group/members/corp.ada")
    agent.send(JUPYTER)
    await agent.receive(Session)
    await corp.idp.set_account("ada", name="Ada", groups=["other"])
    await corp.sign_in("ada")
    assert (await agent.receive(EndSession)).code
    membership = corp.world.running.state.membership
    assert membership.groups_of("user", "corp.ada") == {"local-group"}  # a group that is not the provider's is not touched
    await corp.idp.set_account("ada", name="Ada", groups=["science"])
    await corp.sign_in("ada")
    assert corp.world.running.state.membership.groups_of("user", "corp.ada") == {"local-group", "corp.science"}


async def test_groups_are_mapped_by_the_document_and_by_nothing_else(corp: SignInLab) -> None:
    await corp.world.apply("{kind: group, name: researchers}\n---\n{kind: group, name: admins}")
    groups = {"claim": "groups", "map": {"CN=Lab,OU=x": "researchers"}}
    await corp.world.apply(corp.idp.document(groups=groups))
    await corp.idp.set_account("ada", name="Ada", groups=["CN=Lab,OU=x", "admins", "corp.admins", "Science", "ѕcience"])
    await corp.sign_in("ada")
    assert corp.world.running.state.membership.groups_of("user", "corp.ada") == {"researchers"}
    await corp.world.apply(corp.idp.document(groups=groups, prefix=""))
    await corp.sign_in("ada")
    assert corp.world.running.state.membership.groups_of("user", "corp.ada") == {"researchers"}


async def test_a_secret_that_the_provider_does_not_accept_is_told_as_that(corp: SignInLab) -> None:
    await corp.world.api.ok("PUT", "/identity-providers/corp/secret", json={"secret": "another one"})
    terminal = await corp.offer()
    page = await corp.walk(terminal.started)
    assert "corp does not accept the client corp or its secret" in page.text
    told = await terminal.outcome()
    assert isinstance(told, Refused)
    assert told.remedy == "ask your administrator to compare `client_id` and the client secret with the provider's"


async def test_who_names_a_provider_that_is_not_there_is_told_which_are(corp: SignInLab) -> None:
    agent = corp.world.agent("client")
    agent.link = agent.core.dial_link(agent.address, role=None, root_sha256=agent.root_sha256)
    await agent.until(lambda: agent.up or None)
    agent.send(EnrolBySignIn(provider="nobody", method="browser", csr=agent.csr(), hostname="laptop"))
    told = await agent.receive(Refused)
    assert (told.message, told.remedy) == ("there is no identity provider `nobody`", "choose `corp`")


async def test_who_describes_a_provider_that_does_not_answer_or_a_secret_that_is_not_there_is_told(corp: SignInLab) -> None:
    assert (await corp.world.apply(corp.idp.document(display="nickname")))["notices"] == []
    nowhere = "http://127.0.0.1:1"
    assert (await corp.world.apply(corp.idp.document("other", issuer=nowhere)))["notices"] == [
        f"`{nowhere}/.well-known/openid-configuration` cannot be reached: the connection fails; look at that service; it is tried again"
    ]
    assert (await corp.world.apply(corp.idp.document("third", client_secret_file="/no/such/file")))["notices"] == [
        "the client secret of `third` cannot be read; check `client_secret_file` on the exchange"
    ]


async def test_who_is_in_a_group_by_a_sign_in_stays_when_its_document_is_applied_again(corp: SignInLab) -> None:
    document, group = (
        corp.idp.document(groups={"claim": "groups", "map": {"science": "researchers"}}),
        "{kind: group, name: researchers}",
    )
    await corp.world.apply(f"{group}\n---\n{document}")
    await corp.world.apply("{kind: user, name: anna}")
    await corp.sign_in("ada")
    again = await corp.world.apply(f"{group}\n---\n{document}")
    assert again["changed"] == []
    await corp.world.apply("{kind: group, name: researchers, users: [anna]}")
    membership = corp.world.running.state.membership
    assert (membership.groups_of("user", "corp.ada"), membership.groups_of("user", "anna")) == ({"researchers"}, {"researchers"})
    await corp.world.apply(f"{group}\n---\n{document}")
    membership = corp.world.running.state.membership
    assert (membership.groups_of("user", "corp.ada"), membership.groups_of("user", "anna")) == ({"researchers"}, set())


async def test_whoever_is_in_a_group_by_a_provider_that_says_nothing_of_it_any_more_is_taken_out_by_its_document(
    corp: SignInLab,
) -> None:
    await corp.world.apply(
        "{kind: group, name: researchers}\n---\n" + corp.idp.document(groups={"claim": "groups", "map": {"science": "researchers"}})
    )
    await corp.sign_in("ada")
    await corp.world.apply("{kind: group, name: researchers}\n---\n" + corp.idp.document())
    assert "researchers" not in corp.world.running.state.membership.groups_of("user", "corp.ada")


async def test_case_10_group_names_that_read_as_others_refuse_the_sign_in(corp: SignInLab) -> None:
    for group in ("\u202ecneics", "a\tb", "x" * 300, ""):
        await corp.idp.set_account("ada", name="Ada", groups=["science", group])
        terminal = await corp.offer()
        assert (await corp.walk(terminal.started)).status_code == 403
        refused = await terminal.outcome()
        assert isinstance(refused, Refused)
        assert refused.code == "token_claim"


# ------------------------------------------------------------------ devices without a browser


async def test_a_machine_without_a_browser_signs_in_with_a_code(corp: SignInLab) -> None:
    terminal = await corp.offer(method="device")
    assert terminal.started.method == "device"
    assert terminal.started.code in terminal.started.url
    await answer_device(corp.browser(), terminal.started, "ada")
    assert isinstance(await terminal.outcome(), Enrolled)
    await terminal.agent.connect()
    assert corp.user_of(terminal.agent) == "corp.ada"


async def test_a_device_code_that_is_turned_down_signs_nobody_in(corp: SignInLab) -> None:
    terminal = await corp.offer(method="device")
    await answer_device(corp.browser(), terminal.started, "ada", deny="yes")
    refused = await terminal.outcome()
    assert isinstance(refused, Refused)
    assert refused.code == "sign_in_failed"


async def answer_device(browser: Browser, started: SignInStarted, account: str, **login: str) -> None:
    page = await browser.open(started.url)
    for _ in range(6):
        if not forms_of(page):
            return
        if "/interaction/" in str(page.url):
            page = await browser.submit(page, account=account, **login)
        else:
            page = await browser.submit(page)


# ------------------------------------------------------------------ step-up


async def test_step_up_lets_a_waiting_flow_go_on(corp: SignInLab) -> None:
    await corp.world.connector()
    agent = await corp.sign_in("ada")
    agent.send(POSTGRES)
    assert (await agent.receive(Refused)).code == "step_up_required"
    agent.send(StepUp(ref=7))
    started = await agent.receive(SignInStarted)
    assert started.ref == 7
    browser = corp.browser()
    await corp.walk(
        started, "ada", browser=browser
    )  # the provider was asked for `acr_values`, and the form brings the first of them
    wanted = next(url for url in browser.way if urlsplit(url).path == "/auth")
    assert "prompt=login" in wanted
    assert "max_age=0" in wanted
    assert MFA.replace(":", "%3A") in wanted
    signed_in = await agent.receive(SignedIn)
    assert (signed_in.ref, signed_in.strength) == (7, "mfa")
    assert (await agent.receive(Session)).ref == 2  # the very question that was refused before
    assert [row["target"] for row in await corp.audit("agent.step_up")] == [agent.id]


async def test_step_up_says_anew_in_which_groups_the_person_is(corp: SignInLab) -> None:
    """A sign-in is a sign-in: what the provider has taken away since the first one ends at once, and what it gave counts."""
    await corp.world.connector()
    await corp.world.apply("{kind: group, name: corp.late}")
    agent = await corp.sign_in()
    agent.send(WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp"))
    session = await agent.receive(Session)
    await corp.idp.set_account("ada", name="Ada Example", groups=["late"])
    agent.send(StepUp(ref=7))
    await corp.walk(await agent.receive(SignInStarted))
    ended = await agent.receive(EndSession)
    assert (ended.sessions, ended.code) == ([session.session], "group_changed")
    state = corp.world.running.state
    assert state.membership.groups_of("user", "corp.ada") == {"corp.late"}


async def test_case_15_step_up_completed_by_another_person_is_refused_and_recorded(corp: SignInLab) -> None:
    agent = await corp.sign_in("ada")
    before = corp.world.running.state.agents[agent.id]
    agent.send(StepUp(ref=7))
    page = await corp.walk(await agent.receive(SignInStarted), "eve", acr=HARDWARE)
    assert page.status_code == 403
    refused = await agent.receive(Refused)
    assert (refused.ref, refused.code) == (7, "sign_in_mismatch")
    assert corp.world.running.state.agents[agent.id].sign_in_strength == before.sign_in_strength
    assert any(row["code"] == "sign_in_mismatch" for row in await corp.audit("sign_in"))
    assert await corp.audit("agent.step_up") == []


async def test_case_12_step_up_that_is_too_weak_changes_nothing(corp: SignInLab) -> None:
    await corp.world.connector()
    agent = await corp.sign_in("ada")
    before = corp.world.running.state.agents[agent.id]
    agent.send(POSTGRES)
    await agent.receive(Refused)
    agent.send(StepUp(ref=7))
    page = await corp.walk(await agent.receive(SignInStarted), "ada", acr="", amr="pwd mfa")
    assert page.status_code == 403
    refused = await agent.receive(Refused)
    assert (refused.ref, refused.code) == (7, "step_up_required")
    assert corp.world.running.state.agents[agent.id].signed_in_at == before.signed_in_at


async def test_step_up_is_one_at_a_time_for_a_client(corp: SignInLab) -> None:
    agent = await corp.sign_in("ada")
    agent.send(StepUp(ref=7))
    await agent.receive(SignInStarted)
    agent.send(StepUp(ref=8))
    refused = await agent.receive(Refused)
    assert (refused.ref, refused.code) == (8, "conflict")


async def test_a_local_account_has_no_provider_to_step_up_at(corp: SignInLab) -> None:
    agent = await corp.world.client("ada")
    agent.send(StepUp(ref=7))
    assert (await agent.receive(Refused)).code == "sign_in_failed"


async def test_a_session_ends_when_the_sign_in_is_too_old_and_comes_back_after_a_new_one(corp: SignInLab) -> None:
    await corp.world.connector()
    await corp.world.apply(corp.idp.document(max_age="12h"))
    agent = await corp.sign_in("ada", acr=MFA, ts=str(int(time.time()) - 3540))
    agent.send(POSTGRES)
    await agent.receive(Session)
    corp.world.clock.offset += 61
    assert (await agent.receive(EndSession)).code == "step_up_required"
    agent.send(POSTGRES)
    assert (await agent.receive(Refused)).code == "step_up_required"


# ------------------------------------------------------------------ leaving


async def test_logout_at_the_provider_ends_exactly_the_sign_ins_of_that_session(corp: SignInLab) -> None:
    """A real back-channel logout: the person leaves at the provider, and clients of that session are signed out here."""
    await corp.world.connector()
    first_browser = corp.browser()
    leaving = await corp.sign_in("ada", browser=first_browser)
    staying, other = await corp.sign_in("ada"), await corp.sign_in("eve")
    leaving.send(JUPYTER)
    await leaving.receive(Session)
    page = await first_browser.open(f"{corp.idp.issuer}/session/end?client_id=corp")
    await first_browser.submit(page, logout="yes")
    assert (await leaving.receive(EndSession)).code == "signed_out"
    await eventually(lambda: not leaving.up)
    agents = corp.world.running.state.agents
    assert agents[leaving.id].revoked_at is not None
    assert agents[staying.id].revoked_at is None
    assert agents[other.id].revoked_at is None
    assert any(row["actor"] == "provider:corp" for row in await corp.audit("sign_out"))


async def test_a_person_signs_out_here(corp: SignInLab) -> None:
    agent = await corp.sign_in("ada")
    agent.send(SignOut(ref=9))
    signed_out = await agent.receive(SignedOut)
    assert signed_out.ref == 9
    assert signed_out.url.startswith(f"{corp.idp.issuer}/session/end?client_id=corp")
    await eventually(lambda: not agent.up)
    assert corp.world.running.state.agents[agent.id].revoked_at is not None


async def test_whoever_could_not_be_signed_out_is_not_told_that_they_were(corp: SignInLab) -> None:
    agent = await corp.sign_in("ada")
    with contextlib.closing(sqlite3.connect(corp.world.running.settings.database)) as database:
        database.execute("CREATE TRIGGER full BEFORE UPDATE ON agents BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    agent.send(SignOut(ref=9))
    assert (await agent.receive(Refused)).code == "internal"
    assert not agent.take(SignedOut)
    assert corp.world.running.state.agents[agent.id].revoked_at is None


# ------------------------------------------------------------------ administrators


async def test_an_administrator_signs_in_at_a_provider(corp: SignInLab) -> None:
    http = corp.world.api.http
    await corp.sign_in("ada")
    await corp.world.api.ok("PUT", "/users/corp.ada/role", json={"role": "admin"})
    offer = (await http.post("/api/v1/sign-in/provider", json={"provider": "corp", "device": "desk"})).json()
    started = SignInStarted(url=offer["url"], code=offer["code"], expires=offer["expires_at"])
    waiting = asyncio.ensure_future(http.post("/api/v1/sign-in/wait", json={"secret": offer["secret"]}))
    page = await corp.walk(started)
    assert "You are signed in" in page.text
    answer = (await waiting).json()
    assert (answer["user"], answer["role"]) == ("corp.ada", "admin")
    headers = {"authorization": f"Bearer {answer['token']}"}
    assert (await http.get("/api/v1/users", headers=headers)).status_code == 200
    again = await http.post("/api/v1/sign-in/wait", json={"secret": offer["secret"]})
    assert again.json()["code"] == "sign_in_expired"
    assert (await http.post("/api/v1/sign-in/wait", json={"secret": "made up"})).json()["code"] == "sign_in_expired"


async def test_somebody_new_who_signs_in_to_the_api_is_a_user_without_rights(corp: SignInLab) -> None:
    http = corp.world.api.http
    offer = (await http.post("/api/v1/sign-in/provider", json={})).json()
    await corp.walk(SignInStarted(url=offer["url"], code=offer["code"], expires=offer["expires_at"]), "eve")
    answer = (await http.post("/api/v1/sign-in/wait", json={"secret": offer["secret"]})).json()
    assert (answer["user"], answer["role"]) == ("corp.eve", "user")
    assert (await http.get("/api/v1/users", headers={"authorization": f"Bearer {answer['token']}"})).status_code == 403


async def test_without_a_provider_there_is_nothing_to_wait_for(corp: SignInLab) -> None:
    await corp.world.apply(corp.idp.document(disabled=True))
    agent = corp.world.agent("client")
    refused = await agent.ask_enrolment(EnrolBySignIn(csr=agent.csr()))
    assert isinstance(refused, Refused)
    assert refused.code == "sign_in_failed"


async def test_the_client_secret_is_shown_by_nothing(corp: SignInLab) -> None:
    api = corp.world.api
    texts = [await api.ok("GET", path) for path in ("/documents", "/audit", "/identity-providers", "/identity-providers/corp")]
    assert SECRET not in str(texts)
    stored = list((corp.world.running.settings.data / "secrets").iterdir())
    assert [path.stat().st_mode & 0o777 for path in stored] == [0o600]
