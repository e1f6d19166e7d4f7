"""What kube-scheduler sends and gets, byte for byte."""

import msgspec
import pytest

from scheduler.core import candidate_names
from scheduler.core.candidate_names import LONG_BYTES, NAME_LISTS_KEPT, CandidateNames
from scheduler.core.wire import (
    BadRequest,
    ExtenderArgs,
    decode_extender_args,
    encode_priorities,
)

CALL = (
    b'{"Pod":{"metadata":{"name":"p","namespace":"n","uid":"u","creationTimestamp":null,"labels":null},'
    b'"spec":{"containers":null,"schedulerName":"fairlane"},"status":{}},'
    b'"Nodes":null,"NodeNames":["a","b"]}'
)


def test_a_call_of_kube_scheduler_is_read_with_its_nulls() -> None:
    args = decode_extender_args(CALL)
    assert CandidateNames().of(args).all() == ("a", "b")
    assert (args.Pod.metadata.name, args.Pod.spec.schedulerName) == ("p", "fairlane")


def test_answer_has_capitalised_keys_and_whole_numbers() -> None:
    assert encode_priorities([("a", 10), ("b", 9)]) == b'[{"Host":"a","Score":10},{"Host":"b","Score":9}]'


def test_no_opinion_is_an_empty_list() -> None:
    assert encode_priorities([]) == b"[]"


def test_whole_nodes_are_refused_with_the_setting_to_change() -> None:
    with pytest.raises(BadRequest, match="nodeCacheCapable: true"):
        decode_extender_args(b'{"Pod":{},"Nodes":{"items":[]},"NodeNames":null}')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"NodeNames":["a"]}',
        b'{"Pod":{"metadata":{"name":7}},"NodeNames":[]}',
        b'{"Pod":{},"NodeNames":"a"}',
        b'{"Pod":{},"NodeNames":[1]}',
        b"\xff\xfe",
        b'{"Pod":' * 20_000,
    ],
)
def test_what_is_no_call_is_refused_with_a_reason(body: bytes) -> None:
    with pytest.raises(BadRequest, match="not ExtenderArgs"):
        CandidateNames().of(decode_extender_args(body))


@pytest.mark.parametrize(
    ("what", "text"), [("uid", "u" * 65), ("namespace", "n" * 64), ("name", "p" * 254), ("name", "a\0b")]
)
def test_a_pod_that_cannot_be_is_refused(what: str, text: str) -> None:
    """Nobody but kube-scheduler should ask; a store that refuses such a pod would refuse those beside it."""
    with pytest.raises(BadRequest, match=f"no pod has a {what} like"):
        decode_extender_args(msgspec.json.encode({"Pod": {"metadata": {what: text}}, "NodeNames": ["a"]}))


def test_unknown_fields_are_skipped() -> None:
    args = decode_extender_args(b'{"Pod":{"new":{"x":[1]}},"NodeNames":[],"More":1}')
    assert CandidateNames().of(args).all() == ()


def test_bytes_that_are_no_text_are_refused_only_where_they_are_read() -> None:
    """As damaged input number 1306 of the extender's door had them."""
    args = decode_extender_args(CALL.replace(b'"status"', b'"stat\xaas"'))
    assert CandidateNames().of(args).all() == ("a", "b")
    with pytest.raises(BadRequest, match="not ExtenderArgs"):
        decode_extender_args(CALL.replace(b'"name":"p"', b'"name":"\xaa"'))


def all_of(names: CandidateNames, *some: str) -> tuple[str, ...]:
    return names.of(_call_about(*some)).all()


def _call_about(*names: str) -> ExtenderArgs:
    return decode_extender_args(msgspec.json.encode({"Pod": {}, "NodeNames": names}))


def test_the_same_candidates_are_one_object_in_whatever_order_they_come_and_few_are_remembered() -> None:
    names = CandidateNames()
    first = all_of(names, "a", "b", "c")
    assert all_of(names, "c", "a", "b") is first == ("a", "b", "c")
    for number in range(NAME_LISTS_KEPT - 1):
        all_of(names, f"n{number}")
    assert all_of(names, "b", "a", "c") is first
    all_of(names, "one more")  # in place of what was used longest ago
    assert all_of(names, "a", "b", "c") is first
    for number in range(NAME_LISTS_KEPT):
        all_of(names, f"m{number}")
    assert all_of(names, "a", "b", "c") is not first


def test_as_many_other_candidates_and_some_of_the_same_are_not_taken_for_them() -> None:
    names = CandidateNames()
    for some in (("a", "b", "c"), ("a", "b", "d"), ("a", "b"), ("d", "e", "f"), (), ("b", "a", "d", "c")):
        assert sorted(all_of(names, *some)) == sorted(some)


def long_list(*first: str) -> list[str]:
    return [*first, *(f"ip-10-0-{number}-1.internal" for number in range(LONG_BYTES // 20))]


def test_a_long_list_of_candidates_is_not_read_before_all_of_it_is_needed() -> None:
    names = long_list("ip-10-0-7")
    offered = CandidateNames().of(_call_about(*names))
    assert not offered.are_read
    assert offered.hold("ip-10-0-7")
    assert not offered.hold("ip-10-0-8")  # others begin like this
    assert not offered.hold("0-7-1.internal")  # or end
    assert offered.all() == tuple(names)
    assert offered.are_read


def test_lists_that_are_needed_later_take_up_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate_names, "UNREAD_BYTES_MAX", 16 * LONG_BYTES)
    reader = CandidateNames()
    lists = [long_list(f"own-{number}") for number in range(20)]
    lists[1].append(7)  # type: ignore[arg-type]
    offered = [reader.of(_call_about(*names)) for names in lists]
    for names in offered:
        reader.put_off(names)
    unread = [names.unread_bytes > 0 for names in offered]
    assert unread == sorted(unread)  # the oldest are read
    assert 16 * LONG_BYTES >= sum(names.unread_bytes for names in offered) > 8 * LONG_BYTES
    with pytest.raises(BadRequest, match="NodeNames"):
        offered[1].all()
    del offered[1], lists[1]
    assert [names.all() for names in offered] == [tuple(names) for names in lists]
    assert sum(names.unread_bytes for names in offered) == 0


def test_different_lists_share_their_names() -> None:
    names = CandidateNames()
    first, second = (names.of(_call_about(*long_list(own))).all() for own in ("own-1", "own-2"))
    assert first != second
    assert all(one is other for one, other in zip(first[1:], second[1:], strict=True))


@pytest.mark.parametrize("inside", [["x"], {"x": "y"}, 'a"x'])
def test_a_long_list_with_anything_that_no_name_has_is_read_at_once(inside: object) -> None:
    args = decode_extender_args(msgspec.json.encode({"Pod": {}, "NodeNames": [*long_list(), inside]}))
    if isinstance(inside, str):
        assert CandidateNames().of(args).are_read
    else:
        with pytest.raises(BadRequest, match="NodeNames"):
            CandidateNames().of(args)


def test_a_number_in_a_long_list_is_refused_when_it_is_read() -> None:
    args = decode_extender_args(msgspec.json.encode({"Pod": {}, "NodeNames": [*long_list(), 7]}))
    offered = CandidateNames().of(args)
    with pytest.raises(BadRequest, match="NodeNames"):
        offered.all()
