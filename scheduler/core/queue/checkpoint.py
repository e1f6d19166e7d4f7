"""What survives a restart: virtual times, meters, open charges, past runs; as plain values.

Waiting gangs are not in it: the pods themselves say who waits. A charge that
was made after the checkpoint is in its pods' receipts (`GangFound`); one that
was made but never reached the pods is refunded when they are seen with closed
gates; one whose pods are gone is settled at the last time they were seen.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import fields
from typing import Any

from scheduler.core.queue.book import Book, Restored
from scheduler.core.queue.checkpoint_versions import charge_as_of_now, check, known
from scheduler.core.queue.events import Estimate
from scheduler.core.queue.fair_clock import Charge, Flow, Key
from scheduler.core.queue.gangs import GangRecord
from scheduler.core.queue.levels import JobKey, Level, Path, Place
from scheduler.core.queue.lifts import Lifts
from scheduler.core.queue.resources import dominant_share, total

_CHARGE, _PLACE, _ESTIMATE = (tuple(one.name for one in fields(kind)) for kind in (Restored, Place, Estimate))
VERSION, READABLE_BY, OLDEST = 2, 2, 1
"""Of what we write; who can read that; what we can read."""


def export(
    book: Book, *, ended: bool = True, jobs: Container[tuple[Path, JobKey]] | None = None
) -> dict[str, Any]:
    """Plain values that JSON can carry; O(flows + charges).

    `ended`: with the gangs that ended; `jobs`: of the jobs that are not charged, only these (None: all).
    """
    charges = {uid: _plain_charge(info) for uid, info in book.restored.items()}
    for uid, record in book.gangs.items():
        if record.released:
            charges[uid] = _plain_charge(_restorable(book, record))
    return {
        "version": VERSION,
        "readable_by": READABLE_BY,
        "now_s": book.now_s,
        "reference": dict(book.settings.reference),
        "weights": [[list(path), weight] for path, weight in book.weights.items()],
        "paused": book.paused,
        "order": _plain_level(book.order.top, (), jobs),
        "charges": charges,
        "ended": [[uid, sorted(pods), sorted(pods - book.ran)] for uid, pods in book.ended.items()]
        if ended
        else [],
        "received": [[list(path), work] for path, work in book.received.items()],
        "no_room_since_s": book.no_room_since_s.copy(),
        "promoted": list(book.promoted),
        "runs": book.runs.export(),
    }


def revive(book: Book, state: Mapping[str, Any]) -> None:
    """Fill an empty book. Raises `ValueError` for a state that we cannot read, or of another reference."""
    check(state, OLDEST, VERSION)
    if state["reference"] != dict(book.settings.reference):
        raise ValueError(
            "the checkpoint was made with another reference: revive with that, then configure the new one"
        )
    book.now_s = state["now_s"]
    book.weights.update({tuple(path): weight for path, weight in state["weights"]})
    book.paused = state["paused"]
    _fill_level(book, book.order.top, state["order"], 0)
    for uid, pods, *idle in state["ended"]:
        book.ended[uid] = frozenset(pods)
        book.ran |= book.ended[uid].difference(*idle)
    book.received.update({tuple(path): work for path, work in state["received"]})
    book.no_room_since_s.update(state.get("no_room_since_s", {}))
    book.promoted.update(dict.fromkeys(state.get("promoted", ())))
    book.runs.revive(state["runs"])
    for uid, plain in state["charges"].items():
        book.restored[uid] = _charge(plain)
        book.order.expect(book.restored[uid].place)


def _restorable(book: Book, record: GangRecord) -> Restored:
    return Restored(
        record.place,
        record.estimate,
        record.gang.group,
        record.gang.job_class,
        record.share,
        record.charged_work,
        record.used_until(book.now_s),
        record.held_share,
        max(record.counted_s, book.now_s),
        record.released_s,
        record.started_s,
        record.tag,
        record.position,
        record.backfilled,
        tuple(record.pods),
        tuple(record.ended),
        record.ended_work,
        {
            uid: (at_s, dominant_share(total([record.pods[uid].shape.requests]), book.settings.reference))
            for uid, at_s in record.started.items()
            if uid not in record.ended
        },
    )


def _plain_charge(info: Restored) -> dict[str, Any]:
    """As `dataclasses.asdict`, which takes twenty times as long: this is done for all that runs at once."""
    plain = {name: getattr(info, name) for name in _CHARGE}
    place, estimate = info.place, info.estimate
    plain["place"] = {name: getattr(place, name) for name in _PLACE}
    plain["estimate"] = {name: getattr(estimate, name) for name in _ESTIMATE}
    return plain


def _charge(plain: Mapping[str, Any]) -> Restored:
    plain = known(charge_as_of_now(plain), _CHARGE)
    place = known(plain["place"], _PLACE)
    return Restored(
        **{
            **plain,
            "place": Place(
                **{**place, "path": tuple(place["path"]), "job": (place["job"][0], place["job"][1])}
            ),
            "estimate": Estimate(**known(plain["estimate"], _ESTIMATE)),
            "pods": tuple(plain["pods"]),
            "ended": tuple(plain["ended"]),
            "running": {uid: (at_s, share) for uid, (at_s, share) in plain["running"].items()},
        }
    )


def _plain_level(level: Level, path: Path, jobs: Container[tuple[Path, JobKey]] | None) -> dict[str, Any]:
    clock = level.clock
    left_out = {
        key for key in level.jobs if jobs is not None and isinstance(key, tuple) and (path, key) not in jobs
    }
    return {
        "virtual_time": clock.virtual_time,
        "owed": level.owed,
        "flows": [
            [key, _plain_flow(flow, clock.meter(key))]
            for key, flow in clock.flows.items()
            if flow.charges or key not in left_out
        ],
        "below": {key: _plain_level(below, (*path, key), jobs) for key, below in level.below.items()},
    }


def _plain_flow(flow: Flow, meter: float) -> dict[str, Any]:
    return {
        "weight": flow.weight,
        "tier": flow.tier,
        "meter": meter,
        "charges": {uid: [charge.work, charge.number] for uid, charge in flow.charges.items()},
        "charges_made": flow.charges_made,
        "lifts": [list(flow.lifts.at), list(flow.lifts.headroom)],
        "ledger": flow.ledger,
        "received": flow.received,
        "resuming": bool(flow.waiting or flow.resuming),
    }


def _fill_level(book: Book, level: Level, plain: Mapping[str, Any], depth: int) -> None:
    level.owed = plain["owed"]
    flows: dict[Key, Flow] = {}
    for key, flow in plain["flows"]:
        flows[tuple(key) if isinstance(key, list | tuple) else key] = _flow(flow)
    level.clock.revive(plain["virtual_time"], flows)
    for key, below in plain["below"].items():
        level.below[key] = book.order.new_level(depth + 1)
        _fill_level(book, level.below[key], below, depth + 1)


def _flow(plain: Mapping[str, Any]) -> Flow:
    return Flow(
        plain["weight"],
        plain["tier"],
        plain["meter"],
        charges={uid: Charge(work, number) for uid, (work, number) in plain["charges"].items()},
        charges_made=plain["charges_made"],
        lifts=Lifts(*(list(part) for part in plain["lifts"])),
        ledger=plain["ledger"],
        received=plain["received"],
        resuming=plain["resuming"],
    )
