"""Documents to a policy that is ready to decide: who and what of each rule become sets beforehand, so that a decision evaluates only the rules
that can matter."""

import json
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from cloister._core import PolicySet
from cloister.model.documents import Document, Rule, Segment, What, Who, to_fields
from cloister.model.facts import Aging, Destination, Principal, Target
from cloister.model.ids import Generation, RuleId, SegmentId
from cloister.model.overlap import SegmentIndex
from cloister.policy.aging import ages_of, changes_by_clock
from cloister.policy.cedar import print_rule, segment_of, zones_of

_ANY = ("any", "")


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """`text` is the whole policy as Cedar reads it, so two rules with equal text decide alike."""

    id: RuleId
    rule: Rule
    text: str
    permits: bool
    ages: frozenset[Aging]
    changes_by_clock: bool

    def differs_from(self, other: "CompiledRule") -> bool:
        """Whether a session by one of them may fare otherwise by the other. Who may approve and how long a session lasts is not in the text."""
        mine, others = self.rule, other.rule
        return self.text != other.text or mine.approval != others.approval or mine.limits != others.limits

    def is_for(self, principal: Principal, segment: Segment, actor: Principal | None = None) -> bool:
        """Whether a segment that its sets name is named for this very principal: only ownership and `via` ask who it is, and who acts."""
        what, via = self.rule.what, self.rule.who.via
        if (via and (actor is None or actor.name not in via)) or (not via and actor is not None and self.permits):
            return False
        if what.owner is None or what.any or segment.name in what.segments:
            return True
        return segment.labels.get(what.owner) == principal.name


@dataclass(frozen=True, slots=True)
class Answer:
    """What Cedar said. `failed`: the question itself could not be asked, or a rule erred."""

    allowed: bool
    determining: tuple[RuleId, ...]
    erring: tuple[RuleId, ...]
    failed: bool


class CompiledPolicy:
    """Rules and segments of one generation. Immutable: a change makes a new one. `answers` are those known so far, by what their questions read;
    `alone` are the conditions of rules, each parsed as a policy of its own, that were explained so far.
    """

    def __init__(self, segments: Mapping[SegmentId, Segment], rules: Mapping[RuleId, Rule], generation: Generation) -> None:
        self.generation = generation
        self.answers: dict[Hashable, Answer] = {}
        self.alone: dict[tuple[RuleId, SegmentId], PolicySet] = {}
        self.segments = dict(segments)
        ids = {segment.name: id for id, segment in segments.items()}
        self.rules = {id: _compile_rule(id, rule, ids) for id, rule in sorted(rules.items())}
        self._digests = {id: json.dumps(to_fields(segment), sort_keys=True) for id, segment in segments.items()}
        texts: dict[str, str] = {id: rule.text for id, rule in self.rules.items()}
        self.cedar = PolicySet(texts, [segment_of(id, segment) for id, segment in segments.items()])
        self.zones = zones_of(rules.values())
        self._index = SegmentIndex(segments.items())
        self._naming_segment: dict[SegmentId, set[RuleId]] = defaultdict(set)
        self._naming_principal: dict[tuple[str, str], set[RuleId]] = defaultdict(set)
        by_label = _by_label(segments)
        for id, rule in rules.items():
            for segment in _segments_of(rule.what, segments, ids, by_label):
                self._naming_segment[segment].add(id)
            for key in _keys_of(rule.who):
                self._naming_principal[key].add(id)
        self._segments_of_rule: dict[RuleId, list[SegmentId]] = defaultdict(list)
        for segment, names in sorted(self._naming_segment.items()):
            for id in names:
                self._segments_of_rule[id].append(segment)

    def find(self, target: Target) -> SegmentId | None:
        """The segment that a target is in, None if there is none."""
        if isinstance(target, Destination):
            return self._index.find(target)
        return target if target in self.segments else None

    def rules_for(self, principal: Principal, segment: SegmentId, actor: Principal | None = None) -> list[CompiledRule]:
        """The rules whose who and what name this principal and segment, whatever their conditions; in the order of their ids. For a program that acts
        for the principal also those that forbid it anything.
        """
        naming = self._naming_segment.get(segment)
        if not naming:
            return []
        found: set[RuleId] = set()
        for key in _keys_naming(principal):
            found |= naming & self._naming_principal.get(key, _NOTHING)
        for key in () if actor is None else _keys_naming(actor):
            found |= {id for id in naming & self._naming_principal.get(key, _NOTHING) if not self.rules[id].permits}
        document = self.segments[segment]
        return [rule for id in sorted(found) if (rule := self.rules[id]).is_for(principal, document, actor)]

    def visible(self, principal: Principal, actor: Principal | None = None) -> list[SegmentId]:
        """The segments that some permit names for this principal, even if its conditions fail now; by name. Nothing for who is disabled."""
        if principal.disabled or (actor is not None and actor.disabled):
            return []
        found = {
            segment
            for rule in self.rules_naming(principal)
            if rule.permits
            for segment in self._segments_for(principal, rule, actor)
        }
        return sorted(found, key=lambda id: self.segments[id].name)

    def named_for(self, principal: Principal) -> set[SegmentId]:
        """The segments that any rule, permit or forbid, names for this principal in person."""
        return {segment for rule in self.rules_naming(principal) for segment in self._segments_for(principal, rule, None)}

    def digest_of(self, segment: SegmentId) -> str:
        """A text that is equal for equal documents; empty for a segment that does not exist."""
        return self._digests.get(segment, "")

    def rules_naming(self, principal: Principal) -> list[CompiledRule]:
        """The rules whose `who` names this principal, in person or with a program that acts for it."""
        named = {id for key in _keys_naming(principal) for id in self._naming_principal.get(key, _NOTHING)}
        return [self.rules[id] for id in sorted(named)]

    def _segments_for(self, principal: Principal, rule: CompiledRule, actor: Principal | None) -> list[SegmentId]:
        return [id for id in self._segments_of_rule.get(rule.id, ()) if rule.is_for(principal, self.segments[id], actor)]

    def segments_of(self, rule: RuleId) -> list[SegmentId]:
        """Those that a rule names for anybody."""
        return list(self._segments_of_rule.get(rule, ()))

    def rule_names(self, ids: tuple[RuleId, ...]) -> list[str]:
        return [self.rules[id].rule.name for id in ids if id in self.rules]


_NOTHING: frozenset[RuleId] = frozenset()


def compile_policy(documents: Mapping[str, Document], generation: Generation | int = 0) -> CompiledPolicy:
    """From documents by id. They have passed `check`: a rule that Cedar cannot parse raises `CoreError` `policy_malformed`."""
    segments = {SegmentId(id): document for id, document in documents.items() if isinstance(document, Segment)}
    rules = {RuleId(id): document for id, document in documents.items() if isinstance(document, Rule)}
    return CompiledPolicy(segments, rules, Generation(generation))


def _compile_rule(id: RuleId, rule: Rule, segments: Mapping[str, SegmentId]) -> CompiledRule:
    return CompiledRule(
        id,
        rule,
        text=print_rule(rule, segments, id),
        permits=rule.effect == "permit",
        ages=ages_of(rule),
        changes_by_clock=rule.when is not None and changes_by_clock(rule.when),
    )


def _keys_of(who: Who) -> list[tuple[str, str]]:
    if who.any:
        return [_ANY]
    names = (("user", who.users), ("workload", who.workloads), ("group", who.groups))
    return [(kind, name) for kind, names_of_kind in names for name in names_of_kind]


def _keys_naming(principal: Principal) -> list[tuple[str, str]]:
    return [_ANY, (principal.kind, principal.name), *(("group", group) for group in principal.groups)]


def _by_label(segments: Mapping[SegmentId, Segment]) -> dict[tuple[str, str], set[SegmentId]]:
    found: dict[tuple[str, str], set[SegmentId]] = defaultdict(set)
    for id, segment in segments.items():
        for label in segment.labels.items():
            found[label].add(id)
    return found


def _segments_of(
    what: What,
    segments: Mapping[SegmentId, Segment],
    ids: Mapping[str, SegmentId],
    by_label: Mapping[tuple[str, str], set[SegmentId]],
) -> set[SegmentId]:
    if what.any:
        return set(segments)
    found = {ids[name] for name in what.segments if name in ids}
    if what.labels:
        labelled = set.intersection(*(by_label.get(label, set()) for label in what.labels.items()))
        found |= labelled if what.owner is None else {id for id in labelled if what.owner in segments[id].labels}
    elif what.owner is not None:
        found |= {id for id, segment in segments.items() if what.owner in segment.labels}
    return found
