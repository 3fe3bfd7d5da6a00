import json

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.strategies import documents, posture_profiles

from cloister.model.documents import Document, to_fields
from cloister.model.parse import parse_documents, parse_fields
from cloister.model.posture import PostureProfile
from cloister.model.print import print_documents


@settings(max_examples=300)
@given(st.lists(documents, max_size=3, unique_by=lambda document: (document.kind, document.name)))
def test_what_is_printed_parses_to_equal_documents(written: list[Document]) -> None:
    result = parse_documents(print_documents(written))
    assert result.errors == ()
    assert result.documents == tuple(written)


@settings(max_examples=100)
@given(documents)
def test_a_document_reads_alike_as_yaml_as_json_and_from_fields(document: Document) -> None:
    as_json = json.dumps(to_fields(document), ensure_ascii=False).replace("\x7f", "\\u007f")
    assert parse_fields(to_fields(document)) == document
    if as_json.isprintable():  # YAML takes fewer characters unescaped than JSON
        assert parse_documents(as_json).documents == (document,)
    assert parse_documents(json.dumps(to_fields(document))).documents == (document,)


@settings(max_examples=100)
@given(posture_profiles)
def test_a_client_reads_a_posture_profile_from_json_alone(profile: PostureProfile) -> None:
    assert PostureProfile.model_validate_json(json.dumps(to_fields(profile))) == profile


def test_the_printed_form_is_the_short_one() -> None:
    text = (
        'kind: segment\nname: jupyter\nlabels: {team: research}\nhosts: [jupyter.lab.internal, "*.nb.lab.internal"]\n'
        "ports: [8888, 9000-9010]\ngroups: [cluster-a]\nmode: last-known\ncontinuity: 15m\nhealth: {port: 8888, interval: 30s}\n"
        "---\n"
        "kind: rule\nname: notebooks\neffect: permit\nwho: {groups: [research]}\nwhat: {segments: [jupyter]}\n"
        'when: |-\n  context.sign_in.strength >= 2\n    || principal.name == "anna"\n'
    )
    assert print_documents(parse_documents(text).documents) == text
