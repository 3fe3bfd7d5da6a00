"""The pages of a sign-in: plain HTML without script, every text escaped, and what each may load or send written into its policy (case 94)."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:3rem auto;padding:0 1rem;color:#111;background:#fff}"
    "h1{font-size:1.4rem}dt{color:#555}dd{margin:0 0 .6rem;overflow-wrap:anywhere}"
    ".code{font:600 1.8rem/1.2 ui-monospace,monospace;letter-spacing:.1em}"
    "button{font:inherit;padding:.5rem 1rem;margin:.3rem 0;width:100%;cursor:pointer}"
    "@media(prefers-color-scheme:dark){body{color:#eee;background:#111}dt{color:#aaa}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()


@dataclass(frozen=True, slots=True)
class Page:
    """A whole answer. `form_targets` are the origins that its forms may lead to, beside this one."""

    status: int
    html: str
    form_targets: tuple[str, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        targets = " ".join(("'self'", *self.form_targets)) if self.form_targets else "'none'"
        return {
            "content-security-policy": (
                f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {targets}; base-uri 'none'; frame-ancestors 'none'"
            ),
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
            "x-frame-options": "DENY",
            "cross-origin-opener-policy": "same-origin",
        }


def confirm_page(
    *, purpose: str, device: str, source: str, code: str, action: str, token: str, providers: Sequence[str], targets: Iterable[str]
) -> Page:
    """Is it you at that terminal? One button for each provider."""
    facts = (("Device", device or "unnamed"), ("Asked from", source))
    shown = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    buttons = "".join(
        f'<button name="provider" value="{escape(name)}">Yes, sign in with {escape(name)}</button>' for name in providers
    )
    body = (
        f"<p>{escape(purpose)}</p><dl>{shown}</dl><p>Your terminal must show this code:</p><p class=code>{escape(code)}</p>"
        "<p>If it shows another one, or if somebody sent you this link, close this page: whoever sent it wants to sign in as you.</p>"
        f'<form method="post" action="{escape(action)}"><input type="hidden" name="token" value="{escape(token)}">{buttons}</form>'
    )
    return Page(200, _document("Is this your sign-in?", body), tuple(targets))


def message_page(status: int, title: str, sentence: str, remedy: str = "") -> Page:
    body = f"<p>{escape(sentence)}</p>" + (f"<p>{escape(remedy)}</p>" if remedy else "")
    return Page(status, _document(title, body))


def _document(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)} - Cloister</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>"
    )
