"""What all groups of settings have in common."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

YEAR_S = 366 * 86_400.0
Seconds = Annotated[float, Field(gt=0.0, le=YEAR_S)]
"""A time that is waited for; a clock that is told to wait for centuries gives up at once."""
EVERYWHERE = "::"
"""To listen on every address of the machine: of IPv6 and of IPv4."""
Port = Annotated[int, Field(ge=0, le=65535)]


def without_password(url: str) -> str:
    """The address as everybody may read it."""
    return re.sub(r"://[^/]*@", "://", url)


def web_address(text: str) -> str:
    """The text, if it is empty or a URL that can be asked over HTTP; raises `ValueError` if not."""
    parts = urlsplit(text)  # which raises ValueError for a host it can't read, and `port` for such a port
    usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not text.split()[1:]
    if text and not usable:
        raise ValueError(
            f"a URL must start with http:// or https:// and name a host, not {without_password(text)!r}"
        )
    return text


WebAddress = Annotated[str, AfterValidator(web_address)]
"""URL of something that is asked over HTTP; empty where there is none."""


def _without_space_around(given: Any) -> Any:
    text = given.get_secret_value() if isinstance(given, SecretStr) else given
    return text.strip() if isinstance(text, str) else given


Secret = Annotated[SecretStr, BeforeValidator(_without_space_around)]
"""As from a file: a Secret that was made from one ends with a line break, which no header can have."""


class Section(BaseModel):
    """A group of settings: immutable, and every key must be known."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )
