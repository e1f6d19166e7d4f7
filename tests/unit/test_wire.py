"""What kube-scheduler sends and gets, byte for byte."""

import pytest

from scheduler.core.wire import (
    NAME_LISTS_KEPT,
    BadRequest,
    CandidateNames,
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


def test_unknown_fields_are_skipped() -> None:
    args = decode_extender_args(b'{"Pod":{"new":{"x":[1]}},"NodeNames":[],"More":1}')
    assert CandidateNames().of(args) == ()


def test_bytes_that_are_no_text_are_refused_only_where_they_are_read() -> None:
    """As damaged input number 1306 of the extender's door had them."""
    args = decode_extender_args(CALL.replace(b'"status"', b'"stat\xaas"'))
    assert CandidateNames().of(args) == ("a", "b")
    with pytest.raises(BadRequest, match="not ExtenderArgs"):
        decode_extender_args(CALL.replace(b'"name":"p"', b'"name":"\xaa"'))


def test_the_same_list_of_candidates_is_read_once_and_few_are_remembered() -> None:
    names, args = CandidateNames(), decode_extender_args(CALL)
    first = names.of(args)
    assert names.of(decode_extender_args(CALL)) is first
    for number in range(NAME_LISTS_KEPT):
        names.of(decode_extender_args(b'{"Pod":{},"NodeNames":["n%d"]}' % number))
    assert names.of(args) is not first
