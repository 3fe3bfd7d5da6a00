//! Median time of one decision with 1,000 rules and 1,000 segments, one and three rules in the slice. Run by `cargo bench -p cloister-policy`.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use cloister_policy::{Device, Kind, PolicySet, Principal, Question, Segment, SignIn, WallClock};

fn main() {
    let policies: Vec<(String, String)> = (0..1000)
        .map(|n| {
            let text = format!(
                r#"permit(principal, action == Action::"connect", resource) when {{ (principal in [Group::"g{n}"]) && context.via == "" }} when {{ (resource in [Segment::"s{n}", Segment::"s{}", Segment::"s{}"]) }} when {{ context.sign_in.age <= 28800 }} when {{ context.sign_in.strength >= 2 }};"#,
                n + 1,
                n + 2
            );
            (format!("p{n}"), text)
        })
        .collect();
    let segments = (0..1000).map(|n| Segment {
        id: format!("s{n}"),
        name: format!("segment-{n}"),
        protocol: "tcp".to_owned(),
        labels: vec![("team".to_owned(), "research".to_owned())],
    });
    let set = PolicySet::new(policies.iter().map(|(id, text)| (id.as_str(), text.as_str())), segments).unwrap();
    for rules in [1, 3] {
        let mut times: Vec<u128> = Vec::new();
        for round in 0..20_000 {
            let n = round % 990 + 2;
            let question = Question {
                principal: Principal {
                    kind: Kind::User,
                    id: "anna".to_owned(),
                    name: "anna".to_owned(),
                    groups: (n - 2..=n).map(|n| format!("g{n}")).collect(),
                },
                actor: None,
                device: Device {
                    id: "d1".to_owned(),
                    name: "laptop".to_owned(),
                    labels: vec![("site".to_owned(), "lab".to_owned())],
                    posture: vec![("disk".to_owned(), "encrypted".to_owned())],
                    profiles: Vec::new(),
                },
                segment: format!("s{n}"),
                sign_in: SignIn { age: 60, strength: 2, issuer: "local".to_owned() },
                now: 1_700_000_000,
                clock: WallClock { weekday: "tue".to_owned(), minute: 1333 },
                clocks: Vec::new(),
                networks: Vec::new(),
                places: 1,
                risk: (0, 0),
                approvals: Vec::new(),
            };
            let ids: Vec<String> = (n + 1 - rules..=n).map(|n| format!("p{n}")).collect();
            let start = Instant::now();
            let answer = set.decide(question, Some(&ids));
            times.push(start.elapsed().as_nanos());
            assert!(answer.allowed, "{answer:?}");
        }
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default() as f64 / 1e3;
        println!("{{\"rules\": {rules}, \"decide_median_us\": {:.1}, \"decide_p99_us\": {:.1}}}", at(50), at(99));
    }
}
