"""Laws of where a program finds its token, and how often it shows one."""

from pathlib import Path

import pytest

from cloister.agent.errors import AgentError
from cloister.agent.proving import OFTEN, SOON, pause
from cloister.agent.tokens import GithubTokens, TokenFile, TokenVariable, find_source

GITHUB = {"ACTIONS_ID_TOKEN_REQUEST_URL": "https://actions.example/t", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "secret"}


def _audience() -> str:
    return "https://x.cloister"


def test_what_the_operator_names_comes_first_then_what_the_surroundings_offer(tmp_path: Path) -> None:
    both = {**GITHUB, "CLOISTER_ID_TOKEN": "a.b.c", "OTHER": "d.e.f"}
    file = tmp_path / "token"
    file.write_text("g.h.i\n")
    assert find_source(both, _audience, file=file).read() == "g.h.i"
    assert find_source(both, _audience, variable="OTHER").read() == "d.e.f"
    assert find_source(both, _audience).read() == "a.b.c"
    found = find_source(GITHUB, _audience)
    assert isinstance(found, GithubTokens)
    assert found.audience == "https://x.cloister"


def test_without_anything_it_says_what_to_do() -> None:
    with pytest.raises(AgentError, match="nothing here says") as refused:
        find_source({}, _audience)
    assert "--token-file" in refused.value.remedy


@pytest.mark.parametrize("text", ["", "   ", "a b", "a\nb", "é", "x" * 70_000])
def test_what_is_no_token_is_refused_without_being_shown(text: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    for source in (TokenFile(file), TokenVariable("NAME", text)):
        with pytest.raises(AgentError) as refused:
            source.read()
        assert not text.strip() or text not in refused.value.message


def test_case_31_sources_do_not_show_what_they_hold() -> None:
    assert "secret" not in repr(GithubTokens("https://x", "secret", "a"))
    assert "secret" not in repr(TokenVariable("NAME", "secret"))


def test_github_is_asked_over_tls_only() -> None:
    with pytest.raises(AgentError, match="https"):
        GithubTokens("http://actions.example/t", "secret", "a").read()


@pytest.mark.parametrize(("left", "expected"), [(0, SOON), (-5, SOON), (100, 50.0), (3600, OFTEN), (10**9, OFTEN)])
def test_next_proof_comes_at_half_of_what_is_left_within_bounds(left: int, expected: float) -> None:
    assert pause(1000 + left, 1000.0) == expected
