"""What a sign-in says about a person, whatever protocol said it, in the one form that the exchange acts on."""

from collections.abc import Sequence
from dataclasses import dataclass

from cloister.identity.tokens.types import TokenRefused
from cloister.model.documents import Strength
from cloister.model.providers import IdentityProvider, StrengthValues, canonical
from cloister.model.reasons import Code

MAX_GROUPS = 1_000
MAX_TEXT = 256


@dataclass(frozen=True, slots=True)
class Person:
    """`issuer` and `subject` are the key; everything else is only said. `at` is 0 where the provider does not say when it saw the person;
    `vouched_at` is when it said what it says, where that may be all that is known.

    `groups` is None where the document configures no claim. `session` is the provider's own name of the sign-in, for its logout.
    """

    provider: str
    issuer: str
    subject: str
    at: int
    strength: Strength
    username: str = ""
    display: str = ""
    groups: tuple[str, ...] | None = None
    session: str | None = None
    vouched_at: int | None = None


def strength_of(provider: IdentityProvider, acr: str | None, amr: Sequence[str]) -> Strength:
    """What this provider's word is worth by its document: an unmapped value is a password (case 12)."""

    def says(mapped: StrengthValues, values: Sequence[str], level: Strength) -> bool:
        return not set(mapped.hardware if level == "hardware" else mapped.mfa).isdisjoint(values)

    for level in ("hardware", "mfa"):
        if says(provider.acr, [] if acr is None else [acr], level) or says(provider.amr, amr, level):
            return level
    return "password"


def values_for(provider: IdentityProvider, strength: Strength) -> tuple[str, ...]:
    """The `acr` values that are at least this strong, weakest first."""
    match strength:
        case "hardware":
            return provider.acr.hardware
        case "mfa":
            return (*provider.acr.mfa, *provider.acr.hardware)
        case _:
            return ()


def read_groups(values: Sequence[str] | None) -> tuple[str, ...]:
    """Group names in canonical form. A list that nobody could look through, or a name that reads as another, refuses the sign-in (case 10)."""
    if values is None:
        return ()
    if len(values) > MAX_GROUPS:
        raise TokenRefused(Code.TOKEN_CLAIM, f"the person is in more than `{MAX_GROUPS}` groups: let the provider send fewer")
    for value in values:
        if not value or len(value) > MAX_TEXT or not value.isprintable():
            raise TokenRefused(Code.TOKEN_CLAIM, "a group's name is empty, too long or not printable")
    return tuple(sorted({canonical(value) for value in values}))


def line(text: str | None) -> str:
    """A text for people to read: one printable line, or nothing."""
    return canonical(text).strip()[:MAX_TEXT] if text is not None and text.isprintable() else ""
