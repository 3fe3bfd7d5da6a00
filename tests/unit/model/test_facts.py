import pytest

from cloister.model.documents import Group
from cloister.model.facts import Membership
from cloister.model.ids import id_from, is_id


def test_case_79_groups_nest_and_circles_end() -> None:
    membership = Membership(
        [
            Group(name="inner", users=("anna",), workloads=("job",)),
            Group(name="middle", groups=("inner",)),
            Group(name="outer", groups=("middle", "outer")),
            Group(name="left", groups=("right",), users=("ben",)),
            Group(name="right", groups=("left",)),
        ]
    )
    assert membership.groups_of("user", "anna") == {"inner", "middle", "outer"}
    assert membership.groups_of("workload", "job") == {"inner", "middle", "outer"}
    assert membership.groups_of("user", "ben") == {"left", "right"}
    assert membership.groups_of("user", "job") == frozenset()  # a workload's name is no user's
    assert membership.groups_of("user", "inner") == frozenset()  # a group's name is no user's


def test_an_id_is_eight_bytes() -> None:
    assert id_from(bytes(range(8))) == "0001020304050607"
    assert is_id("0001020304050607")
    assert not is_id("0001020304050607\n")
    assert not is_id("000102030405060G")
    with pytest.raises(ValueError, match="8 random bytes"):
        id_from(b"short")
