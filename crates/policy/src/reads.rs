//! What policies can read of a question, so that nothing else is made for them.

use std::ops::BitOr;

use cedar_policy::Policy;
use serde_json::Value;

/// Attributes of the context, and the segment's document, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reads(u16);

impl Reads {
    pub(crate) const NOTHING: Reads = Reads(0);
    pub(crate) const NOW: Reads = Reads(1);
    pub(crate) const WEEKDAY: Reads = Reads(1 << 1);
    pub(crate) const MINUTE: Reads = Reads(1 << 2);
    pub(crate) const CLOCK: Reads = Reads(1 << 3);
    pub(crate) const SIGN_IN: Reads = Reads(1 << 4);
    pub(crate) const DEVICE: Reads = Reads(1 << 5);
    pub(crate) const NETWORKS: Reads = Reads(1 << 6);
    pub(crate) const PLACES: Reads = Reads(1 << 7);
    pub(crate) const RISK: Reads = Reads(1 << 8);
    pub(crate) const APPROVALS: Reads = Reads(1 << 9);
    pub(crate) const VIA: Reads = Reads(1 << 10);
    pub(crate) const ACTOR: Reads = Reads(1 << 11);
    /// Its name, protocol and labels; its id needs none of them.
    pub(crate) const SEGMENT: Reads = Reads(1 << 12);
    pub(crate) const ALL: Reads = Reads(u16::MAX);

    /// From the policy's own tree (Cedar's JSON policy format). `context.x` and `context has x` name what they read; `context` in any other place may
    /// read anything.
    pub(crate) fn of(policy: &Policy) -> Reads {
        policy.to_json().map_or(Reads::ALL, |tree| below(&tree))
    }

    pub(crate) fn has(self, other: Reads) -> bool {
        self.0 & other.0 != 0
    }

    /// Nothing for a name that questions do not have: it is missing whatever is made.
    fn named(attribute: &str) -> Reads {
        match attribute {
            "now" => Reads::NOW,
            "weekday" => Reads::WEEKDAY,
            "minute" => Reads::MINUTE,
            "clock" => Reads::CLOCK,
            "sign_in" => Reads::SIGN_IN,
            "device" => Reads::DEVICE,
            "networks" => Reads::NETWORKS,
            "places" => Reads::PLACES,
            "risk" => Reads::RISK,
            "approvals" => Reads::APPROVALS,
            "via" => Reads::VIA,
            "actor" => Reads::ACTOR,
            _ => Reads::NOTHING,
        }
    }
}

impl BitOr for Reads {
    type Output = Reads;

    fn bitor(self, other: Reads) -> Reads {
        Reads(self.0 | other.0)
    }
}

fn below(tree: &Value) -> Reads {
    match tree {
        Value::Array(parts) => parts.iter().fold(Reads::NOTHING, |reads, part| reads | below(part)),
        Value::Object(parts) => parts.iter().fold(Reads::NOTHING, |reads, (operator, operands)| reads | by(operator, operands)),
        _ => Reads::NOTHING,
    }
}

fn by(operator: &str, operands: &Value) -> Reads {
    let left = operands.pointer("/left/Var").and_then(Value::as_str);
    match (operator, left, operands.get("attr").and_then(Value::as_str)) {
        ("." | "has", Some("context"), Some(attribute)) => Reads::named(attribute),
        ("in", Some("resource"), None) if operands.get("right").is_some_and(is_of_literals) => Reads::NOTHING,
        ("Var", ..) if operands == "context" => Reads::ALL,
        ("Var", ..) if operands == "resource" => Reads::SEGMENT,
        // An entity that is called by its name may be any of a question's; groups have nothing to read.
        ("__entity", ..) if operands.get("type").is_none_or(|kind| kind != "Group") => Reads::ALL,
        _ => below(operands),
    }
}

/// An entity's name, or a set of them.
fn is_of_literals(tree: &Value) -> bool {
    let is_literal = |part: &Value| part.pointer("/Value/__entity").is_some();
    is_literal(tree) || tree.get("Set").and_then(Value::as_array).is_some_and(|parts| parts.iter().all(is_literal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(condition: &str) -> Reads {
        let text = format!("permit(principal, action, resource) when {{ {condition} }};");
        let policy = Policy::parse(None, text).map_err(|error| error.to_string());
        policy.as_ref().map(Reads::of).unwrap_or_else(|error| panic!("{condition}: {error}"))
    }

    #[test]
    fn what_is_named_is_read_however_it_is_written() {
        assert_eq!(reads("true"), Reads::NOTHING);
        assert_eq!(reads("context.sign_in.age <= 60 && context.now > 5"), Reads::NOW | Reads::SIGN_IN);
        assert_eq!(reads(r#"context["now"] > 5 || context["\u{6e}ow"] > 6"#), Reads::NOW);
        assert_eq!(reads("context has actor && context.actor in Group::\"x\""), Reads::ACTOR);
        assert_eq!(reads(r#"context has "\u{61}ctor""#), Reads::ACTOR);
        assert_eq!(reads("context has sign_in.age"), Reads::SIGN_IN);
        assert_eq!(reads(r#"context.device.hasTag("a") && context.device.posture.getTag("b") == "c""#), Reads::DEVICE);
        assert_eq!(reads("if context.places > 1 then [context.via].contains(\"x\") else false"), Reads::PLACES | Reads::VIA);
        assert_eq!(reads("principal.name == \"context\" && {now: 1}.now == 1"), Reads::NOTHING);
        assert_eq!(reads("context has nonsense"), Reads::NOTHING);
    }

    #[test]
    fn a_context_that_goes_elsewhere_is_read_whole() {
        for condition in [
            "{a: context}.a.now > 5",
            "(if true then context else context).now > 5",
            "context == {now: 5}",
            "[context].contains(context)",
            r#"{Var: "context", left: context}.left has now"#,
        ] {
            assert_eq!(reads(condition), Reads::ALL, "{condition}");
        }
    }

    #[test]
    fn a_record_that_looks_like_the_tree_names_nothing() {
        assert_eq!(reads(r#"{Var: "context"}.Var == "x""#), Reads::NOTHING);
        assert_eq!(reads(r#"{".": {left: {Var: "context"}, attr: "now"}} has a"#), Reads::NOTHING);
    }

    #[test]
    fn whoever_is_called_by_name_is_read() {
        for condition in [
            r#"Device::"d".hasTag("stolen")"#,
            r#"Segment::"s" has name"#,
            r#"[Workload::"w"].contains(principal)"#,
            r#"resource in [if true then Segment::"s" else Segment::"t"]"#,
            r#"Clock::"".hasTag("UTC")"#,
        ] {
            assert_eq!(reads(condition), Reads::ALL, "{condition}");
        }
        assert_eq!(reads(r#"principal in [Group::"a", Group::"b"]"#), Reads::NOTHING);
    }

    #[test]
    fn of_a_segment_its_id_is_known_without_reading_it() {
        assert_eq!(reads(r#"resource in [Segment::"a", Segment::"b"]"#), Reads::NOTHING);
        assert_eq!(reads(r#"resource in [Segment::"a"] && resource.name == "b""#), Reads::SEGMENT);
        for condition in [
            r#"resource.hasTag("a")"#,
            r#"resource.getTag("a") == "b""#,
            "resource has labels",
            "resource in [resource]",
            "[resource].contains(principal)",
            r#"(if true then resource else resource).name == "a""#,
        ] {
            assert_eq!(reads(condition), Reads::SEGMENT, "{condition}");
        }
    }
}
