"""The experience store: decisions, what they were read from, and what became of the pods."""

from scheduler.edge.store.experience import ExperienceStore, Placement
from scheduler.edge.store.settling import Judged
from scheduler.edge.store_error import StoreAwayError, StoreError

__all__ = ["ExperienceStore", "Judged", "Placement", "StoreAwayError", "StoreError"]
