"""Where an autoscaler sizes the nodes: it adds some for pods that are Pending, and does not see closed gates.

So the first in line, once it has had no room for long enough, is released
without: charged like any other, and what becomes free is kept for it before
anybody else. One gang at a time, or all that waits would be Pending and the
order lost. One that no node came for in the time it has to start has no
reservation any more, and the next is tried.
"""

from __future__ import annotations

import math

from scheduler.core.queue.book import Book
from scheduler.core.queue.gangs import GangRecord


def may_go_without_room(book: Book) -> bool:
    """True where nodes come when something is Pending."""
    return book.settings.release_head_after_s < math.inf


def without_room_too_long(book: Book, head: GangRecord) -> bool:
    """Take note that the head has no room; True when it is to be released all the same."""
    if not may_go_without_room(book):
        return False
    since_s = book.no_room_since_s.setdefault(head.gang.uid, book.now_s)
    tried = any(is_tried(book, book.gangs[uid]) for uid in book.roomless)
    return book.now_s >= since_s + book.settings.release_head_after_s and not tried


def is_tried(book: Book, record: GangRecord) -> bool:
    """True while a released gang without room may be expected to find some."""
    return book.now_s < record.released_s + book.settings.start_timeout_s
