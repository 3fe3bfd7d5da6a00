"""A decision is a value: what was decided, why, by which rules, until when, at which generation."""

from dataclasses import dataclass
from typing import Literal

from cloister.model.ids import Generation, RuleId, SegmentId
from cloister.model.reasons import Code

Verdict = Literal["allow", "deny", "step_up"]


@dataclass(frozen=True, slots=True)
class Decision:
    """`code` may be told to whoever asked: for what is not visible it is `not_found`. `expires_at` (Unix seconds) is when the same question may
    get another answer by the clock alone; None if it cannot. `session_limit` and `idle_limit` (seconds) bound the session that it allows: the most that one
    of the deciding permits grants; None for no bound.
    """

    verdict: Verdict
    code: Code
    generation: Generation
    segment: SegmentId | None = None
    visible: bool = False
    rules: tuple[RuleId, ...] = ()
    expires_at: int | None = None
    session_limit: int | None = None
    idle_limit: int | None = None

    @property
    def may_follow(self) -> bool:
        """Whether the principal can still do something for it: sign in more strongly, or have it approved."""
        return self.code in (Code.STEP_UP_REQUIRED, Code.APPROVAL_REQUIRED)

    @property
    def allowed(self) -> bool:
        return self.verdict == "allow"
