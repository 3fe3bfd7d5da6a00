//! What a decision is.
#![allow(clippy::expect_used)]

use cloister_policy::{Answer, Device, Kind, MAX_POLICY_BYTES, PolicySet, Principal, Question, Segment, SignIn, WallClock};

fn segment(id: &str, name: &str, labels: &[(&str, &str)]) -> Segment {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Segment { id: id.to_owned(), name: name.to_owned(), protocol: "tcp".to_owned(), labels }
}

fn set(policies: &[(&str, &str)]) -> PolicySet {
    let segments = [segment("s1", "jupyter", &[("owner", "anna")]), segment("s2", "postgres", &[])];
    PolicySet::new(policies.iter().copied(), segments).expect("the policies parse")
}

fn question(user: &str, groups: &[&str], segment: &str) -> Question {
    let groups = groups.iter().map(ToString::to_string).collect();
    Question {
        principal: Principal { kind: Kind::User, id: user.to_owned(), name: user.to_owned(), groups },
        actor: None,
        device: Device::default(),
        segment: segment.to_owned(),
        sign_in: SignIn { age: 60, strength: 1, issuer: "local".to_owned() },
        now: 1_800_000_000,
        clock: WallClock { weekday: "fri".to_owned(), minute: 480 },
        clocks: Vec::new(),
        networks: Vec::new(),
        places: 1,
        risk: (0, 0),
        approvals: Vec::new(),
    }
}

fn decide(set: &PolicySet, question: &Question, ids: Option<&[&str]>) -> Answer {
    let ids = ids.map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>());
    set.decide(question.clone(), ids.as_deref())
}

fn answer(allowed: bool, determining: &[&str]) -> Answer {
    Answer { allowed, determining: determining.iter().map(ToString::to_string).collect(), errors: Vec::new() }
}

const PERMIT: (&str, &str) = ("p", r#"permit(principal in Group::"research", action, resource == Segment::"s1");"#);
const FORBID: (&str, &str) = ("f", r#"forbid(principal, action, resource) when { principal.name == "eve" };"#);
const ERRING_FORBID: (&str, &str) = ("e", r#"forbid(principal, action, resource) when { context.actor.name == "x" };"#);
const ERRING_PERMIT: (&str, &str) = ("q", r#"permit(principal, action, resource) when { context.actor.name == "x" };"#);

#[test]
fn case_78_no_policy_denies() {
    assert_eq!(decide(&set(&[]), &question("anna", &["research"], "s1"), None), answer(false, &[]));
}

#[test]
fn groups_of_the_question_decide() {
    let set = set(&[PERMIT]);
    assert!(decide(&set, &question("anna", &["research"], "s1"), None).allowed);
    assert!(!decide(&set, &question("anna", &[], "s1"), None).allowed);
    assert!(!decide(&set, &question("anna", &["research"], "s2"), None).allowed);
}

#[test]
fn groups_are_found_wherever_a_policy_names_them() {
    let named = [
        r#"permit(principal in Group::"a\"b", action, resource);"#,
        r#"permit(principal, action, resource) when { principal in [Group::"x", Group::"a\"b"] };"#,
        r#"permit(principal, action, resource) when { if true then principal in Group::"a\"b" else false };"#,
        r#"permit(principal, action, resource) when { {a: [Group::"a\"b"]}.a.containsAny([Group::"a\"b"]) && principal in {b: Group::"a\"b"}.b };"#,
        r#"permit(principal, action, resource) unless { !(principal is User in Group::"a\"b") };"#,
    ];
    for text in named {
        let set = set(&[("p", text)]);
        for ids in [None, Some(["p"].as_slice())] {
            assert!(decide(&set, &question("anna", &["y", "a\"b", "z"], "s1"), ids).allowed, "{text}");
            assert!(!decide(&set, &question("anna", &["y", "z", "a\\\"b"], "s1"), ids).allowed, "{text}");
        }
    }
}

#[test]
fn case_79_a_forbid_wins_in_every_order() {
    for policies in [[PERMIT, FORBID], [FORBID, PERMIT]] {
        assert_eq!(decide(&set(&policies), &question("eve", &["research"], "s1"), None), answer(false, &["f"]));
    }
}

#[test]
fn case_78_an_error_in_a_named_forbid_denies() {
    let set = set(&[PERMIT, ERRING_FORBID]);
    let found = decide(&set, &question("anna", &["research"], "s1"), None);
    assert!(!found.allowed);
    assert_eq!(found.errors.first().map(|(id, _)| id.as_str()), Some("e"));
    // Negative control: Cedar alone would have allowed, and a slice without the erring policy does.
    assert_eq!(found.determining, ["p"]);
    assert!(decide(&set, &question("anna", &["research"], "s1"), Some(&["p"])).allowed);
}

#[test]
fn case_84_an_error_in_a_named_permit_denies() {
    let found = decide(&set(&[PERMIT, ERRING_PERMIT]), &question("anna", &["research"], "s1"), Some(&["p", "q"]));
    assert!(!found.allowed);
    assert!(found.errors.first().is_some_and(|(_, text)| text.contains("actor")), "{found:?}");
}

#[test]
fn what_cannot_be_asked_is_denied() {
    let set = set(&[PERMIT]);
    let anna = question("anna", &["research"], "s1");
    let other_self = Principal { kind: Kind::User, id: "anna".to_owned(), name: "other".to_owned(), groups: Vec::new() };
    let contradicting = Question { actor: Some(other_self), ..anna.clone() };
    for (asked, ids) in [(&anna, ["p", "nobody"].as_slice()), (&anna, &["p", "p"]), (&contradicting, &["p"])] {
        let found = decide(&set, asked, Some(ids));
        assert!(!found.allowed);
        assert_eq!(found.errors.first().map(|(id, _)| id.as_str()), Some(""), "{found:?}");
    }
}

#[test]
fn a_segment_that_is_unknown_has_neither_labels_nor_a_name() {
    let policy = ("n", r#"permit(principal, action, resource) when { resource.name == "jupyter" };"#);
    let set = set(&[policy]);
    assert!(decide(&set, &question("anna", &[], "s1"), None).allowed);
    let found = decide(&set, &question("anna", &[], "s9"), None);
    assert_eq!((found.allowed, found.errors.len()), (false, 1));
}

#[test]
fn a_policy_that_is_named_decides_as_among_all() {
    let conditions = [
        r#"resource in [Segment::"s1"] && context.sign_in.age <= 60 && context.sign_in.strength >= 1 && ["local"].contains(context.sign_in.issuer)"#,
        r#"context.weekday == "fri" && context.minute == 480 && context.now > 5 && context.clock.getTag("Europe/Berlin").minute == 540"#,
        r#"context.device.hasTag("team") && context.device.posture.getTag("disk") == "encrypted" && context.device.profiles.contains("lap")"#,
        r#"context.networks.contains("lan") && context.places <= 1 && context.risk.user < 5 && context.approvals.contains("r")"#,
        r#"context has actor && context.actor.name == "job" && context.via == "job" && resource.hasTag("owner") && resource.name == "jupyter""#,
        r#"Device::"d".hasTag("team")"#,
        r#"Posture::"d".hasTag("disk")"#,
        r#"Workload::"w" has name"#,
        r#"Segment::"s1".hasTag("owner")"#,
        r#"Clock::"".hasTag("Europe/Berlin")"#,
        r#"Device::"other".hasTag("team") || {a: context}.a.places == 1"#,
    ];
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let full = Question {
        actor: Some(Principal { kind: Kind::Workload, id: "w".to_owned(), name: "job".to_owned(), groups: Vec::new() }),
        device: Device {
            id: "d".to_owned(),
            name: "laptop".to_owned(),
            labels: vec![pair("team", "a")],
            posture: vec![pair("disk", "encrypted")],
            profiles: vec!["lap".to_owned()],
        },
        clocks: vec![("Europe/Berlin".to_owned(), WallClock { weekday: "fri".to_owned(), minute: 540 })],
        networks: vec!["lan".to_owned()],
        approvals: vec!["r".to_owned()],
        ..question("anna", &[], "s1")
    };
    let empty = Question { sign_in: SignIn::default(), places: 2, ..question("anna", &[], "s2") };
    for condition in conditions {
        for effect in ["permit", "forbid"] {
            let set = set(&[("p", &format!("{effect}(principal, action, resource) when {{ {condition} }};"))]);
            for (asked, holds) in [(&full, true), (&empty, false)] {
                let named = decide(&set, asked, Some(&["p"]));
                assert_eq!(named, decide(&set, asked, None), "{condition}");
                assert_eq!(named.determining == ["p"], holds, "{condition}");
            }
        }
    }
}

#[test]
fn labels_and_owner_are_those_of_the_segment_that_is_asked_for() {
    let owner = (
        "o",
        r#"permit(principal, action, resource) when { resource.hasTag("owner") && resource.getTag("owner") == principal.name };"#,
    );
    let set = set(&[owner]);
    assert!(decide(&set, &question("anna", &[], "s1"), None).allowed);
    assert!(!decide(&set, &question("ben", &[], "s1"), None).allowed);
    assert!(!decide(&set, &question("anna", &[], "s2"), None).allowed);
}

#[test]
fn a_text_is_exactly_one_policy() {
    let two = "permit(principal, action, resource); permit(principal, action, resource);";
    let template = "permit(principal == ?principal, action, resource);";
    for text in ["", two, template, "permit(principal, action)"] {
        let error = PolicySet::new([("x", text)], []).err().map(|error| (error.code, error.message));
        assert!(matches!(&error, Some(("policy_malformed", message)) if message.contains("`x`")), "{text}: {error:?}");
    }
    let padded = |length: usize| format!("permit(principal, action, resource);{}", " ".repeat(length - 36));
    assert!(PolicySet::new([("x", padded(MAX_POLICY_BYTES).as_str())], []).is_ok());
    assert!(PolicySet::new([("x", padded(MAX_POLICY_BYTES + 1).as_str())], []).is_err());
}

#[test]
fn violations_of_the_schema_name_the_policy() {
    let bad = ("bad", "permit(principal, action, resource) when { principal.nmae == \"anna\" };");
    let never = ("never", "permit(principal, action, resource) when { resource == principal };");
    let found = set(&[PERMIT, bad, never]).validate();
    let ids: Vec<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
    assert!(ids.contains(&"bad") && ids.contains(&"never") && !ids.contains(&"p"), "{found:?}");
    assert!(set(&[PERMIT, FORBID]).validate().is_empty());
}

#[test]
fn case_84_long_chains_neither_overflow_the_stack_nor_allow_what_they_should_not() {
    let chains = [
        "true && ".repeat(1800) + "true",
        "false || ".repeat(1800) + "false",
        "context.sign_in.strength + ".repeat(800) + "1 == 0",
        "principal.name like \"".to_owned() + &"*a".repeat(2000) + "\"",
        format!("[{}].contains(context.sign_in.strength)", vec!["7"; 7000].join(",")),
        "(((((((((((((((((((((((((((((((".to_owned() + "true" + ")))))))))))))))))))))))))))))))",
        "if true then ".repeat(32) + "false" + &" else false".repeat(32),
        "!".repeat(4) + "false",
        "{a: ".repeat(32) + "1" + &"}".repeat(32) + &".a".repeat(32) + " == 2",
    ];
    let expected = [true, false, false, false, false, true, false, false, false];
    let check = move || {
        let mut evaluated = 0;
        for (text, expected) in chains.iter().zip(expected) {
            if cloister_policy::check_condition(text).is_some() {
                continue; // refused beforehand is as good
            }
            let policy = format!("permit(principal, action, resource) when {{\n{text}\n}};");
            let set = set(&[("p", policy.as_str())]);
            let _ = set.validate(); // must return, whatever it says
            let allowed = decide(&set, &question("anna", &[], "s1"), None).allowed;
            assert!(!allowed || expected, "{}", text.get(..40).unwrap_or(text));
            evaluated += 1;
        }
        assert!(evaluated >= 5, "{evaluated}");
    };
    // The smallest stack that a thread of ours may have.
    std::thread::Builder::new().stack_size(2 << 20).spawn(check).expect("a thread starts").join().expect("no chain panics");
}
