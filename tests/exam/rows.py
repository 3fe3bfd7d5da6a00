"""The examination's rows: read from a folder of JSON files in the form of tests/data/nist-1800-35d (columns.md there), nothing skipped.

A key or a value that this reader does not know makes the row `not understood`: it counts as failed, so that no question is passed by not
being read.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PLACES = ("on_prem", "branch", "remote", "cloud", "internet")
PLATFORMS = ("iaas", "paas", "saas")
SIGN_INS = ("A+", "A-", "A", "RA+", "RA-")
STOLEN = ("active", "flagged_stolen")
OUTCOMES = ("allow", "limit", "deny", "deny_or_limit", "keep", "terminate", "terminate_all", "record")
NETWORK = "network_"

ABOUT = frozenset(
    {
        "demo_id",
        "use_case",
        "scenario",
        "scenario_title",
        "description",
        "desired_outcome",
        "desired_outcome_real",
        "desired_outcome_hostile",
        "applies",
        "why_not",
        "variant",
        "same_but_place",
        "derived",
        "corrected",
        "raw",
        "source",
        "credit",
        "note",
        "notes",
        "comment",
        "remark",
    }
)
"""Keys about the row itself; they ask nothing."""
NOTHING = ("", "---")
"""How a table says that something is not determined, besides `null`."""

INPUTS: Mapping[str, tuple[object, ...]] = {
    "id_type": ("enterprise", "federated", "other", "none", "service"),
    "user_profile": tuple(f"{kind}{number}" for kind in "EO" for number in range(1, 8)),
    "endpoint_type": ("enterprise", "byod", "guest"),
    "subject_type": ("resource", "enterprise", "byod", "guest", "user", "service"),
    "onboarded": (True, False),
    "subject_location": PLACES,
    "resource_location": PLACES,
    "unauthorized_resource_location": PLACES,
    "real_location": PLACES,
    "hostile_location": PLACES,
    "subject_platform": PLATFORMS,
    "resource_platform": PLATFORMS,
    "unauthorized_resource_platform": PLATFORMS,
    "auth_user": SIGN_INS,
    "auth_endpoint": SIGN_INS,
    "auth_resource": SIGN_INS,
    "auth_subject": SIGN_INS,
    "auth_real": SIGN_INS,
    "auth_hostile": SIGN_INS,
    "requested_access": ("RSS1", "RSS2", "URL1", "URL2", "public_resource", "public_internet"),
    "endpoint_compliant": (True, False),
    "resource_compliant": (True, False),
    "subject_compliant": (True, False),
    "out_of_hours": (True, False),
    "reported_stolen": (True, False),
    "credential_status": STOLEN,
    "endpoint_status": STOLEN,
    "privilege_provisioned": (True, False),
    "step_up_success": (True, False),
    "authorized": (True, False),
    "resource_access_policy": ("allowed", "blocked"),
    "outcome": OUTCOMES,
    "outcome_real": OUTCOMES,
    "outcome_hostile": OUTCOMES,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `inputs` holds what is determined only: `null` (`---`) is left out. `problems` say what was not understood."""

    id: str
    scenario: str
    title: str
    applies: bool
    why_not: str
    distinct: bool  # not merely another place than an earlier row of the scenario
    inputs: Mapping[str, Any]
    desired: Mapping[str, str] = field(default_factory=dict)  # as printed, by party
    problems: tuple[str, ...] = ()

    def get(self, key: str) -> Any:
        return self.inputs.get(key)

    @property
    def between_requests(self) -> bool:
        """What changes lies between two requests, and no session is open."""
        return "between requests" in self.title.lower()

    @property
    def during_session(self) -> bool:
        """Use case F, and whatever speaks of an open session: the flow stands before the state changes."""
        if self.between_requests:
            return False
        printed = " ".join(self.desired.values()).lower()
        return (
            self.scenario.startswith("F") or self.get("outcome") in ("keep", "terminate", "terminate_all") or "change to" in printed
        )


def read_folder(folder: Path) -> list[Row]:
    """Every row of every JSON file in it and below, in the order of the files. What is not in the form is a row too, one that was not understood.

    Raises ValueError where there is no JSON file.
    """
    files = sorted(folder.rglob("*.json"))
    if not files:
        raise ValueError(f"there is no JSON file in `{folder}`")
    rows = [row for file in files for row in _read_file(file, str(file.relative_to(folder)))]
    seen: set[str] = set()
    for number, row in enumerate(rows):
        if row.id in seen:
            rows[number] = dataclasses.replace(row, problems=(*row.problems, f"`{row.id}` stands more than once"))
        seen.add(row.id)
    return rows


def _read_file(file: Path, name: str) -> Iterator[Row]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        yield _not_a_row(name, f"the file is no JSON: {error}")
        return
    records = content.get("records") if isinstance(content, dict) else content
    if not isinstance(records, list):
        yield _not_a_row(name, "the file has no `records`")
        return
    for number, record in enumerate(records, 1):
        if isinstance(record, dict) and isinstance(record.get("demo_id"), str) and record["demo_id"].strip():
            yield read_row(record)
        else:
            yield _not_a_row(f"{name} {number}", "the record has no `demo_id`")


def _not_a_row(id: str, problem: str) -> Row:
    return Row(id=id, scenario="-", title="", applies=True, why_not="", distinct=True, inputs={}, problems=(problem,))


def read_row(record: Mapping[str, Any]) -> Row:
    id = " ".join(record["demo_id"].split())
    inputs = {key: _value(key, value) for key, value in record.items() if key not in ABOUT and not _is_nothing(value)}
    applies = record.get("applies") is not False
    return Row(
        id=id,
        scenario=str(record.get("scenario") or id.partition(".")[0]),
        title=str(record.get("scenario_title") or ""),
        applies=applies,
        why_not=str(record.get("why_not") or ""),
        distinct=record.get("same_but_place") in (None, record["demo_id"], id),
        inputs=inputs,
        desired={
            party: str(record.get(key) or "")
            for party, key in (
                ("subject", "desired_outcome"),
                ("real", "desired_outcome_real"),
                ("hostile", "desired_outcome_hostile"),
            )
            if record.get(key)
        },
        problems=tuple(_problems(inputs, record.get("applies"))),
    )


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip() in NOTHING)


def _value(key: str, value: object) -> object:
    """The code that is meant: `On-Prem ` is `on_prem`. What is no code stays as it is."""
    codes = {code.lower(): code for code in INPUTS.get(key, ()) if isinstance(code, str)}
    if not isinstance(value, str):
        return value
    word = value.strip().lower()
    return codes.get(word) or codes.get(word.replace("-", "_").replace(" ", "_"), value)


def _problems(inputs: Mapping[str, Any], applies: object) -> Iterable[str]:
    if not any(applies is known for known in (True, False, None)):
        yield f"value `{applies}` of `applies` is not known"
    for key, value in inputs.items():
        known = INPUTS.get(key)
        if known is None:
            yield f"key `{key}` is not known"
        elif not any(value is one or (isinstance(value, str) and value == one) for one in known) and not (
            isinstance(value, str) and value.startswith(NETWORK) and applies is False
        ):
            yield f"value `{value}` of `{key}` is not known"
    if not any(key.startswith("outcome") for key in inputs):
        yield "there is no outcome"
