"""Documents and facts for property tests. Small alphabets on purpose: rules must meet segments, and segments each other."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import get_args

from hypothesis import strategies as st

from cloister.model.documents import (
    Approval,
    Conditions,
    ConnectorGroup,
    Device,
    Document,
    Group,
    HealthCheck,
    Hours,
    Limits,
    RiskBounds,
    Rule,
    Segment,
    User,
    What,
    Who,
    Workload,
)
from cloister.model.facts import Aging, DeviceFacts, Facts, Principal, Risk, SignIn, Switches
from cloister.model.fields import LABEL_VALUE, NAME, USER_NAME
from cloister.model.ids import DeviceId, RuleId, SegmentId, UserId, WorkloadId
from cloister.model.ports import PortRange
from cloister.model.posture import CertificateCheck, FileCheck, Network, PostureProfile, Requirement
from cloister.model.transmitters import (
    EVENTS,
    MAX_NAME,
    SignalAssurance,
    SignalDevices,
    SignalRisk,
    SignalTransmitter,
    SignalUsers,
)
from cloister.model.webhooks import Webhook

# ------------------------------------------------------------------ any document that parses


def _matching(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True).filter(
        lambda text: re.fullmatch(pattern.strip("^$"), text) is not None
    )


names = _matching(NAME)
user_names = _matching(USER_NAME)
label_values = _matching(LABEL_VALUE)
labels = st.dictionaries(names, label_values, max_size=3)
dns_labels = st.from_regex(r"[a-z](?:[a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
dns_names = st.lists(dns_labels, min_size=1, max_size=4).map(".".join)
ipv4 = st.ip_addresses(v=4).map(str)
ipv6 = st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None).map(str)
hosts = dns_names | ipv4 | ipv6
patterns = hosts | dns_names.map(lambda name: f"*.{name}")
lines = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(str.isprintable)
expressions = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).map(str.strip).filter(bool)
networks = st.ip_addresses(v=4).map(lambda address: f"{address}/32") | st.ip_addresses(v=6).map(lambda address: f"{address}/128")


@st.composite
def port_ranges(draw: st.DrawFn) -> tuple[PortRange, ...]:
    ends = sorted(draw(st.sets(st.integers(1, 65535), min_size=2, max_size=8)))
    pairs = list(zip(ends[::2], ends[1::2], strict=False))
    return tuple(PortRange(first, draw(st.sampled_from([first, last]))) for first, last in pairs)


def _tuples(of: st.SearchStrategy[str], least: int = 0) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(of, min_size=least, max_size=4, unique=True).map(tuple)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    continuity = draw(st.integers(0, 86400))
    health = st.builds(
        HealthCheck,
        host=st.none() | hosts,
        port=st.none() | st.integers(1, 65535),
        interval=st.integers(1, 3600),
        timeout=st.integers(1, 60),
    )
    return Segment(
        name=draw(names),
        labels=draw(labels),
        hosts=draw(_tuples(patterns, 1)),
        ports=draw(port_ranges()),
        protocol=draw(st.sampled_from(["tcp", "udp"])),
        groups=draw(_tuples(names, 1)),
        allow=draw(_tuples(networks)),
        mode="last-known" if continuity else "strict",
        continuity=continuity,
        health=draw(st.none() | health),
    )


days = st.lists(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1, unique=True).map(tuple)
times = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda time: f"{time[0]:02d}:{time[1]:02d}")
windows = st.lists(times, min_size=2, max_size=2, unique=True)
zones = st.sampled_from(["UTC", "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"])
hours = st.builds(lambda window, days, zone: Hours(start=window[0], until=window[1], days=days, zone=zone), windows, days, zones)
instants = st.datetimes(min_value=datetime(2000, 1, 1)).map(lambda moment: f"{moment:%Y-%m-%dT%H:%M:%SZ}")
conditions = st.builds(
    Conditions,
    signed_in_within=st.integers(60, 86400),
    strength=st.none() | st.sampled_from(["password", "mfa", "hardware"]),
    hours=st.none() | hours,
    after=st.none() | instants,
    before=st.none() | instants,
    device=labels,
    posture=labels,
    issuers=_tuples(names),
    networks=_tuples(names),
    profiles=_tuples(names),
    risk=st.none() | st.builds(RiskBounds, user=st.integers(1, 100), device=st.none() | st.integers(1, 100)),
    one_place=st.sampled_from([None, True]),
    expression=st.none() | expressions,
)
lone_expressions = st.builds(Conditions, expression=expressions)
whos = (
    st.builds(Who, users=_tuples(user_names, 1), groups=_tuples(user_names), workloads=_tuples(names))
    | st.builds(Who, users=_tuples(user_names, 1), via=_tuples(names, 1))
    | st.just(Who(any=True))
)
limits = st.builds(Limits, session=st.integers(60, 86400), idle=st.none() | st.integers(60, 86400))
approvals = st.builds(Approval, approvers=_tuples(user_names, 1), longest=st.integers(60, 86400))
whats = st.builds(What, segments=_tuples(names, 1), labels=labels, owner=st.none() | names) | st.just(What(any=True))
any_rules = st.builds(
    Rule,
    name=names,
    labels=labels,
    effect=st.sampled_from(["permit", "forbid"]),
    who=whos,
    what=whats,
    when=st.none() | conditions | lone_expressions,
) | st.builds(
    Rule, name=names, effect=st.just("permit"), who=whos, what=whats, approval=st.none() | approvals, limits=st.none() | limits
)
fact_texts = lines.filter(lambda text: len(text) <= 30)
versions = st.lists(st.integers(0, 999), min_size=1, max_size=4).map(lambda numbers: ".".join(map(str, numbers)))
paths = _tuples(dns_labels.filter(lambda part: part not in ("proc", "sys", "dev")), 1).map(lambda parts: "/" + "/".join(parts))
ages = st.none() | st.integers(30, 7 * 86400)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
requirements = (
    st.builds(Requirement, is_=fact_texts | st.sampled_from(["true", "false"]), max_age=ages, source=names | st.just("client"))
    | st.builds(Requirement, one_of=_tuples(fact_texts, 1), max_age=ages)
    | st.builds(Requirement, at_least=versions, source=names)
    | st.builds(Requirement, at_most=versions)
    | st.builds(Requirement, process=dns_labels, max_age=ages)
    | st.builds(Requirement, file=st.builds(FileCheck, path=paths, sha256=st.none() | digests))
    | st.builds(
        Requirement,
        certificate=st.builds(
            CertificateCheck,
            path=paths,
            ca=lines.map(lambda line: f"-----BEGIN CERTIFICATE-----\n{line}\n-----END CERTIFICATE-----\n"),
        ),
    )
)
transmitters = st.builds(
    SignalTransmitter,
    name=names.filter(lambda name: len(name) <= MAX_NAME),
    labels=labels,
    issuer=dns_names.map(lambda name: f"https://{name}"),
    audience=lines,
    keys=st.just(()) | st.just(({"kty": "OKP", "crv": "Ed25519", "x": "abc"},)),
    events=st.lists(st.sampled_from(EVENTS), min_size=1, unique=True).map(tuple),
    users=st.builds(SignalUsers, issuer=lines, opaque=st.none() | names, email_domain=st.none() | st.just("corp.example")),
    devices=st.none() | st.builds(SignalDevices, label=names, labels=labels, lasts=st.none() | st.integers(60, 86400)),
    tenant=st.none() | lines,
    risk=st.builds(SignalRisk, medium=st.integers(0, 90), half_life=st.integers(60, 86400)),
    assurance=st.builds(SignalAssurance, levels=st.dictionaries(lines, st.sampled_from(["password", "mfa"]), max_size=3)),
    max_age=st.integers(60, 86400),
    allow_internal=_tuples(hosts),
)
posture_profiles = st.builds(
    PostureProfile, name=names, labels=labels, require=st.dictionaries(names, requirements, min_size=1, max_size=4)
)
documents: st.SearchStrategy[Document] = st.one_of(
    segments(),
    any_rules,
    st.builds(ConnectorGroup, name=names, labels=labels, suffixes=_tuples(dns_names | st.just("*")), networks=_tuples(networks)),
    st.builds(User, name=user_names, labels=labels, subject=st.none() | lines, display=st.none() | lines, disabled=st.booleans()),
    st.builds(Workload, name=names, labels=labels, issuer=lines, subject=lines, disabled=st.booleans()),
    st.builds(
        Group, name=user_names, labels=labels, users=_tuples(user_names), workloads=_tuples(names), groups=_tuples(user_names)
    ),
    st.builds(Device, name=names, labels=labels, owner=st.none() | user_names, disabled=st.booleans()),
    posture_profiles,
    st.builds(Network, name=names, labels=labels, networks=_tuples(networks, 1)),
    transmitters,
    st.builds(Webhook, name=names, url=dns_names.map(lambda name: f"https://{name}/x"), allow_internal=_tuples(hosts)),
)

# ------------------------------------------------------------------ a small world in which rules meet

NOW = 1_700_000_000
SEGMENTS = ("jupyter", "postgres", "vectors")
USERS = ("anna", "ben", "eve")
GROUPS = ("research", "platform")
TEAMS = ("research", "data")
RAW = (
    "principal.name == resource.name",
    'principal.name == "anna"',
    "context.sign_in.strength >= 2",
    'context.device.hasTag("site") && context.device.getTag("site") == "lab"',
    f"context.now < {NOW + 600}",
    "context.sign_in.age + 9223372036854775807 > 0",  # overflows for every age but 0: an evaluation error
    'principal in Group::"platform"',
    "context.risk.user < 50 && context.places == 1",
    'context has actor && context.actor.name == "ben"',
)

small_segments = st.builds(
    lambda name, team, owner, wild, ports: Segment(
        name=name, labels={"team": team, "owner": owner}, hosts=("*.lab" if wild else f"{name}.lab",), ports=ports, groups=("g",)
    ),
    st.sampled_from(SEGMENTS),
    st.sampled_from(TEAMS),
    st.sampled_from(USERS),
    st.booleans(),
    st.sampled_from([(PortRange(80, 80),), (PortRange(80, 90),), (PortRange(1, 65535),)]),
)
small_whos = st.one_of(
    st.just(Who(any=True)),
    st.builds(lambda user: Who(users=(user,)), st.sampled_from(USERS)),
    st.builds(lambda group: Who(groups=(group,)), st.sampled_from(GROUPS)),
    st.builds(lambda user, group: Who(users=(user,), groups=(group,)), st.sampled_from(USERS), st.sampled_from(GROUPS)),
    st.just(Who(workloads=("anna",))),
    st.builds(lambda user, via: Who(users=(user,), via=(via,)), st.sampled_from(USERS), st.sampled_from(USERS)),
    st.builds(lambda via: Who(any=True, via=(via,)), st.sampled_from(USERS)),
)
small_whats = st.one_of(
    st.just(What(any=True)),
    st.builds(lambda names: What(segments=tuple(names)), st.lists(st.sampled_from(SEGMENTS), min_size=1, unique=True)),
    st.builds(lambda team: What(labels={"team": team}), st.sampled_from(TEAMS)),
    st.builds(lambda team: What(labels=team, owner="owner"), st.sampled_from([{}, {"team": "data"}])),
    st.builds(lambda name: What(segments=(name,), owner="owner"), st.sampled_from(SEGMENTS)),
    st.builds(lambda name, team: What(segments=(name,), labels={"team": team}), st.sampled_from(SEGMENTS), st.sampled_from(TEAMS)),
)
small_conditions = st.one_of(
    st.none(),
    st.none(),
    st.builds(lambda text: Conditions(expression=text), st.sampled_from(RAW)),
    st.builds(lambda age: Conditions(signed_in_within=age), st.sampled_from([60, 3600])),
    st.builds(lambda strength: Conditions(strength=strength), st.sampled_from(["password", "mfa"])),
    st.just(Conditions(device={"site": "lab"})),
    st.just(Conditions(posture={"disk": "encrypted"})),
    st.builds(lambda hours: Conditions(hours=hours), hours),
    st.builds(lambda issuer: Conditions(issuers=(issuer,)), st.sampled_from(["local", "corp"])),
    st.just(Conditions(networks=("office",))),
    st.just(Conditions(profiles=("managed",))),
    st.builds(
        lambda user, device: Conditions(risk=RiskBounds(user=user, device=device)),
        st.sampled_from([30, 70]),
        st.none() | st.just(50),
    ),
    st.just(Conditions(one_place=True)),
)
small_limits = st.builds(lambda seconds: Limits(session=seconds), st.sampled_from([60, 600]))
small_rules = st.builds(
    lambda effect, who, what, when, approval, limits: Rule(
        name="r",
        effect=effect,
        who=who,
        what=what,
        when=when,
        approval=approval if effect == "permit" else None,
        limits=limits if effect == "permit" else None,
    ),
    st.sampled_from(["permit", "permit", "forbid"]),
    small_whos,
    small_whats,
    small_conditions,
    st.sampled_from([None, None, None, Approval(approvers=("platform",))]),
    st.none() | small_limits,
)


def id_of(kind: str, name: str | int) -> str:
    return f"{kind[:2]}{name}".encode().hex()[:16].ljust(16, "0")


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Document]:
    """Documents by id: some of three segments and up to six rules."""
    found: dict[str, Document] = {}
    for segment in draw(st.lists(small_segments, max_size=3, unique_by=lambda segment: segment.name)):
        found[id_of("segment", segment.name)] = segment
    for at, rule in enumerate(draw(st.lists(small_rules, max_size=6))):
        found[id_of("rule", at)] = rule.model_copy(update={"name": f"r{at}"})
    return found


principals = st.builds(
    lambda kind, name, groups, disabled: Principal(
        kind, (UserId if kind == "user" else WorkloadId)(id_of(kind, name)), name, frozenset(groups), disabled
    ),
    st.sampled_from(["user", "user", "user", "workload"]),
    st.sampled_from(USERS),
    st.sets(st.sampled_from(GROUPS)),
    st.sampled_from([False, False, False, False, True]),
)
devices = st.builds(
    lambda site, disk, profile, revoked: DeviceFacts(
        DeviceId(id_of("device", "laptop")),
        "laptop",
        {"site": site} if site else {},
        {"disk": disk} if disk else {},
        frozenset({profile} - {""}),
        revoked,
    ),
    st.sampled_from(["", "lab", "home"]),
    st.sampled_from(["", "encrypted", "plain"]),
    st.sampled_from(["", "managed", "other"]),
    st.sampled_from([False, False, False, False, True]),
)
sign_ins = st.builds(
    SignIn,
    at=st.sampled_from([NOW - 10, NOW - 600, NOW - 7200, NOW + 3600]),
    strength=st.sampled_from(["password", "mfa", "hardware"]),
    issuer=st.sampled_from(["local", "corp"]),
)
switches = st.one_of(
    *[st.just(Switches())] * 6,
    st.just(Switches(everything=True)),
    st.builds(lambda name: Switches(segments=frozenset({id_of("segment", name)})), st.sampled_from(SEGMENTS)),
    st.builds(lambda name: Switches(principals=frozenset({id_of("user", name)})), st.sampled_from(USERS)),
    st.just(Switches(devices=frozenset({id_of("device", "laptop")}))),
)
actors = st.builds(
    lambda name, groups: Principal("workload", WorkloadId(id_of("workload", name)), name, frozenset(groups)),
    st.sampled_from(USERS),
    st.sets(st.sampled_from(GROUPS)),
)
agings: st.SearchStrategy[Mapping[Aging, int]] = st.fixed_dictionaries(
    {},
    optional={aging: st.sampled_from([NOW + 5, NOW + 50]) for aging in get_args(Aging)},
)
facts = st.builds(
    Facts,
    principal=principals,
    device=st.none() | devices,
    sign_in=st.none() | sign_ins,
    switches=switches,
    actor=st.sampled_from([None, None]) | actors,
    networks=st.sampled_from([frozenset[str](), frozenset({"office"})]),
    places=st.sampled_from([1, 1, 2]),
    risk=st.builds(Risk, user=st.sampled_from([0, 40, 90]), device=st.sampled_from([0, 60])),
    approvals=st.sets(
        st.tuples(
            st.sampled_from([RuleId(id_of("rule", at)) for at in range(6)]),
            st.sampled_from([SegmentId(id_of("segment", name)) for name in SEGMENTS]),
        )
    ).map(frozenset),
    until=agings,
)
