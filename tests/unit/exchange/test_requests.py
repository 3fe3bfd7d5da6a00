"""The set of requests for access finds by person what a walk over all of them would find."""

from hypothesis import given
from hypothesis import strategies as st

from cloister.exchange.state import RequestSet
from cloister.store.types import AccessRequest

IDS = st.sampled_from([f"{number:016x}" for number in range(6)])
PEOPLE = {f"{number:016x}": f"p{number % 3}" for number in range(6)}  # who asked never changes


def _request(id: str, until: int) -> AccessRequest:
    return AccessRequest(id, PEOPLE[id], "r", "s", "experiment", 60, "pending", 0, until)


@given(st.lists(st.tuples(IDS, st.none() | st.integers(0, 9))))
def test_requests_of_a_person_are_those_that_a_walk_finds(steps: list[tuple[str, int | None]]) -> None:
    kept, model = RequestSet(), dict[str, AccessRequest]()
    for id, until in steps:
        if until is None:
            kept.drop([id])
            model.pop(id, None)
        else:
            kept.put(_request(id, until))
            model[id] = _request(id, until)
        assert (len(kept), sorted(kept, key=lambda item: item.id)) == (len(model), [model[id] for id in sorted(model)])
        assert all(kept.get(id) == model.get(id) for id in PEOPLE)
        for person in ("p0", "p1", "p2", "nobody"):
            mine = sorted(kept.of(person), key=lambda item: item.id)
            assert mine == [model[id] for id in sorted(model) if model[id].principal == person]
