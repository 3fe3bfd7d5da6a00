"""The fixture of the examination is a set of documents that the exchange would take, with a place for everybody whom a row can name."""

from cloister.model.documents import Segment, User
from cloister.model.parse import parse_documents
from cloister.model.references import check_documents
from exam.places import FIXTURE
from exam.programs import Issuer
from exam.rows import PLACES
from exam.situation import FULL_RIGHTS

TEXT = "---\n".join([*(file.read_text() for file in FIXTURE), Issuer().document])


def test_the_documents_are_well_formed_and_refer_to_one_another() -> None:
    read = parse_documents(TEXT)
    assert read.errors == ()
    assert list(check_documents(read.documents)) == []


def test_every_resource_stands_at_every_place_with_both_levels() -> None:
    labels = [document.labels for document in parse_documents(TEXT).documents if isinstance(document, Segment)]
    found = {(label["resource"], label["place"], label["level"]) for label in labels}
    resources = {resource for rights in FULL_RIGHTS.values() for resource in rights}
    places = {place.replace("_", "-") for place in PLACES}
    assert found == {(resource, place, level) for resource in resources for place in places for level in ("full", "limited")}


def test_the_two_organisations_have_the_same_profiles() -> None:
    names = {document.name for document in parse_documents(TEXT).documents if isinstance(document, User)}
    assert {name[1:] for name in names if name[0] == "e"} == {name[1:] for name in names if name[0] == "o"}
