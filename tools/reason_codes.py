"""Write docs/reference/reason-codes.md from `cloister.model.reasons`: `python tools/reason_codes.py`. A test holds the page to the list."""

from pathlib import Path

from cloister.model.reasons import Code, reason

PAGE = Path(__file__).parent.parent / "docs/reference/reason-codes.md"
SECTIONS = (  # a section begins with its first code
    (Code.OK, "Flows and sessions"),
    (Code.HOST_MALFORMED, "The last hop"),
    (Code.TICKET_MALFORMED, "Tickets, carriers and tunnels"),
    (Code.PEER_SILENT, "Links and enrolment"),
    (Code.TOKEN_MALFORMED, "Tokens of other issuers, and outside services"),
    (Code.DOCUMENT_MALFORMED, "Documents, the API and settings"),
)
INTRODUCTION = """# Reason codes

Every refusal, every end and every error has one of these codes: in the answer of a command, in the API, in access records and in logs. A code
keeps its name and its meaning for ever. To learn why *you* were refused something, run `cloister explain NAME:PORT`.

What you may not know of always answers `not_found`, whether it exists or not.

This page is written by `tools/reason_codes.py`.
"""


def print_page() -> str:
    titles = dict(SECTIONS)
    parts = [INTRODUCTION]
    for code in Code:
        if code in titles:
            parts.append(f"\n## {titles[code]}\n\n| code | what it means | what to do |\n|---|---|---|\n")
        about = reason(code)
        parts.append(f"| `{code}` | {about.message} | {about.remedy or '-'} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(print_page())
