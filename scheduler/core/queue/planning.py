"""Where released pods might go instead of where room was kept first: asked elsewhere, and then kept there.

The core keeps room for a gang on the fullest nodes that fit; which nodes are
fast it does not know. Who does is told what is free (`room_of`), and what he
says comes back as `Planned`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scheduler.core.plans import PlanPod, PlanRequest, PlanShape
from scheduler.core.queue.book import Book
from scheduler.core.queue.capacity import Trial
from scheduler.core.queue.events import GangPod, Planned, Shape
from scheduler.core.queue.gangs import GangRecord
from scheduler.core.queue.resources import fits


def room_of(book: Book, uids: Iterable[str]) -> PlanRequest:
    """What is free if the pods of these released gangs that have no node yet were nowhere; and those pods.

    Left out are pods that no room is kept for, and nodes on which none of them fits.
    """
    pods = [pod for uid in uids if (record := book.gangs.get(uid)) for pod in movable(book, record)]
    trial = Trial(book.capacity)
    for pod in pods:
        trial.give_back(pod.uid)
    kept = {book.capacity.node_of(pod.uid) for pod in pods}
    shapes = {shape: number for number, shape in enumerate(dict.fromkeys(pod.shape for pod in pods))}
    hosts = {shape: _hosts(book, trial, shape, kept) for shape in shapes}
    nodes = sorted({name for names in hosts.values() for name in names})
    position = {name: at for at, name in enumerate(nodes)}
    return PlanRequest(
        nodes,
        [dict(trial.peek(name)) for name in nodes],
        [PlanShape(shape.requests, sorted(position[name] for name in hosts[shape])) for shape in shapes],
        [PlanPod(pod.uid, shapes[pod.shape]) for pod in pods],
    )


def movable(book: Book, record: GangRecord) -> Iterator[GangPod]:
    """Pods of a released gang that have no node yet, and that room is kept for."""
    for uid in record.pods if record.released else ():
        if uid not in record.started and uid not in record.ended and book.capacity.node_of(uid):
            yield record.pods[uid]


def planned(book: Book, event: Planned) -> None:
    """Keep the room of the gang on these nodes instead, if all of it fits there by now."""
    record = book.gangs.get(event.uid)
    if record is not None:
        moved = [(pod, event.nodes[pod.uid]) for pod in movable(book, record) if pod.uid in event.nodes]
        book.capacity.move(moved)


def _hosts(book: Book, trial: Trial, shape: Shape, kept: set[str]) -> list[str]:
    """Nodes with room for the shape at present, and those that have it once the pods are nowhere."""
    names = {*book.capacity.counts(shape), *kept}
    return [
        name
        for name in names
        if book.capacity.may_host(shape, name) and fits(trial.peek(name), shape.requests)
    ]
