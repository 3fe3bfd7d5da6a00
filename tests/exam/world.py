"""The world of the examination while a row is put through it: what people do, what an administrator or a signal changes, and how it is undone.

Nothing here knows a row. Every change is put back after it, over the same API; processes, resources, rules and standing sign-ins stay.
"""

import functools
import itertools
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from exam.flows import ANSWER_WAIT, REFUSAL_WAIT, Flow, open_flow
from exam.places import Places, fixture
from exam.programs import PROOF_LASTS
from exam.providers import STRONG, Browser
from exam.rows import PLACES
from exam.services import Service
from exam.situation import Asker, Level

BRIEFLY = 4  # seconds
WRONG = "not the password of anybody"
LEVELS: tuple[Level, Level] = ("full", "limited")
ATTEMPTS_WAIT = 70.0
REPORT_LASTS = 86400
MANAGER = "manager"
CONTROL = "e1"
NOT_READY = "timeout"
DETECTION = "detection"
FORBIDDEN = "RSS1"  # to whoever may read RSS2 only
NOON = 12  # UTC: when the early shift of the fixture ends and the late one begins


class Unfit(Exception):
    """Something that had to work for the row to be asked did not."""


class World:
    def __init__(self, places: Places) -> None:
        self._places = places
        self._api = places.deployment
        documents = fixture()
        self._documents = {(document["kind"], document["name"]): document for document in documents}
        self._segments = {
            (document["labels"]["resource"], document["labels"]["place"], document["labels"]["level"]): document
            for document in documents
            if document["kind"] == "segment"
        }
        self._passwords: dict[str, str] = {}
        self._agents: dict[tuple[str, str], str] = {}  # device at a place → the agent that is signed in there
        self._standing_in: dict[tuple[str, str], str] = {}  # device at a place → the device that plays it in this row
        self._browsers: dict[tuple[str, str], Browser] = {}
        self._strangers = 0
        self._managers_token = ""
        self._granted: list[str] = []  # ids of requests
        self._refused = ""
        self._undo: list[Callable[[], object]] = []
        self.flows: dict[tuple[Asker, Level], Flow] = {}

    def prepare(self) -> None:
        """Passwords for everybody: documents hold none."""
        for kind, name in self._documents:
            if kind == "user" and self._provider(name) is None:
                self._set_password(name)
            if kind == "device":
                self._report(name, compliant=True)

    def control(self) -> None:
        """Whatever may be had answers from everywhere: what is refused in between is refused by the exchange. Raises Unfit."""
        for place in PLACES:
            asker = Asker(CONTROL, "1", "enterprise", place)
            self.be_signed_in(asker)
            for resource, where, level in self._segments:
                if (resource, level) != ("RSS3", "full"):  # which needs a stronger sign-in
                    self._open_in_time(asker, resource, where, level).close()

    def put_back(self) -> list[str]:
        """As it was before the row; what could not be put back is told, and the rest is all the same."""
        for flow in self.flows.values():
            flow.close()
        self.flows.clear()
        self._standing_in.clear()
        failed = []
        while self._undo:
            try:
                self._undo.pop()()
            except Exception as error:  # noqa: BLE001  one change that stays must not keep the others
                failed.append(str(error))
        return failed

    # ------------------------------------------------------------ people

    def be_signed_in(self, asker: Asker) -> None:
        """Signed in before this row."""
        if self._key(asker) not in self._agents:
            self.sign_in(asker)

    def be_signed_in_briefly(self, asker: Asker) -> None:
        """With a token that was issued long ago: what it vouches for ends in a moment."""
        if not self._try_sign_in(asker, "", issued=int(time.time()) - PROOF_LASTS + BRIEFLY):
            raise Unfit(f"`{asker.person}` cannot sign in: {self._refused}")

    def sign_in(self, asker: Asker) -> None:
        if not self._try_sign_in(asker, self._passwords.get(asker.person, "")):
            raise Unfit(f"`{asker.person}` cannot sign in: {self._refused}")

    def sign_in_badly(self, asker: Asker, password: str = "") -> None:
        """It must fail: a wrong password, one that was replaced, or an account that is off. A device that somebody is signed in to on is not asked
        again: another one of the same sort is."""
        key = self._key(asker)
        if key in self._agents:
            self._strangers += 1
            self._standing_in[key] = f"{key[0]}-stranger-{self._strangers}"
        disabled = self._documents.get(("user", asker.person), {}).get("disabled")
        if self._try_sign_in(asker, password or (self._passwords[asker.person] if disabled else WRONG), revoked=True):
            raise Unfit(f"`{asker.person}` could sign in with credentials that are not right")

    def _try_sign_in(self, asker: Asker, password: str, *, revoked: bool = False, issued: int | None = None) -> bool:
        """A person with a password or at their provider, a service with a token. `revoked`: with what does not count, or not any more."""
        proof: dict[str, Any] = {"user": asker.person, "password": password}
        if self._provider(asker.person):
            return self._sign_in_at_provider(asker, deny=revoked)
        if ("workload", asker.person) in self._documents:
            proof = {"token": self._places.programs.token(asker.person, forged=revoked, issued=issued)}
        until = time.monotonic() + ATTEMPTS_WAIT
        while True:
            answer = self._places.devices(asker.place).ask("sign_in", self._device(asker), **proof)
            if answer["ok"] or answer["code"] != "too_many_attempts" or time.monotonic() > until:
                return self._is_in(asker, answer)
            time.sleep(1.0)  # many rows fail to sign in from one address: the exchange slows that down, and lets go within a minute

    def _is_in(self, asker: Asker, answer: dict[str, Any]) -> bool:
        key = self._key(asker)
        if not answer["ok"]:
            self._refused = answer["code"]
            return False
        self._agents[key] = answer["agent"]
        if self._is_known(asker):
            self._api.call("PUT", f"/agents/{answer['agent']}/device", {"device": self.device_document(asker)})
        return True

    def _provider(self, person: str) -> dict[str, Any] | None:
        return self._places.providers.of(self._documents.get(("user", person), {}))

    def _sign_in_at_provider(self, asker: Asker, *, deny: bool) -> bool:
        """With a browser of its own; it keeps the session at the provider for what comes later."""
        provider, devices, device = self._provider(asker.person), self._places.devices(asker.place), self._device(asker)
        assert provider is not None
        begun = devices.ask("begin", device, provider=provider["name"])
        if not begun["ok"]:
            return self._is_in(asker, begun)
        browser = self._browsers[self._key(asker)] = self._places.providers.browser()
        browser.sign_in(begun["url"], asker.person, acr="", **({"deny": "yes"} if deny else {}))
        return self._is_in(asker, devices.ask("finish", device))

    def require_sign_in(self, asker: Asker) -> None:
        """What was signed in does not count any more: it must be proved again."""
        key = self._key(asker)
        if agent := self._agents.pop(key, None):
            self._api.call("POST", f"/agents/{agent}/revoke")

    def sign_in_again(self, asker: Asker) -> None:
        """While the client runs: a program shows its next token, a person goes to the provider once more."""
        devices, device = self._places.devices(asker.place), self._device(asker)
        if ("workload", asker.person) in self._documents:
            before = self._vouched_until(asker)
            until = time.monotonic() + ANSWER_WAIT
            while not (proved := self._vouched_until(asker) > before) and time.monotonic() < until:
                devices.ask("prove", device, token=self._places.programs.token(asker.person))
                time.sleep(0.3)  # whole seconds are counted
        elif self._provider(asker.person):
            self._step_up(asker, acr="")
            proved = devices.ask("stepped_up", device)["ok"]
        else:
            raise Unfit(f"`{asker.person}` has a password of the exchange's own: to sign in again is to begin anew")
        if not proved:
            raise Unfit(f"`{asker.person}` could not sign in again")

    def fail_to_sign_in_again(self, asker: Asker) -> None:
        """A program has nothing but a token of somebody else's making, and its proof ends; a person is not recognised by the provider."""
        if ("workload", asker.person) not in self._documents:
            self.fail_step_up(asker)
            return
        devices, device, until = self._places.devices(asker.place), self._device(asker), self._vouched_until(asker)
        devices.ask("prove", device, token=self._places.programs.token(asker.person, forged=True))
        if not self.flows or not all(flow.goes_on() for flow in self.flows.values()):
            raise Unfit(f"the session of `{asker.person}` ended before its proof did")
        time.sleep(max(0.0, until - time.time()))  # the clock is what changes here
        if self._vouched_until(asker) != until:
            raise Unfit(f"`{asker.person}` could prove itself with a forged token")
        self._undo.append(lambda: self._agents.pop(self._key(asker), None))

    def _vouched_until(self, asker: Asker) -> int:
        """For how long the program that is signed in on the device has proved itself."""
        return int(self._api.call("GET", f"/agents/{self.agent(asker)}")["vouched_until"])

    def old_password(self, asker: Asker) -> str:
        return self._passwords.get(f"{asker.person} before", WRONG)

    # ------------------------------------------------------------ devices

    def device_document(self, asker: Asker) -> str:
        return f"{asker.person}-{asker.device}{'-2' if asker.second else ''}"

    def _is_known(self, asker: Asker) -> bool:
        return ("device", self.device_document(asker)) in self._documents

    def _key(self, asker: Asker) -> tuple[str, str]:
        return self.device_document(asker), asker.place

    def _device(self, asker: Asker) -> str:
        key = self._key(asker)
        return self._standing_in.get(key, key[0])

    def _signed_in(self, person: str) -> list[tuple[str, str]]:
        devices = {f"{person}-{kind}" for kind in ("enterprise", "byod", "guest")}
        return [key for key in self._agents if key[0].removesuffix("-2") in devices]

    def agent(self, asker: Asker) -> str:
        return self._agents[self._key(asker)]

    # ------------------------------------------------------------ flows

    def segment(self, resource: str, place: str, level: Level) -> dict[str, Any]:
        found: dict[str, Any] = self._segments[resource, place.replace("_", "-"), level]
        return found

    def service(self, resource: str, place: str, level: Level) -> Service:
        segment = self.segment(resource, place, level)
        return self._places.services[segment["hosts"][0], segment["ports"][0]]

    def open(self, asker: Asker, resource: str, place: str, level: Level, patience: float = ANSWER_WAIT) -> Flow | None:
        """A flow of this asker's, None where it is refused or does not come about."""
        segment = self.segment(resource, place, level)
        devices = self._places.devices(asker.place)
        answer = devices.ask("door", self._device(asker), host=segment["hosts"][0], port=segment["ports"][0])
        if not answer["ok"] and answer["code"] == NOT_READY:
            raise Unfit(f"the client of `{asker.person}` does not come up: nobody was refused anything")
        return open_flow(devices.machine, answer["address"], patience) if answer["ok"] else None

    def _open_in_time(self, asker: Asker, resource: str, place: str, level: Level) -> Flow:
        until = time.monotonic() + ANSWER_WAIT
        while not (flow := self.open(asker, resource, place, level)):
            if time.monotonic() > until:
                raise Unfit(f"{resource} at {place} does not answer, though `{asker.person}` may have it")
            time.sleep(0.02)
        return flow

    def hold(self, asker: Asker, resource: str, place: str, best: Level | None) -> None:
        """Everything up to the best. What was put back after the row before reaches the client over its link: until then it knows of nothing there."""
        until = time.monotonic() + ANSWER_WAIT
        wanted: tuple[Level, ...] = LEVELS if best == "full" else ("limited",)
        while lacking := [level for level in wanted if (asker, level) not in self.flows]:
            if time.monotonic() > until or best is None:
                raise Unfit(f"`{asker.person}` has no {lacking[0]} session to begin with")
            for level in lacking:
                if flow := self.open(asker, resource, place, level, REFUSAL_WAIT):
                    self.flows[asker, level] = flow

    # ------------------------------------------------------------ what an administrator, a directory or a signal changes

    def lose_compliance(self, asker: Asker) -> None:
        """As device management reports it."""
        name = self.device_document(asker)
        if not self._is_known(asker):
            return  # nothing vouches for a device that nobody knows
        self._undo.append(lambda: self._report(name, compliant=True))
        self._report(name, compliant=False)

    def regain_compliance(self, asker: Asker) -> None:
        self._report(self.device_document(asker), compliant=True)

    def resource_loses_compliance(self, resource: str, place: str) -> None:
        for level in LEVELS:
            self._label("segment", self.segment(resource, place, level)["name"], compliance="no")

    def endpoint_fails(self, asker: Asker) -> None:
        """Where nobody is signed in on it there is nothing that could end."""
        if self._key(asker) in self._agents:
            self._switch("agent", self.agent(asker), "the device did not prove itself")

    def resource_fails(self, resource: str, place: str) -> None:
        for level in LEVELS:
            self._switch("segment", self.segment(resource, place, level)["name"], "the resource did not prove itself")

    def seen_twice(self, newcomer: Asker) -> None:
        """The detection of doubled identities speaks: the identity is contested, the newcomer's device suspected."""
        self._add_member("contested", newcomer.person)
        self._label("device", self.device_document(newcomer), suspected="yes")

    def report_theft(self, asker: Asker) -> None:
        """New credentials, and all that the old ones opened ends."""
        if self._provider(asker.person) is None:
            self._set_password(asker.person)
        for key in self._signed_in(asker.person):
            self._api.call("POST", f"/agents/{self._agents.pop(key)}/revoke")
        self._api.call("POST", f"/users/{asker.person}/revoke-sessions")

    def report_theft_elsewhere(self, asker: Asker) -> None:
        """New credentials; who is still at work elsewhere can be told apart and is reduced until the next sign-in."""
        self._set_password(asker.person)
        self._add_member("contested", asker.person)

    def flag_credential(self, asker: Asker) -> None:
        """A program has no credential of its own: until the theft is dealt with, nobody is it."""
        program = self._documents.get(("workload", asker.person))
        if program is None:
            self._switch("user", asker.person, "the credential was reported stolen")
            return
        self._undo.append(lambda: self._put(program))
        self._put({**program, "disabled": True})
        self._agents.pop(self._key(asker), None)

    def flag_endpoint(self, asker: Asker) -> None:
        self._switch("device", self.device_document(asker), "the device was reported stolen")

    def suspect_endpoint(self, asker: Asker) -> None:
        """The detection speaks of the device; of one that nobody knows it can only say which client it saw."""
        if self._is_known(asker):
            self._raise_risk("device", self.device_document(asker))
        else:
            self._switch("agent", self.agent(asker), "the device scans the network")

    def suspect_person(self, asker: Asker) -> None:
        self._raise_risk("user", asker.person)

    def overreach(self, asker: Asker, place: str) -> None:
        """The person asks for what they may not have; the detection sees that at the endpoint and speaks."""
        service = self.service(FORBIDDEN, place, "full")
        before = service.settled()
        if self.open(asker, FORBIDDEN, place, "full", REFUSAL_WAIT) or service.traces != before:
            raise Unfit(f"`{asker.person}` may have what they must not have")
        self.suspect_person(asker)

    def _raise_risk(self, kind: str, name: str) -> None:
        self._undo.append(lambda: self._api.call("DELETE", f"/{kind}s/{name}/risk?source={DETECTION}"))
        self._api.call("PUT", f"/{kind}s/{name}/risk", {"score": 100, "source": DETECTION})

    def grant(self, asker: Asker, resource: str, place: str) -> None:
        """The person asks from their device, the manager approves; afterwards the manager takes it back."""
        token = self._manager()
        for level in LEVELS:
            segment = self.segment(resource, place, level)
            where = {"host": segment["hosts"][0], "port": segment["ports"][0]}
            answer = self._places.devices(asker.place).ask("request", self._device(asker), **where, reason="the order of today")
            if not answer["ok"]:
                raise Unfit(f"`{asker.person}` cannot ask for access: {answer['code']}")
            self._api.call("POST", f"/requests/{answer['id']}/approve", {"seconds": 600}, token=token)
            self._granted.append(answer["id"])
        self._undo.append(self._deny_what_was_granted)

    def _deny_what_was_granted(self) -> None:
        while self._granted:
            self._api.call("POST", f"/requests/{self._granted.pop()}/deny", {}, token=self._manager())

    def take_back(self, asker: Asker) -> None:
        """The right ends: the manager says no after all, or the person or the service leaves the groups that have it."""
        if self._granted:
            self._deny_what_was_granted()
            return
        groups = [document for (kind, _), document in self._documents.items() if kind == "group"]
        for group, members in itertools.product(groups, ("users", "workloads")):
            if asker.person in group.get(members, ()):
                self._undo.append(functools.partial(self._put, group))
                self._put({**group, members: [name for name in group[members] if name != asker.person]})

    def deactivate(self, asker: Asker) -> None:
        """As a directory does it. Before the account is switched on again the clients end: what they still wait for is none of the next row's."""
        keys = self._signed_in(asker.person)

        def put_back() -> None:
            for device, place in keys:
                self._places.devices(place).ask("stop", device)
                self._agents.pop((device, place), None)
            self._api.call("POST", f"/users/{asker.person}/enable")

        self._undo.append(put_back)
        self._api.call("POST", f"/users/{asker.person}/disable")

    def _manager(self) -> str:
        if not self._managers_token:
            answer = self._api.call("POST", "/sign-in", {"user": MANAGER, "password": self._passwords[MANAGER]})
            self._managers_token = answer["token"]
        return self._managers_token

    def step_up(self, asker: Asker) -> None:
        """With a second factor. Afterwards the device is signed out: the next row begins with a weaker sign-in."""
        self._undo.append(lambda: self.require_sign_in(asker))
        self._step_up(asker, acr=STRONG)

    def fail_step_up(self, asker: Asker) -> None:
        """The provider does not recognise the person, ends their session there, and tells the exchange (back-channel logout)."""
        provider = self._provider(asker.person)
        if provider is None:
            raise Unfit(f"`{asker.person}` has no identity provider to sign in at again")
        self._step_up(asker, deny="yes")
        self._browsers[self._key(asker)].leave(provider["issuer"], provider["client_id"])
        self._agents.pop(self._key(asker), None)

    def _step_up(self, asker: Asker, **answers: str) -> None:
        begun = self._places.devices(asker.place).ask("step_up", self._device(asker))
        if not begun["ok"]:
            raise Unfit(f"`{asker.person}` cannot sign in again: {begun['code']}")
        self._browsers[self._key(asker)].sign_in(begun["url"], asker.person, **answers)

    def leave_hours(self, asker: Asker) -> None:
        """The person's shift is the one that is off now."""
        self._add_member("early-shift" if datetime.now(UTC).hour >= NOON else "late-shift", asker.person)

    # ------------------------------------------------------------ what can be looked up

    def sessions_of(self, person: str) -> int:
        return len(self._api.call("GET", f"/sessions?user={person}"))

    def records(self, asker: Asker, since: datetime | None, **wanted: str) -> list[dict[str, Any]]:
        wanted["client"] = self.agent(asker)
        if since is not None:
            wanted["since"] = since.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        page: dict[str, Any] = self._api.call("GET", f"/records?{urlencode(wanted)}")
        return list(page["entries"])

    # ------------------------------------------------------------

    def _label(self, kind: str, name: str, **labels: str) -> None:
        document = self._documents[kind, name]
        self._undo.append(lambda: self._put(document))
        self._put({**document, "labels": {**document["labels"], **labels}})

    def _put(self, document: dict[str, Any]) -> None:
        self._api.call("PUT", f"/{document['kind']}s/{document['name']}", document)

    def _report(self, device: str, *, compliant: bool) -> None:
        """What the source `mdm` says of a device; it says no more than this."""
        facts = [{"name": "compliant", "value": compliant, "seconds": REPORT_LASTS}]
        self._api.call("PUT", f"/devices/{device}/facts/mdm", {"facts": facts})

    def _switch(self, scope: str, target: str, reason: str) -> None:
        made = self._api.call("POST", "/kill-switches", {"scope": scope, "target": target, "reason": reason})
        self._undo.append(lambda: self._api.call("DELETE", f"/kill-switches/{made['id']}"))

    def _add_member(self, group: str, person: str) -> None:
        self._undo.append(lambda: self._api.call("DELETE", f"/groups/{group}/members/{person}"))
        self._api.call("PUT", f"/groups/{group}/members/{person}")

    def _set_password(self, person: str) -> None:
        if person in self._passwords:
            self._passwords[f"{person} before"] = self._passwords[person]
        self._passwords[person] = secrets.token_urlsafe(18)
        self._api.call("PUT", f"/users/{person}/password", {"password": self._passwords[person]})
