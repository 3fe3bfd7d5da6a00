from cloister.connector.quiet import QuietWatch


def test_a_session_is_quiet_when_its_bytes_have_not_changed_for_its_limit() -> None:
    watch = QuietWatch()
    watch.watch({"a": 60, "b": 120}, 0.0)
    assert watch.look({"a": 10, "b": 10}, 1.0) is None
    assert watch.look({"a": 10, "b": 10}, 60.9) is None
    assert watch.look({"a": 10, "b": 10}, 61.0) == {"a"}
    assert watch.look({"a": 10, "b": 10}, 62.0) is None  # told already
    assert watch.look({"a": 11, "b": 10}, 63.0) == frozenset()  # it moved again, and that is told too
    assert watch.look({"a": 11, "b": 10}, 121.0) == {"b"}


def test_a_session_without_flows_is_quiet_from_when_it_was_watched() -> None:
    watch = QuietWatch()
    watch.watch({"a": 60}, 0.0)
    assert watch.look({}, 59.9) is None
    assert watch.look({}, 60.0) == {"a"}


def test_a_new_set_keeps_the_past_of_what_stays_and_a_new_link_is_told_anew() -> None:
    watch = QuietWatch()
    watch.watch({"a": 60}, 0.0)
    watch.watch({"a": 60, "b": 60}, 50.0)
    assert watch.look({}, 60.0) == {"a"}
    watch.forget_what_was_told()
    assert watch.look({}, 61.0) == {"a"}
    watch.watch({}, 62.0)
    assert watch.look({}, 63.0) == frozenset()
    assert watch.interval is None


def test_looks_are_as_frequent_as_the_shortest_limit_needs() -> None:
    watch = QuietWatch()
    watch.watch({"a": 3600, "b": 60}, 0.0)
    assert watch.interval == 2.0
    watch.watch({"a": 3600}, 0.0)
    assert watch.interval == 15.0
