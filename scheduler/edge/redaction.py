"""Takes secrets out of text that leaves the cluster, and, where wanted, the names of users. Pure.

Three nets, one behind the other: values that are known to be secret, whatever
they look like; what looks like one (keys, tokens, passwords in URLs); and what
stands behind a word such as `password`. Rather too much than too little goes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import urllib.parse
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from scheduler.edge.secret_shapes import GONE, NAMES, SHAPES, without_pem_tails

SECRET_LENGTH_MIN = 4
"""Shorter values are not searched for: they would be found in every other word."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_RUN, _INSIDE = re.compile(r"[A-Za-z0-9]+"), re.compile(r"[A-Za-z0-9]{2}")
_ESCAPED = re.compile(r"[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[bfnrt]")
_IN_URL = re.compile(r"://[^:/@]*:([^@]*)@")
_IN_QUERY = re.compile(r"[?&](?:ssl)?password=([^&]*)")
_TELLING = re.compile(rf"(?i)--?[\w-]*(?:{NAMES})s?$")


class Redactor:
    """Call it with a text; `counts` says how much of what was taken out.

    Names of `users` become `user-` and a hash that is the same throughout, by `salt`, which is thrown away.
    """

    def __init__(self, secrets: Iterable[str], users: Iterable[str] = (), salt: bytes = b"") -> None:
        known = {
            form
            for secret in secrets
            if len(secret) >= SECRET_LENGTH_MIN
            for form in _forms(secret) | _base64(secret)
        }
        self._secrets = sorted(known, key=len, reverse=True)
        self._names = _Names({form: _hashed(user, salt) for user in users if user for form in _forms(user)})
        self.counts: Counter[str] = Counter()

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._secrets:
            self.counts["known secret"] += text.count(secret)
            text = text.replace(secret, GONE)
        for kind, pattern, instead in SHAPES:
            text = self._without(kind, pattern, instead, text)
        text, tails = without_pem_tails(text)
        self.counts["PEM block"] += tails
        text, count = self._names.replaced(text)
        self.counts["user name, hashed"] += count
        return text

    def _without(
        self, kind: str, pattern: re.Pattern[str], instead: Callable[[re.Match[str]], str], text: str
    ) -> str:
        def put(found: re.Match[str]) -> str:
            told = instead(found)
            self.counts[kind] += told != found[0]
            return told

        return pattern.sub(put, text)


class _Names:
    """Puts something else in the place of names, of which there may be thousands.

    A name is found by its first run of letters and digits: a pattern of all names would be tried, name by
    name, at every place of the text.
    """

    def __init__(self, instead: Mapping[str, str]) -> None:
        self._by_run: dict[str, list[tuple[int, str, str]]] = {}
        self._without_run: dict[str, str] = {}
        for name in sorted(instead, key=len, reverse=True):
            if run := _RUN.search(name):
                self._by_run.setdefault(run[0], []).append((run.start(), name, instead[name]))
            else:
                self._without_run[name] = instead[name]

    def replaced(self, text: str) -> tuple[str, int]:
        """The text without the names, and how many there were."""
        count = sum(text.count(name) for name in self._without_run)
        for name, instead in self._without_run.items():
            text = text.replace(name, instead)
        kept: list[str] = []
        done = 0
        for at, run in _runs(text):
            for offset, name, instead in self._by_run.get(run, ()):
                start = at - offset
                if start >= done and _is_there(name, text, start):
                    kept += [text[done:start], instead]
                    done = start + len(name)
                    break
        return "".join([*kept, text[done:]]), count + len(kept) // 2


def _runs(text: str) -> Iterator[tuple[int, str]]:
    """Where runs of letters and digits begin; behind `%2F` or `\\n`, which may be a character, there too."""
    for run in _RUN.finditer(text):
        start, end = run.span()
        yield start, run[0]
        if start and text[start - 1] in "%\\" and (character := _ESCAPED.match(text, start, end)):
            yield character.end(), text[character.end() : end]


def _is_there(name: str, text: str, start: int) -> bool:
    """Whether the name is there, and no longer word that begins with it."""
    end = start + len(name)
    return text.startswith(name, start) and not _INSIDE.fullmatch(name[-1] + text[end : end + 1])


def _forms(text: str) -> set[str]:
    """As it stands in text, in JSON and in a URL."""
    inside = json.dumps(text)[1:-1]
    return {text, inside, json.dumps(text, ensure_ascii=False)[1:-1], urllib.parse.quote(text, safe="")}


def _base64(text: str) -> set[str]:
    """As in a Secret, or anywhere in what is encoded; without characters that depend on what is around it."""
    before = {
        0: 0,
        1: 2,
        2: 3,
    }  # bytes of its first group of three that are not its own, and their characters
    return {
        b64encode(bytes(count) + text.encode()).decode().rstrip("=")[characters:-1]
        for count, characters in before.items()
    }


def _hashed(user: str, salt: bytes) -> str:
    return "user-" + hmac.new(salt, user.encode(), hashlib.sha256).hexdigest()[:8]


def bare_object(one: Any) -> Any:
    """A Kubernetes object without values of environment variables and Secrets, and what kubectl copied."""
    if isinstance(one, list):
        return (
            _bare_words(one) if all(isinstance(item, str) for item in one) else [bare_object(x) for x in one]
        )
    if not isinstance(one, Mapping):
        return one
    kept = {key: value for key, value in one.items() if key not in ("managedFields", LAST_APPLIED)}
    if kept.get("kind") == "Secret":
        kept = {key: value for key, value in kept.items() if key not in ("data", "stringData")}
    if isinstance(kept.get("env"), list):
        kept["env"] = [_bare_variable(variable) for variable in kept["env"]]
    return {key: value if key == "env" else bare_object(value) for key, value in kept.items()}


def _bare_variable(variable: Any) -> Any:
    if not isinstance(variable, Mapping) or "value" not in variable:
        return variable
    return {**variable, "value": GONE}


def _bare_words(words: list[str]) -> list[str]:
    """A command line: what follows an option with a telling name is a value."""
    bare: list[str] = []
    for word in words:
        after = bool(bare) and _TELLING.match(bare[-1]) is not None
        bare.append(GONE if after and not word.startswith("--") else word)
    return bare


def passwords_in(url: str) -> list[str]:
    """Those of a URL, as they are written and as they are meant.

    By patterns: databases take passwords with characters that a URL's own rules read otherwise, or refuse.
    """
    written = [*_IN_URL.findall(url), *_IN_QUERY.findall(url)]
    return [form for one in written for form in (one, urllib.parse.unquote(one))]


def secret_variables(environment: Mapping[str, str]) -> list[str]:
    """Values of variables with telling names."""
    telling: Callable[[str], Any] = re.compile(rf"(?i){NAMES}").search
    return [value for name, value in environment.items() if value and telling(name.replace("-", "_"))]
