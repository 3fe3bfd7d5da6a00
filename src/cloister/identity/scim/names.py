"""From names that a directory gives to names of documents, each in one canonical form (case 10).

A name of plain letters is taken as it is, in lower case. Any other loses what documents cannot hold and gets a piece of the hash of its canonical form,
so that two names that only look alike never become one. Invisible and direction-changing characters are refused.
"""

import hashlib
import re
import unicodedata

from cloister.identity.scim.errors import invalid
from cloister.model.fields import USER_NAME

MAX_NAME = 256  # characters of a name as it is given
MAX_DOCUMENT_NAME = 128
HASH_DIGITS = 10

_PLAIN = re.compile(USER_NAME)
_KEPT = re.compile(r"[^a-z0-9._@+-]+")


def check_name(field: str, text: str) -> str:
    """The name as it is given, if people can read it. Raises ScimError 400."""
    if not text.strip() or len(text) > MAX_NAME:
        raise invalid(f"`{field}` has 1 to `{MAX_NAME}` characters")
    if not text.isprintable() or any(
        unicodedata.category(character) in ("Mn", "Me") for character in unicodedata.normalize("NFC", text)
    ):
        raise invalid(f"`{field}` holds a character that cannot be seen")
    return text


def key_of(text: str) -> str:
    """What makes a name unique in its directory: Unicode's compatibility form without case (RFC 7643 §4.1.1: `userName` is not exact)."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def document_name(text: str) -> str:
    """The name of the document for a name that was checked. The same for every spelling that is the same name."""
    key = key_of(text)
    if _PLAIN.fullmatch(key):
        return key
    kept = _KEPT.sub("-", key).strip("._@+-")[: MAX_DOCUMENT_NAME - HASH_DIGITS - 1].rstrip("._@+-")
    digits = hashlib.sha256(key.encode()).hexdigest()[:HASH_DIGITS]
    return f"{kept}-{digits}" if kept else f"x-{digits}"


def with_suffix(name: str, suffix: str) -> str:
    """Another name, for when the first one is somebody else's."""
    return f"{name[: MAX_DOCUMENT_NAME - len(suffix) - 1].rstrip('._@+-')}+{suffix}"
