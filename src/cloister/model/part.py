"""What documents are made of."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Anything inside a document. Unknown fields are refused, so a typo cannot switch a condition off."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, arbitrary_types_allowed=True)
