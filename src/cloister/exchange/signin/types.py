"""What the parts of a sign-in hand each other."""

from dataclasses import dataclass

from cloister.model.providers import IdentityProvider


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's document and its id."""

    id: str
    document: IdentityProvider

    @property
    def name(self) -> str:
        return self.document.name
