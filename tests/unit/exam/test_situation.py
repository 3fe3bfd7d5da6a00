"""From a row to steps: what is done follows from the keys alone."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from exam import situation
from exam.rows import read_folder, read_row
from exam.situation import FULL_RIGHTS, NotUnderstood, plan

NIST = Path(__file__).parents[2] / "data" / "nist-1800-35d"


def deeds(**fields: Any) -> list[str]:
    return [f"{step.party} {step.deed}" if step.party != "subject" else step.deed for step in plan_of(**fields).steps]


def plan_of(**fields: Any) -> situation.Plan:
    return plan(read_row({"demo_id": "X-1.1 a", "scenario": "X-1", "outcome": "allow", **fields}))


def test_every_row_that_applies_has_a_plan() -> None:
    for row in read_folder(NIST):
        if row.applies:
            made = plan(row)
            assert made.expected
            assert all(asker.rights in FULL_RIGHTS for asker in made.askers.values())


def test_a_row_gets_the_same_plan_under_any_other_name() -> None:
    """No row is known by its id: the driver has no answers of its own."""
    for row in read_folder(NIST):
        if row.applies:
            fields = {**row.inputs, "scenario": "X-1", "scenario_title": row.title, "desired_outcome": row.desired.get("subject")}
            printed = {f"desired_outcome_{party}": row.desired.get(party) for party in ("real", "hostile")}
            renamed = read_row({"demo_id": "X-9.9 z", **fields, **printed})
            assert plan(renamed) == plan(row)
    assert "demo_id" not in inspect.getsource(situation)


def test_a_sign_in_that_just_happened_is_made_anew_and_one_of_before_is_kept() -> None:
    assert deeds(auth_user="A+") == ["sign_in"]
    assert deeds(auth_user="A") == ["be_signed_in"]
    assert deeds(auth_user="A-", outcome="deny") == ["sign_in_badly"]


def test_signing_in_again_follows_the_end_of_what_was_signed_in() -> None:
    assert deeds(auth_user="RA+") == ["be_signed_in", "require_sign_in", "sign_in"]
    assert deeds(auth_user="RA-", outcome="deny") == ["be_signed_in", "require_sign_in", "sign_in_badly"]


def test_during_a_session_the_flow_stands_before_the_state_changes() -> None:
    assert deeds(scenario="F-4", endpoint_compliant=False, outcome="terminate") == ["be_signed_in", "hold", "lose_compliance"]
    assert deeds(outcome="terminate", auth_user="RA-") == ["be_signed_in", "hold", "fail_to_sign_in_again"]
    assert deeds(outcome="terminate", auth_subject="RA-", id_type="service")[0] == "be_signed_in_briefly"
    assert deeds(outcome="keep", auth_endpoint="RA+") == ["be_signed_in", "hold"]
    assert deeds(outcome="keep", auth_user="RA+", user_profile="E2") == ["be_signed_in", "hold", "sign_in_again"]
    assert deeds(outcome="keep", auth_subject="RA+", subject_type="service") == ["be_signed_in", "hold", "sign_in_again"]
    assert deeds(outcome="terminate", auth_resource="RA-") == ["be_signed_in", "hold", "resource_fails"]


def test_who_proves_again_while_a_session_is_open_has_an_identity_provider() -> None:
    def person(**fields: Any) -> str:
        return plan_of(**fields).askers["subject"].person

    assert person(outcome="keep", auth_user="RA+") == person(outcome="keep", auth_user="RA+", user_profile="E1") == "e-step-up-1"
    assert person(outcome="keep", auth_user="RA+", user_profile="O2") == "o-step-up-2"
    assert person(outcome="terminate", step_up_success=False, user_profile="E1", requested_access="RSS1") == "e-step-up-1"
    assert person(outcome="allow", auth_user="RA+", user_profile="E1") == "e1"


def test_a_temporary_right_is_that_of_whoever_has_no_other() -> None:
    made = plan_of(outcome="terminate", privilege_provisioned=False, user_profile="E1", requested_access="RSS2", scenario="F-7")
    assert [step.deed for step in made.steps] == ["be_signed_in", "grant", "hold", "take_back"]
    assert (made.askers["subject"].person, made.best("subject")) == ("e-temporary", "full")


def test_the_newcomer_is_seen_only_while_the_identity_is_in_use() -> None:
    both = {"user_profile": "E6", "reported_stolen": False, "outcome": None, "outcome_real": "limit", "outcome_hostile": "deny"}
    assert deeds(**both, auth_real="A", auth_hostile="A+") == [
        "real be_signed_in",
        "real hold",
        "hostile sign_in",
        "hostile seen_twice",
    ]
    assert deeds(**(both | {"outcome_real": None}), auth_hostile="A+") == ["hostile sign_in"]
    assert "hostile seen_twice" not in deeds(**both, auth_real="A", auth_hostile="A-")


def test_a_report_comes_before_the_sign_ins_that_it_concerns_and_is_itself_the_event_without_any() -> None:
    both = {"user_profile": "E7", "reported_stolen": True, "outcome": None, "outcome_real": "keep", "outcome_hostile": "deny"}
    assert deeds(**both, auth_real="A", auth_hostile="A-") == [
        "real report_theft",
        "real be_signed_in",
        "real hold",
        "hostile sign_in_badly",
    ]
    one = both | {"outcome_real": None}
    assert deeds(**one, auth_hostile="A", real_location="on_prem", hostile_location="on_prem")[-1] == "real report_theft"
    assert deeds(**one, auth_hostile="A", real_location="on_prem", hostile_location="branch")[-1] == "real report_theft_elsewhere"


def test_what_a_thief_holds_is_older_than_the_report_and_the_new_credentials() -> None:
    both = {"user_profile": "E7", "reported_stolen": True, "outcome": None, "outcome_real": "allow", "outcome_hostile": "terminate"}
    assert deeds(**both, auth_real="A+", auth_hostile="A") == [
        "hostile be_signed_in",
        "hostile hold",
        "real report_theft",
        "real sign_in",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"id_type": "enterprise", "resource_access_policy": "blocked"},
        {"id_type": "enterprise", "auth_user": "A+", "auth_subject": "RA-"},
        {"endpoint_compliant": True, "subject_compliant": False},
        {"endpoint_compliant": True, "endpoint_type": "guest"},
        {"endpoint_compliant": True, "onboarded": False},
        {"endpoint_type": "enterprise", "subject_type": "byod"},
        {"id_type": "service", "user_profile": "E1"},
        {"id_type": "enterprise", "subject_type": "service"},
        {"id_type": "enterprise", "user_profile": "O1"},
        {"id_type": "federated", "user_profile": "E1"},
        {"id_type": "federated", "privilege_provisioned": True},
        {"auth_real": "A+"},
        {"user_profile": "E6", "outcome": None, "auth_real": "A+", "outcome_real": "allow", "endpoint_compliant": False},
        {"user_profile": "E6", "outcome": None, "auth_real": "A+", "outcome_real": "allow", "outcome_hostile": "deny"},
        {"user_profile": "E6", "auth_real": "A+", "outcome_real": "allow"},
    ],
)
def test_no_column_is_without_effect(fields: dict[str, Any]) -> None:
    with pytest.raises(NotUnderstood):
        plan_of(**fields)


def test_the_device_may_be_told_as_the_subject_and_one_that_is_not_enrolled_is_like_a_guests() -> None:
    assert plan_of(subject_type="byod").askers["subject"].device == "byod"
    assert plan_of(onboarded=False).askers["subject"].device == "guest"


def test_who_is_deactivated_was_active_when_they_signed_in() -> None:
    made = plan_of(user_profile="E3", auth_user="RA-", outcome="deny")
    assert made.askers["subject"].person == "e1"
    assert [step.deed for step in made.steps] == ["be_signed_in", "deactivate", "require_sign_in", "sign_in_badly"]
    assert plan_of(user_profile="E3", auth_user="A-", outcome="deny").askers["subject"].person == "e3"


def test_a_right_can_be_taken_from_a_person_too() -> None:
    assert deeds(id_type="enterprise", authorized=False, outcome="terminate") == ["be_signed_in", "hold", "take_back"]
    assert deeds(id_type="enterprise", authorized=False, outcome="deny") == ["be_signed_in", "take_back"]


def test_what_improves_between_requests_was_refused_first() -> None:
    asked = {"scenario": "F-5", "scenario_title": "Compliance improves between requests"}
    assert deeds(**asked, endpoint_compliant=True) == ["be_signed_in", "lose_compliance", "be_refused", "regain_compliance"]
    assert deeds(**asked, endpoint_compliant=False, outcome="deny") == ["be_signed_in", "lose_compliance"]


@pytest.mark.parametrize(
    ("title", "deed"),
    [
        ("Other-ID Access Terminated Due to Suspicious Endpoint", "suspect_endpoint"),
        ("Enterprise-ID Violating Data Use Policy", "suspect_person"),
        ("Enterprise-ID Attempting Unauthorized Access Detection and Response, Ongoing Sessions", "overreach"),
    ],
)
def test_a_scenario_without_a_column_for_its_event_tells_it_in_the_title(title: str, deed: str) -> None:
    assert deeds(scenario="F-16", scenario_title=title, outcome="terminate") == ["be_signed_in", "hold", deed]


def test_after_a_stronger_sign_in_the_best_is_more() -> None:
    assert plan_of(step_up_success=True).best("subject") == "full"
    assert plan_of(step_up_success=True).held("subject") == "limited"


@pytest.mark.parametrize("fields", [{"user_profile": "E4"}, {"requested_access": "URL1"}, {"id_type": "none"}, {"weather": "fine"}])
def test_what_there_is_no_situation_for_is_not_understood(fields: dict[str, Any]) -> None:
    with pytest.raises(NotUnderstood):
        plan_of(**fields)


def test_a_service_that_is_not_authorised_is_another_one_under_the_same_rules() -> None:
    known = plan_of(id_type="service", authorized=True).askers["subject"]
    other = plan_of(id_type="service", authorized=False, outcome="deny").askers["subject"]
    assert (known.person, other.person) == ("service-known", "service-unknown")


def test_all_sessions_are_more_than_the_one_that_the_row_speaks_of() -> None:
    made = plan_of(outcome="terminate_all", reported_stolen=True, user_profile="E7", subject_location="on_prem")
    assert [(step.party, step.deed) for step in made.steps] == [
        ("elsewhere", "be_signed_in"),
        ("elsewhere", "hold"),
        ("subject", "be_signed_in"),
        ("subject", "hold"),
        ("subject", "report_theft"),
    ]
    assert made.askers["elsewhere"].place != made.askers["subject"].place


def test_a_sign_in_that_fails_during_a_session_fails_where_it_is_proved() -> None:
    assert deeds(scenario="F-1", auth_user="A-", outcome="terminate") == ["be_signed_in", "hold", "fail_to_sign_in_again"]
    assert plan_of(scenario="F-1", auth_user="A-", outcome="terminate").askers["subject"].person == "e-step-up-1"
