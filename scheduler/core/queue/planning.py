"""Where released pods might go instead of where room was kept first: asked elsewhere, and then kept there.

The core keeps room for a gang on the fullest nodes that fit; which nodes are
fast it does not know. Who does is told what is free (`room_of`), and what he
says comes back as `Planned`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from scheduler.core.plans import PlanPod, PlanRequest, PlanShape
from scheduler.core.queue.book import Book
from scheduler.core.queue.capacity import Trial
from scheduler.core.queue.events import GangPod, Planned, Shape
from scheduler.core.queue.gangs import GangRecord
from scheduler.core.queue.resources import fits


def room_of(book: Book, wanted: Mapping[str, Collection[str]]) -> PlanRequest:
    """What is free if these pods (by the uid of their released gang) were nowhere; and those pods.

    Left out are pods that have a node or that no room is kept for, and nodes on which none of them fits.
    """
    pods = [
        pod
        for gang, uids in wanted.items()
        if (record := book.gangs.get(gang)) is not None
        for pod in movable(book, record, uids)
    ]
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


def movable(book: Book, record: GangRecord, uids: Iterable[str]) -> Iterator[GangPod]:
    """Which of these pods of a released gang have no node yet, and room kept for them."""
    for uid in uids if record.released else ():
        known = uid in record.pods and uid not in record.started and uid not in record.ended
        if known and book.capacity.node_of(uid):
            yield record.pods[uid]


def planned(book: Book, event: Planned) -> None:
    """Keep the room of the gang on these nodes instead, if all of it fits there by now."""
    record = book.gangs.get(event.uid)
    if record is not None:
        book.capacity.move([(pod, event.nodes[pod.uid]) for pod in movable(book, record, event.nodes)])


def _hosts(book: Book, trial: Trial, shape: Shape, kept: set[str]) -> list[str]:
    """Nodes with room for the shape at present, and those that have it once the pods are nowhere."""
    names = {*book.capacity.counts(shape), *kept}
    return [
        name
        for name in names
        if book.capacity.may_host(shape, name) and fits(trial.peek(name), shape.requests)
    ]
