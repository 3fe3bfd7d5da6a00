from tools.reason_codes import PAGE, print_page

from cloister.model.reasons import Code, reason


def test_the_page_of_reason_codes_is_current() -> None:
    assert PAGE.read_text() == print_page(), "run `python tools/reason_codes.py`"


def test_a_code_that_a_newer_peer_made_up_reads_as_an_internal_error() -> None:
    assert reason("made_up_later").code == Code.INTERNAL
    assert reason("not_found").code == Code.NOT_FOUND
