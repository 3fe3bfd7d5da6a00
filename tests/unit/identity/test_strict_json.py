import pytest

from cloister.identity.strict_json import MAX_DEPTH, NotStrict, read_json, read_object


def test_json_is_read() -> None:
    assert read_object(b'{"a":[1,2.5,null,true,"\xc3\xa4"]}') == {"a": [1, 2.5, None, True, "ä"]}


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'[{"a":1,"\\u0061":2}]',
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        b"\xef\xbb\xbf{}",
        b"{}{}",
        b"{'a':1}",
        b"",
        b'"\\u0000"',
        b'"\\ud800"',
        b'{"\\udc00":1}',
        b"9" * 5000,
        b"[" * 100_000,
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b"[" + b"1," * 20_000 + b"1]",
        b'"' + b"x" * (1 << 20) + b'"',
    ],
)
def test_case_10_what_can_be_read_in_two_ways_is_refused(text: bytes) -> None:
    with pytest.raises(NotStrict):
        read_json(text)


def test_bounds_admit_what_stands_at_them() -> None:
    assert read_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert len(read_json(b"[" + b"1," * 19_998 + b"1]")) == 19_999


def test_an_object_is_wanted() -> None:
    with pytest.raises(NotStrict):
        read_object(b"[]")
