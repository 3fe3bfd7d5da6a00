"""What a new link may become, judged from the proved leaf and the first message. Pure."""

from dataclasses import dataclass

from cloister.model.messages.common import PROTOCOL_VERSION, Message
from cloister.model.messages.from_agent import (
    Advertise,
    Bye,
    ClusterKeys,
    CutDone,
    Delegate,
    Draining,
    EndDelegation,
    EnrolByKey,
    EnrolByPassword,
    EnrolBySignIn,
    EnrolByToken,
    Explain,
    Health,
    Hello,
    Idle,
    ListRequests,
    Posture,
    Prove,
    Quiet,
    Renew,
    RequestAccess,
    Revoked,
    SignOut,
    StepUp,
    WantCarrier,
    WantSession,
    WithdrawRequest,
)
from cloister.model.reasons import Code
from cloister.store.types import Agent, AgentRole
from cloister.trust.passwords import secret_fits
from cloister.trust.types import Identity

GREETING_SECONDS = 10.0
TWIN_SECONDS = 11.0  # a link whose peer is gone is noticed within 10 s: one that lives longer is alive

_COMMON: tuple[type[Message], ...] = (Renew, Prove, Bye)
_OF_ROLE: dict[AgentRole, tuple[type[Message], ...]] = {
    "client": (
        WantSession,
        Explain,
        RequestAccess,
        ListRequests,
        WithdrawRequest,
        Idle,
        Posture,
        StepUp,
        SignOut,
        Delegate,
        EndDelegation,
    ),
    "connector": (Health, Revoked, Quiet, ClusterKeys, Draining),
    "relay": (WantCarrier, Advertise, CutDone, Draining),
}
ENROLMENT: tuple[type[Message], ...] = (EnrolByKey, EnrolByPassword, EnrolBySignIn, EnrolByToken)


@dataclass(frozen=True, slots=True)
class Accept:
    """Welcome it; an older link of the same agent is `replaced`."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Another link of this agent is up and this one did not prove to be its successor: wait until the older one is dead or proves a twin."""


@dataclass(frozen=True, slots=True)
class Refuse:
    code: Code


Greeting = Accept | Hold | Refuse


def may_send(role: AgentRole, message: Message) -> bool:
    """Whether this role may send this message after its greeting (cases 25, 37, 38, 40)."""
    return isinstance(message, _COMMON + _OF_ROLE[role])


def judge_agent(agent: Agent | None, identity: Identity, thumbprint: str | None, *, principal_active: bool) -> Code:
    """Whether the agent that the proved leaf names is served: known, under this role, with the key it enrolled, not revoked, confirmed."""
    if agent is None or agent.role != identity.role or agent.key_thumbprint != thumbprint:
        return Code.AGENT_UNKNOWN
    if agent.revoked_at is not None:
        return Code.AGENT_REVOKED
    if not principal_active:
        return Code.USER_DISABLED
    return Code.OK if agent.confirmed else Code.AGENT_UNCONFIRMED


def judge_hello(hello: Hello, agent: Agent, older_boot: str | None) -> Greeting:
    """`older_boot` is that of the agent's live link, None if there is none."""
    if hello.version != PROTOCOL_VERSION:
        return Refuse(Code.VERSION_UNSUPPORTED)
    if older_boot is None:
        return Accept()
    # The same process that roams knows both: it proves the secret of its last link and has the boot of it.
    if hello.boot == older_boot and proves_resume(hello, agent):
        return Accept()
    return Hold()


def proves_resume(hello: Hello, agent: Agent) -> bool:
    return agent.resume_hash is not None and hello.resume is not None and secret_fits(agent.resume_hash, hello.resume)


def claims_foreign_resume(hello: Hello, agent: Agent) -> bool:
    """A resume secret that is not the last one: somebody with the same key had a link in between."""
    return agent.resume_hash is not None and hello.resume is not None and not secret_fits(agent.resume_hash, hello.resume)
