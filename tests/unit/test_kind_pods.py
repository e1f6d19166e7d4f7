"""What a job that has ended is taken to have said."""

from __future__ import annotations

import msgspec
import pytest

from testbed.kind.pods import MESSAGE_CHARS, JobError, Pod


def ended(phase: str, message: str, code: int = 0) -> Pod:
    end = {"exitCode": code, "message": message, "reason": "Error" if code else "Completed"}
    state = {"terminated": end}
    plain = {
        "metadata": {"name": "job"},
        "spec": {"nodeName": "a"},
        "status": {"phase": phase, "containerStatuses": [{"state": state}]},
    }
    return msgspec.convert(plain, Pod)


def test_the_times_of_a_job_are_its_termination_message() -> None:
    assert ended("Succeeded", '{"seconds": 3.5}').said()["seconds"] == 3.5


def test_a_failed_job_is_no_time_and_its_last_words_are_told() -> None:
    with pytest.raises(JobError, match=r"Error 1 .*no route"):
        ended("Failed", "x" * MESSAGE_CHARS + " no route", 1).said()


def test_a_job_that_printed_something_else_is_refused() -> None:
    with pytest.raises(JobError, match="not JSON"):
        ended("Succeeded", "done").said()


def test_a_job_that_has_not_ended_has_not_succeeded() -> None:
    running = msgspec.convert({"metadata": {"name": "job"}, "spec": {}, "status": {"phase": "Running"}}, Pod)
    with pytest.raises(JobError, match="Running"):
        running.succeeded()
