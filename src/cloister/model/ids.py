"""Ids: 16 lower hex, one `NewType` per kind. An id is never reused, so that a thing made again under an old name is another thing.

Randomness is the caller's: `id_from(secrets.token_bytes(8))`.
"""

import re
from typing import Annotated, NewType

from pydantic import Field

ID_BYTES = 8
ID_PATTERN = r"^[0-9a-f]{16}$"

SegmentId = NewType("SegmentId", str)
ConnectorGroupId = NewType("ConnectorGroupId", str)
RuleId = NewType("RuleId", str)
UserId = NewType("UserId", str)
WorkloadId = NewType("WorkloadId", str)
GroupId = NewType("GroupId", str)
DeviceId = NewType("DeviceId", str)
AgentId = NewType("AgentId", str)
SessionId = NewType("SessionId", str)
FlowId = NewType("FlowId", str)
KeyId = NewType("KeyId", str)  # provisioning keys
Generation = NewType("Generation", int)

PrincipalId = UserId | WorkloadId
DocumentId = SegmentId | ConnectorGroupId | RuleId | UserId | WorkloadId | GroupId | DeviceId

Id = Annotated[str, Field(pattern=ID_PATTERN)]

_ID = re.compile(r"[0-9a-f]{16}")


def id_from(random: bytes) -> str:
    """The id made of exactly eight random bytes; raises `ValueError` on any other length."""
    if len(random) != ID_BYTES:
        raise ValueError(f"an id takes {ID_BYTES} random bytes, not `{len(random)}`")
    return random.hex()


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None
