"""Policy: pure decisions over documents and facts.

Owns: the compilation of rules to Cedar, `decide`, `explain`, `visible`, `affected`. Never does: I/O, clocks, randomness, storage. Called by
`exchange` (live decisions, the API's checks) and by offline tools.

    result = parse_documents(text, source="rules.yaml")        # model.parse: documents and every error with its position
    errors = check(result.documents)                           # references, ties, suffixes, Cedar: policy.check
    policy = compile_policy({id: document, …}, generation)     # policy.compile
    decide(policy, facts, target, now)                         # policy.decide; target: a SegmentId or a Destination
    policy.visible(principal)                                  # ids of the segments that this principal may know of
    explain(policy, facts, target, now)                        # policy.explain
    affected(old, new, sessions)                               # policy.affected: which sessions a change can touch
"""
