"""What kube-scheduler sends and gets, byte for byte."""

import msgspec
import pytest

from scheduler.core.wire import (
    NAME_LISTS_KEPT,
    BadRequest,
    CandidateNames,
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
    assert CandidateNames().of(args) == ("a", "b")
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
    assert CandidateNames().of(args) == ()


def test_bytes_that_are_no_text_are_refused_only_where_they_are_read() -> None:
    """As damaged input number 1306 of the extender's door had them."""
    args = decode_extender_args(CALL.replace(b'"status"', b'"stat\xaas"'))
    assert CandidateNames().of(args) == ("a", "b")
    with pytest.raises(BadRequest, match="not ExtenderArgs"):
        decode_extender_args(CALL.replace(b'"name":"p"', b'"name":"\xaa"'))


def _call_about(*names: str) -> ExtenderArgs:
    return decode_extender_args(msgspec.json.encode({"Pod": {}, "NodeNames": names}))


def test_the_same_candidates_are_one_object_in_whatever_order_they_come_and_few_are_remembered() -> None:
    names = CandidateNames()
    first = names.of(_call_about("a", "b", "c"))
    assert names.of(_call_about("c", "a", "b")) is first == ("a", "b", "c")
    for number in range(NAME_LISTS_KEPT - 1):
        names.of(_call_about(f"n{number}"))
    assert names.of(_call_about("b", "a", "c")) is first
    names.of(_call_about("one more"))  # in place of what was used longest ago
    assert names.of(_call_about("a", "b", "c")) is first
    for number in range(NAME_LISTS_KEPT):
        names.of(_call_about(f"m{number}"))
    assert names.of(_call_about("a", "b", "c")) is not first


def test_as_many_other_candidates_and_some_of_the_same_are_not_taken_for_them() -> None:
    names = CandidateNames()
    for some in (("a", "b", "c"), ("a", "b", "d"), ("a", "b"), ("d", "e", "f"), (), ("b", "a", "d", "c")):
        assert sorted(names.of(_call_about(*some))) == sorted(some)
