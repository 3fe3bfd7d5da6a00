"""From a row to what is done and what must be seen. Pure: no row is known by its id, everything follows from its keys.

A plan is a list of steps in order, of three sorts: what people do (sign in, hold a session open), what an administrator, a directory or a
signal changes, and what is checked at the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from exam.rows import PLACES, Row

Party = Literal["subject", "elsewhere", "real", "hostile"]
Level = Literal["full", "limited"]
Deed = Literal[
    "sign_in",  # with the credentials that are right now
    "be_signed_in",  # from before
    "sign_in_badly",  # with wrong, old or blocked ones: it must fail
    "require_sign_in",  # what was signed in is signed out: whoever goes on must sign in again
    "be_signed_in_briefly",  # with a proof that ends soon, and must be renewed
    "sign_in_again",  # while the session is open, and nothing of it ends
    "fail_to_sign_in_again",  # the same, but whoever vouches does not
    "hold",  # open everything that the party may open, and keep it open
    "lose_compliance",
    "be_refused",  # ask for what is not to be had now
    "regain_compliance",
    "resource_loses_compliance",
    "endpoint_fails",  # the device cannot prove itself any more
    "resource_fails",
    "seen_twice",  # the same identity signs in elsewhere while it is in use: `party` is the newcomer
    "report_theft",  # new credentials; all that the old ones opened ends
    "report_theft_elsewhere",  # the same, but the identity is in use at another place than the reporter's: it is reduced
    "flag_credential",
    "flag_endpoint",
    "grant",  # the temporary right
    "take_back",  # the rights that the party has
    "suspect_endpoint",  # the detection speaks of the device
    "suspect_person",  # the detection speaks of the person
    "overreach",  # ask for what one may not have: it is refused and recorded, and the detection speaks
    "deactivate",
    "ask_step_up",  # ask for the action that needs a stronger sign-in: it is refused, and the session goes on
    "step_up",
    "fail_step_up",
    "leave_hours",
]
FULL_RIGHTS: dict[str, dict[str, Level]] = {
    "1": {"RSS1": "full", "RSS2": "full", "RSS3": "limited"},
    "2": {"RSS2": "limited"},
    "3": {},
    "6": {"RSS1": "full"},
    "7": {"RSS1": "full"},
    "federated-full": {"RSS1": "full", "RSS2": "full"},
    "federated-limited": {"RSS1": "limited", "RSS2": "limited"},
    "federated-anywhere": {"RSS1": "full", "RSS2": "full"},
    "just-in-time": {"RSS1": "full", "RSS2": "full"},
    "service": {"RSS1": "full"},
}
"""What each profile may at best; the profiles of columns.md, and those that a scenario's text gives to identities without a number."""


@dataclass(frozen=True, slots=True)
class Step:
    deed: Deed
    party: Party


@dataclass(frozen=True, slots=True)
class Asker:
    """One side of a row: who asks, from what device, where. `second` is another device of the same sort than the rightful one."""

    person: str
    rights: str
    device: str
    place: str
    second: bool = False


@dataclass(frozen=True, slots=True)
class Expected:
    party: Party
    outcome: str


@dataclass(frozen=True, slots=True)
class Plan:
    askers: dict[Party, Asker]
    resource: str
    resource_place: str
    steps: tuple[Step, ...]
    expected: tuple[Expected, ...]
    notes: tuple[str, ...] = field(default=())
    forbidden_place: str = ""  # where the resource is that the party may not have, if the row has one

    def best(self, party: Party) -> Level | None:
        """The best that the party's profile may have of the resource."""
        if any(step == Step("step_up", party) for step in self.steps):
            return "full"
        return FULL_RIGHTS[self.askers[party].rights].get(self.resource)

    def held(self, party: Party) -> Level | None:
        """The best of what the party opens while nothing is wrong; a device that is not the enterprise's may take the right to write away."""
        asker, best = self.askers[party], FULL_RIGHTS[self.askers[party].rights].get(self.resource)
        reads_only = asker.device == "guest" or (asker.device, asker.rights) == ("byod", "federated-full")
        return "limited" if best == "full" and reads_only else best


class NotUnderstood(Exception):
    """The row asks something that this examination has no situation for."""


def plan(row: Row) -> Plan:
    if row.problems:
        raise NotUnderstood("; ".join(row.problems))
    two = "outcome_real" in row.inputs or "outcome_hostile" in row.inputs
    return _two_requests(row) if two else _one_request(row)


OF_ANYBODY = frozenset(
    {
        "id_type",
        "subject_type",
        "resource_location",
        "resource_platform",
        "requested_access",
        "resource_compliant",
        "auth_resource",
        "endpoint_type",
        "endpoint_compliant",
        "subject_compliant",
        "auth_endpoint",
        "credential_status",
        "endpoint_status",
        "onboarded",
    }
)
OF_ONE = OF_ANYBODY | {"subject_location", "subject_platform", "auth_user", "auth_subject", "authorized", "outcome"}
OF_A_PERSON = OF_ONE | {
    "user_profile",
    "out_of_hours",
    "reported_stolen",
    "privilege_provisioned",
    "step_up_success",
}
OF_WHO_OVERREACHES = frozenset({"unauthorized_resource_location", "unauthorized_resource_platform"})
OF_TWO = OF_ANYBODY | {
    "user_profile",
    "real_location",
    "hostile_location",
    "auth_real",
    "auth_hostile",
    "reported_stolen",
    "outcome_real",
    "outcome_hostile",
}
UNTROUBLED = {
    "endpoint_compliant": True,
    "subject_compliant": True,
    "resource_compliant": True,
    "auth_endpoint": "A",
    "auth_resource": "A",
    "credential_status": "active",
    "endpoint_status": "active",
    "onboarded": True,
}
"""What is so in a row of two requests whether it says it or not."""


def _check_asked(row: Row, asked: frozenset[str]) -> None:
    """No input may be without effect: a row that is passed has been asked in whole."""
    for key in row.inputs:
        if key not in asked:
            raise NotUnderstood(f"`{key}` does not go with the rest of this row")


def _one_of(row: Row, *keys: str) -> Any:
    """What several columns say of the same thing."""
    said = {key: row.get(key) for key in keys if row.get(key) is not None}
    if len(set(said.values())) > 1:
        raise NotUnderstood(f"{' and '.join(f'`{key}`' for key in said)} say different things")
    return next(iter(said.values()), None)


# ------------------------------------------------------------------ one request


def _one_request(row: Row) -> Plan:
    asked = OF_ONE if _is_service(row) else OF_A_PERSON
    _check_asked(row, asked | OF_WHO_OVERREACHES if _deed_of_title(row) == "overreach" else asked)
    asker = _asker(row)
    steps = tuple(Step(deed, "subject") for deed in _deeds(row))
    expected = (Expected("subject", row.get("outcome")),)
    place = row.get("resource_location") or "on_prem"
    forbidden = row.get("unauthorized_resource_location") or place
    askers: dict[Party, Asker] = {"subject": asker}
    if row.get("outcome") == "terminate_all":  # which is more than the one that the row speaks of
        askers["elsewhere"] = replace(asker, place=next(place for place in PLACES if place != asker.place))
        steps = (Step("be_signed_in", "elsewhere"), Step("hold", "elsewhere"), *steps)
    return Plan(askers, _resource(row), place, steps, expected, tuple(_notes(row)), forbidden)


def _is_service(row: Row) -> bool:
    kinds = {row.get("id_type"), row.get("subject_type")} - {None}
    if "service" in kinds and kinds != {"service"}:
        raise NotUnderstood("a service is no person")
    return kinds == {"service"}


def _device(row: Row) -> str:
    """`subject_type` tells the device in some tables. What should be enrolled and is not is like a guest's."""
    told = {row.get("endpoint_type"), row.get("subject_type")} & {"enterprise", "byod", "guest"}
    if len(told) > 1 or row.get("subject_type") == "resource":
        raise NotUnderstood("it is not told what kind of device asks")
    device = "guest" if row.get("onboarded") is False else next(iter(told), "enterprise")
    if device == "guest" and _one_of(row, "endpoint_compliant", "subject_compliant") is True:
        raise NotUnderstood("nobody can say of a device that is not enrolled that it complies")
    return str(device)


def _asker(row: Row) -> Asker:
    kind, profile = row.get("id_type"), row.get("user_profile")
    place = row.get("subject_location") or "on_prem"
    device = _device(row)
    if _is_service(row):
        if device != "enterprise":
            raise NotUnderstood(f"a service has no device of the kind `{device}`")
        may = row.get("authorized") is not False or row.during_session
        return Asker("service-known" if may else "service-unknown", "service", "enterprise", place)
    if kind not in (None, "enterprise", "other", "federated"):
        raise NotUnderstood(f"`{kind}` is no identity that this fixture has")
    if profile is not None and (kind == "federated" or {"E": "enterprise", "O": "other"}[profile[0]] != (kind or _origin(profile))):
        raise NotUnderstood(f"an identity of the kind `{kind}` has no profile `{profile}`")
    if profile is not None and profile[1] not in FULL_RIGHTS:
        raise NotUnderstood(f"profile `{profile}` is one for the internet, which is not behind this broker")
    letter = profile[0].lower() if profile is not None else "o" if kind == "other" else "e"
    if row.get("privilege_provisioned") is not None:  # whatever else they may, this right is temporary
        if kind == "federated":
            raise NotUnderstood("no federated identity works on demand here")
        return Asker(f"{letter}-temporary", "just-in-time", device, place)
    if kind == "federated":
        rights = _federated(row, device)
        return Asker(rights, rights, device, place)
    number = "1" if profile is None else profile[1]
    if profile is None and _deed_of_title(row) == "overreach" and device != "guest":
        number = "2"  # who has no right to something
    if number == "3" and (row.during_session or _came_before(row)):  # active until the account is deactivated
        number = "1"
    person = f"{letter}-step-up-{number}" if _proves_again(row) and number != "3" else f"{letter}{number}"
    return Asker(person, number, device, place)


def _origin(profile: str) -> str:
    return "enterprise" if profile.startswith("E") else "other"


def _proves_again(row: Row) -> bool:
    """Whether the person proves who they are once more while a session is open: such people have an identity provider."""
    return row.get("step_up_success") is not None or (row.during_session and _sign_in_of(row) in ("RA+", "RA-", "A-"))


def _sign_in_of(row: Row) -> Any:
    return _one_of(row, "auth_user", "auth_subject")


def _came_before(row: Row) -> bool:
    return _sign_in_of(row) in (None, "A", "RA+", "RA-")


def _federated(row: Row, device: str) -> str:
    """By configuration, says the scenario, the requester has full or limited access; the stolen-credential tables speak of own devices with full."""
    if row.title.lower().startswith("limited"):
        return "federated-limited"
    own_in_full = device == "byod" and row.get("credential_status") is not None
    return "federated-anywhere" if own_in_full else "federated-full"


def _resource(row: Row) -> str:
    asked = row.get("requested_access")
    if row.get("step_up_success") is not None:
        return "RSS3"  # what has an action that needs more than the rest
    if asked is None:
        if _device(row) == "guest":
            return "RSS3"
        return "RSS2" if _deed_of_title(row) == "overreach" else "RSS1"
    if asked not in ("RSS1", "RSS2"):
        raise NotUnderstood(f"`{asked}` is on the internet, which is not behind this broker")
    return str(asked)


def _deeds(row: Row) -> list[Deed]:
    if row.during_session:
        before: Deed = "be_signed_in_briefly" if _is_service(row) and _sign_in_of(row) in ("RA-", "A-") else "be_signed_in"
        granted: list[Deed] = [] if row.get("privilege_provisioned") is None else ["grant"]
        return [before, *granted, "hold", *_losses(row), *_changes(row), *_sign_ins(row, standing=True)]
    granted = ["grant"] if row.get("privilege_provisioned") else []
    report: list[Deed] = ["report_theft"] if row.get("reported_stolen") is True else []
    if report and _sign_in_of(row) in (None, "A"):
        return [*_sign_ins(row, standing=False), *granted, *_losses(row), *report, *_changes(row)]
    return [*report, *_sign_ins(row, standing=False), *granted, *_losses(row), *_changes(row)]


def _sign_ins(row: Row, *, standing: bool) -> list[Deed]:
    """What happens to the sign-in. Without a column the person, or the service, is signed in. `standing`: the party was signed in before."""
    if standing and row.get("step_up_success") is not None:
        return []  # that is the sign-in
    before: list[Deed] = [] if standing else ["be_signed_in"]
    deactivated: list[Deed] = ["deactivate"] if _is_deactivated(row) and not standing else []
    match _sign_in_of(row):
        case "RA+" if standing:
            return ["sign_in_again"]
        case "RA-" | "A-" if standing:
            return ["fail_to_sign_in_again"]
        case "RA+":
            return [*before, *deactivated, "require_sign_in", "sign_in"]
        case "RA-":
            return [*before, *deactivated, "require_sign_in", "sign_in_badly"]
        case "A-":
            return ["sign_in_badly"]
        case "A+" if not standing:
            return ["sign_in"]
        case "A" | None:
            return [*before, *deactivated]
        case _:
            return before


def _is_deactivated(row: Row) -> bool:
    return str(row.get("user_profile"))[1:] == "3"


def _losses(row: Row) -> list[Deed]:
    """Rights that are taken away from who had them."""
    no_service_yet = _is_service(row) and not row.during_session  # which one asks tells its rights
    told: tuple[tuple[bool, Deed], ...] = (
        (row.get("privilege_provisioned") is False and row.during_session, "take_back"),
        (row.get("authorized") is False and not no_service_yet, "take_back"),
        (_is_deactivated(row) and row.during_session, "deactivate"),
    )
    return list(dict.fromkeys(deed for holds, deed in told if holds))


def _changes(row: Row) -> list[Deed]:
    complies = _one_of(row, "endpoint_compliant", "subject_compliant")
    improves: list[Deed] = ["lose_compliance", "be_refused", "regain_compliance"]
    told: tuple[tuple[bool, Deed], ...] = (
        (complies is False, "lose_compliance"),
        (row.get("resource_compliant") is False, "resource_loses_compliance"),
        (row.get("auth_endpoint") in ("A-", "RA-"), "endpoint_fails"),
        (row.get("auth_resource") in ("A-", "RA-"), "resource_fails"),
        (row.get("credential_status") == "flagged_stolen", "flag_credential"),
        (row.get("endpoint_status") == "flagged_stolen", "flag_endpoint"),
        (row.get("reported_stolen") is True and row.during_session, "report_theft"),
        (row.get("out_of_hours") is True, "leave_hours"),
        (row.get("step_up_success") is not None, "ask_step_up"),
        (row.get("step_up_success") is True, "step_up"),
        (row.get("step_up_success") is False, "fail_step_up"),
    )
    titled = _deed_of_title(row)
    return [
        *(improves if row.between_requests and complies is True else []),
        *(deed for holds, deed in told if holds),
        *([titled] if titled is not None else []),
    ]


TITLES: tuple[tuple[str, Deed], ...] = (
    ("suspicious endpoint", "suspect_endpoint"),
    ("use policy", "suspect_person"),
    ("unauthorized access", "overreach"),
)


def _deed_of_title(row: Row) -> Deed | None:
    """What happens in a scenario whose tables have no column for it."""
    return next((deed for words, deed in TITLES if words in row.title.lower()), None)


# ------------------------------------------------------------------ two requests with one identity


def _two_requests(row: Row) -> Plan:
    profile = row.get("user_profile")
    _check_asked(row, OF_TWO)
    for key, value in UNTROUBLED.items():
        if row.get(key) not in (None, value):
            raise NotUnderstood(f"`{key}` is not asked of two requests")
    kind = row.get("id_type")
    if profile is None or profile[1] not in FULL_RIGHTS or kind not in (None, _origin(profile)):
        raise NotUnderstood(f"two requests of profile `{profile}` and an identity of the kind `{kind}` are not in the fixture")
    for party in ("real", "hostile"):
        if row.get(f"outcome_{party}") is not None and row.get(f"auth_{party}") is None:
            raise NotUnderstood(f"something is expected of a {party} request that is not made")
    device = _device(row)
    places = {"real": row.get("real_location") or "on_prem", "hostile": row.get("hostile_location") or "on_prem"}
    askers: dict[Party, Asker] = {
        "real": Asker(profile.lower(), profile[1], device, places["real"]),
        "hostile": Asker(profile.lower(), profile[1], device, places["hostile"], second=True),
    }
    expected = tuple(
        Expected(party, row.get(f"outcome_{party}")) for party in ("real", "hostile") if row.get(f"outcome_{party}") is not None
    )
    steps = tuple(_two_deeds(row, apart=places["real"] != places["hostile"]))
    return Plan(askers, _resource(row), row.get("resource_location") or "on_prem", steps, expected, tuple(_notes(row)))


def _two_deeds(row: Row, *, apart: bool) -> Iterator[Step]:
    """`A` beside another value: that party holds a session when the other one signs in. With nobody signing in, the report is the event."""
    parties: tuple[Party, Party] = ("real", "hostile")
    sign_ins = {party: row.get(f"auth_{party}") for party in parties}
    events = [party for party in parties if sign_ins[party] not in (None, "A")]
    reported = row.get("reported_stolen") is True
    standing = [party for party in parties if sign_ins[party] == "A"]
    if reported and events:
        if "hostile" in standing:  # what the thief opened is older than the report; the rightful user works with what came after it
            yield from _stand("hostile")
            standing.remove("hostile")
        yield Step("report_theft", "real")
    for party in standing:
        yield from _stand(party)
    for party in events:
        other = parties[1 - parties.index(party)]
        yield from _event(sign_ins[party], party, in_use=other in standing, stale=reported and party == "hostile")
    if reported and not events:
        yield Step("report_theft_elsewhere" if apart else "report_theft", "real")


def _stand(party: Party) -> Iterator[Step]:
    yield Step("be_signed_in", party)
    yield Step("hold", party)


def _event(sign_in: str, party: Party, *, in_use: bool, stale: bool) -> Iterator[Step]:
    """`stale`: the credentials were replaced, and this party has the old ones only."""
    if sign_in.startswith("RA") and not stale:
        yield Step("be_signed_in", party)
        yield Step("require_sign_in", party)
    if sign_in.endswith("-") or stale:
        yield Step("sign_in_badly", party)
        return
    yield Step("sign_in", party)
    if in_use:
        yield Step("seen_twice", party)


def _notes(row: Row) -> Iterator[str]:
    reported_alone = row.get("reported_stolen") is True and {row.get("auth_real"), row.get("auth_hostile")} == {None, "A"}
    if reported_alone:
        yield "the print is odd here (columns.md): cut where both parties stand at one place, reduced where they do not"
    if row.get("step_up_success") is not None and row.get("requested_access") is not None:
        yield "the action that needs a stronger sign-in is one of RSS3"
    if _deed_of_title(row) is not None:
        yield "what was violated is found elsewhere; its signal to the exchange is the event"
