"""What the recorder keeps: decisions and outcomes, and the predictor's certificate."""

from __future__ import annotations

from scheduler.edge.diagnosis import Findings, note, ok, problem, unreachable
from scheduler.edge.facts import Facts


def decisions(facts: Facts) -> Findings:
    """Whether decisions reach the recorder."""
    status = facts.extender.answer
    counts = status.get("decisions") or {}
    if failure := status.get("recorder_failure"):
        waiting = counts.get("waiting", 0)
        yield problem(
            "recorder",
            f"The extender cannot deliver its decisions, {waiting} wait: {failure}.",
            "Start `fairlane recorder`, and give both the same token (FAIRLANE_TOKEN).",
        )
    if lost := sum(counts.get(why, 0) for why in ("dropped", "refused", "unwritten")):
        yield problem(
            "recorder",
            f"{lost} decisions were lost and will not be learned from.",
            "Mend the recorder; extender.decision_buffer sets how many wait for it. Those that the extender"
            " could not write down are told in its log.",
        )


def recorder(facts: Facts) -> Findings:
    """Whether the recorder and its store work."""
    status = facts.recorder.answer
    if not facts.settings.recorder_url:
        yield note(
            "recorder",
            "No recorder is configured; nothing is recorded and no model can learn.",
            "Start `fairlane recorder` and set recorder_url.",
        )
    elif facts.recorder.failure:
        yield unreachable(
            "recorder", facts.settings.recorder_url, facts.recorder, "Start `fairlane recorder`."
        )
    elif failure := status.get("store_failure"):
        yield problem(
            "recorder",
            f"The experience store cannot be written: {failure}.",
            "Free the store (another process may hold a lock), its disk, or mend recorder.store_url.",
        )
    elif status.get("unready"):
        yield problem("recorder", f"The recorder is not ready: {status['unready']}.", "See its log.")
    else:
        rows = ", ".join(f"{count} {name}" for name, count in (status.get("rows") or {}).items())
        yield ok("recorder", f"The recorder is ready; the store holds {rows or 'nothing yet'}.")
    if dropped := status.get("outcomes_dropped"):
        yield problem(
            "recorder",
            f"{dropped} outcomes of pods were given up.",
            "The store was locked or full for too long; see above and its log.",
        )


def predictor_certificate(facts: Facts) -> Findings:
    """Whether the certificate of the predictor, where the recorder keeps it, is looked after in time."""
    kept = facts.recorder.answer.get("predictor_certificate") or {}
    left_s = kept.get("ends_s", 0.0) - facts.now_s
    if failure := kept.get("failure"):
        ends = f"ends in {left_s / 86400.0:.0f} days" if left_s > 0 else "is not there, or has ended"
        yield problem(
            "predictor",
            f"The recorder cannot look after the predictor's certificate, which {ends}: {failure}.",
            "It needs get and update on the Secret in predictor_certificate.secret, as the chart gives them.",
        )
