"""Why the experience store cannot be used.

Apart from the store, which loads SQLAlchemy and pandas: most commands only have to tell the error.
"""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot be opened, read or written now; the message says why."""


class StoreAwayError(StoreError):
    """The database does not answer, or refuses us; it may be otherwise later."""
