"""What time alone brings about: overruns that are charged, and gangs that do not come along."""

from __future__ import annotations

from scheduler.core.queue.actions import Action, DeletePods, Trouble
from scheduler.core.queue.book import Book
from scheduler.core.queue.gangs import GangRecord, Phase

OVERRUN_EVERY_S = (1.0, 30.0)
OVERRUN_EVERY_PART = 0.1
"""A gang that outlives its estimate pays whenever it has run by this part longer, within these seconds: what
it has used and not paid for is what a user gains, for a moment, by telling too little."""
STOP_EVERY_S = 30.0
"""What ran too long and is still there is deleted again so often: the first time may not have arrived."""


def pass_time(book: Book) -> list[Action]:
    """Charge overruns and act on timeouts that are due."""
    _charge_overruns(book)
    actions: list[Action] = []
    while (first := book.deadlines.first()) is not None and first[0][0] <= book.now_s:
        record = book.gangs[first[1]]
        book.deadlines.remove(first[1])
        actions += _late(book, record)
        if record.gang.uid in book.gangs:
            book.set_deadline(book.gangs[record.gang.uid])
    for key in [key for key, hold in book.holds.items() if hold.until_s <= book.now_s]:
        del book.holds[key]
        book.look_again = True
    return actions


def _charge_overruns(book: Book) -> None:
    while (first := book.overruns.first()) is not None and first[0][0] <= book.now_s:
        record = book.gangs[first[1]]
        record.count_until(book.now_s)
        book.charge_overrun(record)
        began_s = book.now_s if record.started_s is None else record.started_s
        book.overruns.put(first[1], (book.now_s + _pays_again_after_s(book.now_s - began_s),))


def _pays_again_after_s(ran_s: float) -> float:
    least_s, most_s = OVERRUN_EVERY_S
    return min(most_s, max(least_s, OVERRUN_EVERY_PART * ran_s))


def _late(book: Book, record: GangRecord) -> list[Action]:
    settings, now_s = book.settings, book.now_s
    if record.phase is Phase.INCOMPLETE:
        return _incomplete(book, record)
    if record.started_s is not None and now_s >= max(
        record.started_s + settings.run_time_s, record.stop_again_s
    ):
        return _stop(book, record)
    half_open_until_s = record.half_open_until_s(settings.half_open_timeout_s)
    # Once told it stays half open, and what else is due must still get its turn.
    if now_s >= half_open_until_s and Trouble.HALF_OPEN not in record.reported:
        closed = len(record.pods.keys() - record.open - record.ended)
        why = f"{closed} of its {len(record.pods)} gates could not be opened within"
        return _give_up(book, record, Trouble.HALF_OPEN, f"{why} {settings.half_open_timeout_s:g} s")
    began_s = record.released_s if record.started_s is None else record.started_s
    if record.stand_ins and now_s >= began_s + settings.promise_timeout_s:
        count = len(record.stand_ins)
        book.give_up_promised(record)
        return [
            *book.tell(
                record,
                Trouble.PROMISE_BROKEN,
                f"{count} pods it had promised did not come; their room is free",
            )
        ]
    if not record.all_started() and now_s >= record.released_s + settings.start_timeout_s:
        waiting = len(record.pods.keys() - record.started.keys() - record.ended)
        why = f"{waiting} of its {len(record.pods)} pods found no node within"
        return _give_up(book, record, Trouble.NOT_STARTED, f"{why} {settings.start_timeout_s:g} s")
    return []


def _stop(book: Book, record: GangRecord) -> list[Action]:
    """An administrator limits run times: all that is left of the gang goes, whoever made it."""
    record.stop_again_s = book.now_s + STOP_EVERY_S
    limit_s = book.settings.run_time_s
    why = f"it has run for {limit_s:g} s, as long as a gang may run in queue {book.settings.name}"
    told = book.tell(record, Trouble.RAN_TOO_LONG, f"{why}: its pods are deleted")
    pods = tuple(sorted(record.pods.keys() - record.ended))
    return [*told, DeletePods(record.gang.uid, pods, why)] if pods else [*told]


def _incomplete(book: Book, record: GangRecord) -> list[Action]:
    there, size = len(record.gang.pods) + len(record.gang.promised), record.gang.size
    sentence = (
        f"{there} of its {size} pods came within {book.settings.incomplete_timeout_s:g} s: "
        "correct the gang's size, or create the pods that are missing"
    )
    return [*book.tell(record, Trouble.INCOMPLETE, sentence)]


def _give_up(book: Book, record: GangRecord, trouble: Trouble, why: str) -> list[Action]:
    """Delete the pods where their owner makes them again; otherwise say so and leave them."""
    pods = tuple(sorted(record.open | (record.pods.keys() & record.asked) - record.ended))
    if not record.gang.recreates or not pods:
        sentence = f"{why}; its pods are left alone, since nothing would make them again: delete them by hand"
        if trouble is Trouble.NOT_STARTED and record.started_s is None:
            # It pays nothing until it is bound, so it could keep others out of its room for ever.
            book.give_up_room(record)
            sentence += ", or they start when there is room for them"
        return [*book.tell(record, trouble, sentence)]
    actions: list[Action] = [*book.tell(record, trouble, f"{why}; its pods are made anew")]
    return [*actions, DeletePods(record.gang.uid, pods, why), book.settle(record, book.now_s, vanished=True)]
