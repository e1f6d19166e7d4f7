"""For whom a command prints: people or machines."""

from enum import StrEnum


class Output(StrEnum):
    """For whom the answer is."""

    TEXT = "text"
    JSON = "json"
