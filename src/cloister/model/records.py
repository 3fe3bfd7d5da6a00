"""Access records: one JSON line per event, as connectors spool and the exchange journals them (ARCHITECTURE.md, "Access records").

Readers accept fields they do not know: a newer connector may write more.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["open", "close", "refused", "gap", "decision"]
Count = Annotated[int, Field(ge=0)]


class Stages(BaseModel):
    """Microseconds that each stage took; absent if the flow did not get that far."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    ticket_us: Count | None = None
    resolve_us: Count | None = None
    dial_us: Count | None = None
    first_byte_us: Count | None = None


class Record(BaseModel):
    """`host` is the name asked for, never the resolved address. `in`/`out` are bytes as the service sees them: received and sent."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    n: Count
    at: str  # RFC 3339, milliseconds, UTC
    kind: Kind
    code: str
    flow: str | None = None
    session: str | None = None
    principal: str | None = None
    actor: str | None = None  # decisions: the program that acts for the principal; flows name it by their session
    device: str | None = None
    segment: str | None = None
    rules: tuple[str, ...] = ()
    connector: str | None = None
    protocol: Literal["tcp", "udp"] | None = None
    host: str | None = None
    port: int | None = None
    bytes_in: Count | None = Field(default=None, alias="in")
    bytes_out: Count | None = Field(default=None, alias="out")
    stages: Stages | None = None
    duration_us: Count | None = None
    leaf: str | None = None
    lost: Count | None = None  # gaps: how many records are missing


def read_record(line: bytes) -> Record:
    """Parse one line; raises `pydantic.ValidationError` on anything else."""
    return Record.model_validate_json(line)


def write_record(record: Record) -> bytes:
    """One line without its end."""
    return record.model_dump_json(by_alias=True, exclude_none=True).encode()
