"""From a row to what is done and what must be seen. Pure: no row is known by its id, everything follows from its keys.

A plan is a list of steps in order, of three sorts: what people do (sign in, hold a session open), what an administrator, a directory or a
signal changes, and what is checked at the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from exam.rows import Row

Party = Literal["subject", "real", "hostile"]
Level = Literal["full", "limited"]
Deed = Literal[
    "sign_in",  # with the credentials that are right now
    "be_signed_in",  # from before
    "sign_in_badly",  # with wrong, old or blocked ones: it must fail
    "require_sign_in",  # what was signed in is signed out: whoever goes on must sign in again
    "sign_in_again",  # while the session is open, and nothing of it ends
    "hold",  # open everything that the party may open, and keep it open
    "lose_compliance",
    "resource_loses_compliance",
    "endpoint_fails",  # the device cannot prove itself any more
    "resource_fails",
    "seen_twice",  # the same identity signs in elsewhere while it is in use: `party` is the newcomer
    "report_theft",  # new credentials; all that the old ones opened ends
    "report_theft_elsewhere",  # the same, but the identity is in use at another place than the reporter's: it is reduced
    "flag_credential",
    "flag_endpoint",
    "grant",  # the temporary right
    "take_back",  # the right that the session stands on
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

    def best(self, party: Party) -> Level | None:
        """The best that the party's profile may have of the resource."""
        return FULL_RIGHTS[self.askers[party].rights].get(self.resource)


class NotUnderstood(Exception):
    """The row asks something that this examination has no situation for."""


def plan(row: Row) -> Plan:
    if row.problems:
        raise NotUnderstood("; ".join(row.problems))
    two = "outcome_real" in row.inputs or "outcome_hostile" in row.inputs
    return _two_requests(row) if two else _one_request(row)


# ------------------------------------------------------------------ one request


def _one_request(row: Row) -> Plan:
    asker = _asker(row)
    resource = _resource(row)
    steps = tuple(Step(deed, "subject") for deed in _deeds(row))
    expected = (Expected("subject", row.get("outcome")),)
    return Plan({"subject": asker}, resource, row.get("resource_location") or "on_prem", steps, expected, tuple(_notes(row)))


def _asker(row: Row) -> Asker:
    kind, profile = row.get("id_type"), row.get("user_profile")
    place = row.get("subject_location") or "on_prem"
    if kind == "service" or row.get("subject_type") == "service":
        may = row.get("authorized") is not False or row.during_session
        return Asker("service-known" if may else "service-unknown", "service", "enterprise", place)
    device = row.get("endpoint_type") or "enterprise"
    letter = profile[0].lower() if profile is not None else "o" if kind == "other" else "e"
    if row.get("privilege_provisioned") is not None:  # whatever else they may, this right is temporary
        return Asker(f"{letter}-temporary", "just-in-time", device, place)
    if kind != "federated" and _proves_again(row) and (profile is None or profile[1] in "12"):
        number = "1" if profile is None else profile[1]
        return Asker(f"{letter}-step-up-{number}", number, device, place)
    if profile is not None:
        if profile[1] not in FULL_RIGHTS:
            raise NotUnderstood(f"profile `{profile}` is one for the internet, which is not behind this broker")
        if profile[1] == "3" and row.during_session:  # active until the account is deactivated under the open session
            profile = f"{profile[0]}1"
        return Asker(profile.lower(), profile[1], device, place)
    if kind == "federated":
        rights = _federated(row, device)
        return Asker(rights, rights, device, place)
    if kind not in (None, "enterprise", "other"):
        raise NotUnderstood(f"`{kind}` is no identity that this fixture has")
    return Asker(f"{letter}1", "1", device, place)


def _proves_again(row: Row) -> bool:
    """Whether the person proves who they are once more while a session is open: such people have an identity provider."""
    return row.get("step_up_success") is not None or (row.during_session and row.get("auth_user") == "RA+")


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
        return "RSS3" if row.get("endpoint_type") == "guest" else "RSS1"
    if asked not in ("RSS1", "RSS2"):
        raise NotUnderstood(f"`{asked}` is on the internet, which is not behind this broker")
    return str(asked)


def _deeds(row: Row) -> list[Deed]:
    if row.during_session:
        granted: list[Deed] = [] if row.get("privilege_provisioned") is None else ["grant"]
        return ["be_signed_in", *granted, "hold", *_losses(row), *_changes(row), *_sign_ins(row, standing=True)]
    granted = ["grant"] if row.get("privilege_provisioned") else []
    return [*_sign_ins(row, standing=False), *granted, *_changes(row)]


def _sign_ins(row: Row, *, standing: bool) -> list[Deed]:
    """What happens to the sign-in. Without a column the person, or the service, is signed in. `standing`: the party was signed in before."""
    before: list[Deed] = [] if standing else ["be_signed_in"]
    match row.get("auth_user") or row.get("auth_subject"):
        case "RA+" if standing:
            return ["sign_in_again"]
        case "RA+":
            return [*before, "require_sign_in", "sign_in"]
        case "RA-":
            return [*before, "require_sign_in", "sign_in_badly"]
        case "A-":
            return ["require_sign_in", "sign_in_badly"] if standing else ["sign_in_badly"]
        case "A+" if not standing:
            return ["sign_in"]
        case _:
            return before


def _losses(row: Row) -> list[Deed]:
    """Rights that an open session stood on."""
    told: tuple[tuple[bool, Deed], ...] = (
        (row.get("privilege_provisioned") is False or row.get("authorized") is False, "take_back"),
        (str(row.get("user_profile"))[1:] == "3", "deactivate"),
    )
    return [deed for holds, deed in told if holds]


def _changes(row: Row) -> list[Deed]:
    told: tuple[tuple[bool, Deed], ...] = (
        (row.get("endpoint_compliant") is False or row.get("subject_compliant") is False, "lose_compliance"),
        (row.get("resource_compliant") is False, "resource_loses_compliance"),
        (row.get("auth_endpoint") in ("A-", "RA-"), "endpoint_fails"),
        (row.get("auth_resource") in ("A-", "RA-"), "resource_fails"),
        (row.get("credential_status") == "flagged_stolen", "flag_credential"),
        (row.get("endpoint_status") == "flagged_stolen", "flag_endpoint"),
        (row.get("reported_stolen") is True, "report_theft"),
        (row.get("out_of_hours") is True, "leave_hours"),
        (row.get("step_up_success") is not None, "ask_step_up"),
        (row.get("step_up_success") is True, "step_up"),
        (row.get("step_up_success") is False, "fail_step_up"),
    )
    return [deed for holds, deed in told if holds]


# ------------------------------------------------------------------ two requests with one identity


def _two_requests(row: Row) -> Plan:
    profile = row.get("user_profile")
    if profile is None or profile[1] not in FULL_RIGHTS:
        raise NotUnderstood(f"two requests of profile `{profile}` are not in the fixture")
    device = row.get("endpoint_type") or "enterprise"
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
    if reported and events:
        yield Step("report_theft", "real")
    for party in parties:
        if sign_ins[party] == "A":
            yield Step("be_signed_in", party)
            yield Step("hold", party)
    for party in events:
        other = parties[1 - parties.index(party)]
        yield from _event(sign_ins[party], party, in_use=sign_ins[other] == "A", stale=reported and party == "hostile")
    if reported and not events:
        yield Step("report_theft_elsewhere" if apart else "report_theft", "real")


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
