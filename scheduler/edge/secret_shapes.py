"""What secrets look like in logs, events, objects and settings. Pure.

Rather too much than too little goes: a value without quotes ends at white
space or at a quote and nowhere else, since a password may contain the comma
after which a reader would go on. What was JSON must still be JSON: what stands
in quotes is replaced between them, and a quote's backslash stays with it.

Numbers behind telling names are secrets like others (`PGPASSWORD=1234`), but
for those that count things: `tokens=5`. Time grows with the text and no
faster, whatever it is: no pattern begins with a repetition that could begin
anywhere, and repetitions that could be split in several ways are possessive.
"""

from __future__ import annotations

import re
from collections.abc import Callable

GONE = "[redacted]"
Found = re.Match[str]

NAMES = (
    r"passw(?:or)?d|passphrase|passcode|secret|token|credential"
    r"|(?:api|access|account|private|signing|encryption|shared|session|auth|secret|client)[_.-]?key"
    r"|session[_-]?id|x-(?:amz|goog)-signature|(?<=[?&])sig|pwd(?<![a-z]pwd)|pass(?<=[_.-]pass)"
    r"|(?-i:(?<=[a-z])Pass)|account\.key(?:\.[\w-]{1,80}){1,8}+"
)
"""How the name of a secret ends, but for what `_TAIL` adds."""
_TAIL = r"s?(?:[_-]?(?:value|hash|data|plain|raw|text|base64|b64|old|new))?[_-]?\d{0,3}"
_NAME = rf"(?P<name>(?=[pstcaxe])(?:{NAMES}){_TAIL})"
_HEADERS = r"(?P<name>authorization|cookie2?)"

_STRING = r"\"(?:[^\"\\\n]|\\.)*+(?:\"|(?=\n)|\Z)"
_SINGLE = r"'(?:[^'\n]|'')*+(?:'|(?=\n)|\Z)"
_BARE = r"(?:[^\s\"\\]|\\+(?!\\*\"))++"
_REST = r"(?:[^\n\"\\]|(?<==)\"[^\"\n]*+\"|(?<==)\\+\"[^\"\n]*+\"|\\+(?!\\*\"))++"
"""To the end of the line, or of the string it is in; with values in quotes, as in `nonce="..."`."""
_WORD = r"[^\s,}\]\"'\\\[{]++"
_WORDS = r"[^\n,}\]\"\\\[{]++"
_LIST = rf"\[\s*+(?:(?:{_STRING}|[^\s\"\[\]{{}},\\]++)\s*+,?\s*+)*+\]"
_TIME = r"(?:\d{4}-\d\d-\d\d[T ]\S++[ \t])?"
"""Logs are fetched with one before each line."""


def _escaped(name: str) -> str:
    """A string inside a string: it ends at a quote with as many backslashes as it began with."""
    quote = rf"(?P={name})"
    return rf"(?P<{name}>\\+\")(?:\\(?!\\*+\")|[^\\\n\"]|(?!{quote})\\+\")*+(?:{quote}|(?=[\n\"])|\Z)"


def _quoted(name: str) -> str:
    return rf"(?:[bru]{{0,2}}(?:{_STRING}|{_escaped(name)}|{_SINGLE}))"


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(f"(?i){pattern}")


_JSON_SAYS = r"(?P<quote>\\*[\"'])\s*+(?:=>|[:=])\s*+"
_NO_PROSE = r"(?<![\"'][ \t]:[ \t])(?<![\"'][ \t]:)"
"""Of what is mounted, events say: volume "token" : secret "own" not found."""
_PLAIN_SAYS = r"[ \t]*+(?:={1,3}>?|%3d|:=?(?![ \t]*\{)|:=)[ \t]*+"
_BREAK = r"(?:(?:\\+r)?(?:\\+n)|\r?\n)"
_PEM_LINE = r"(?:[A-Za-z0-9+/=]{1,100}|(?:Proc-Type|DEK-Info|Comment|Version): [^\n\\\"]{0,100})?"
_BEFORE_PEM_END = re.compile(
    rf"(?:(?<=\\n)|(?<![A-Za-z0-9+/=\\]))"
    rf"(?:{_TIME}{_PEM_LINE}|[A-Za-z0-9+/=]{{1,100}})[ \t]*{_BREAK}{_TIME}\Z"
)
_PEM_END = re.compile(r"-{0,5}END [A-Z0-9 ]{1,40}-----")
_PEM_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]{1,40}-----"
    r"(?:(?:(?!-----BEGIN )[\s\S]){0,16384}?-----END [A-Z0-9 ]{1,40}-----"
    rf"|[ \t]*(?:{_BREAK}{_TIME}{_PEM_LINE}(?=\\|\s|[\"']|\Z))*+)"
)

_LINE = rf"(?m:^){_TIME}(?P<indent>[ \t]*)"
_KEY = rf"(?:-[ \t]+)*[\"']?[\w.-]{{0,80}}?{_NAME}[\"']?:[ \t]*"
_YAML_BLOCK = _compiled(
    rf"(?P<keep>{_LINE}{_KEY}[|>][-+\d]*[ \t]*(?:#[^\n]*)?\n)"
    rf"(?P<value>(?:{_TIME}(?:(?P=indent)[ \t]+\S[^\n]*(?:\n|\Z)|[ \t]*\n))++)"
)
_YAML_NEXT_LINE = _compiled(
    rf"(?P<keep>{_LINE}{_KEY}\n{_TIME}(?P=indent)[ \t]+)"
    r"(?![\w.\"'/-]+:(?:\s|\Z)|-[ \t]|[{\[])(?P<value>\S[^\n]*)"
)
_ESCAPED_BLOCK = _compiled(
    rf"(?P<keep>{_NAME}\\*[\"']?:[ \t]*[|>][-+\d]*[ \t]*)"
    r"(?P<value>(?:\\+n[ \t]+(?:[^\n\"\\]|\\+(?![\\n\"]))*+)++)"
)


def _replaced(found: Found) -> str:
    """What is found, with its value taken out: in quotes if it was, or if its name was."""
    groups = found.groupdict()
    name, value = (groups.get("name") or "").lower(), groups["value"]
    if _is_no_secret(name, value):
        return found[0]
    own = re.match(r"(?:[bru]{0,2})(\\*[\"'])", value, re.IGNORECASE)
    quote = own[1] if own else groups.get("quote") or ""
    if "indent" in groups and value.endswith("\n"):
        return f"{groups['keep']}{groups['indent']}  {GONE}\n"
    return f"{groups['keep']}{quote}{GONE}{quote}"


def _is_no_secret(name: str, value: str) -> bool:
    if name in ("tokens", "secrets") and re.fullmatch(r"-?\d+(?:\.\d+)?[,;)}\]]*", value):
        return True
    bare = value.strip(",;)}]").strip("\\\"'").lower()
    return bare in ("", "true", "false", "null", "none", "nil", "<nil>", "~", GONE[:-1])


def _long(found: Found) -> str:
    """Of letters and digits without sense; a path has more slashes than base64."""
    text = found["value"]
    return found[0] if text.count("/") > len(text) / 12 else GONE


def _whole(_found: Found) -> str:
    return GONE


def without_pem_tails(text: str) -> tuple[str, int]:
    """Without the ends of PEM blocks whose beginnings are missing, as in a log that was cut; and how many."""
    kept: list[str] = []
    done = count = 0
    for end in _PEM_END.finditer(text):
        start = end.start()
        while start > done and (line := _BEFORE_PEM_END.search(text, max(done, start - 300), start)):
            start = line.start()
        kept += [text[done:start], GONE]
        done, count = end.end(), count + 1
    return "".join([*kept, text[done:]]), count


SHAPES: tuple[tuple[str, re.Pattern[str], Callable[[Found], str]], ...] = (
    ("PEM block", _PEM_BLOCK, _whole),
    ("JSON web token", re.compile(r"eyJ[\w-]{6,4096}+(?:\.[\w-]*){1,4}"), _whole),
    ("value in a YAML block", _YAML_BLOCK, _replaced),
    ("value in a YAML block", _ESCAPED_BLOCK, _replaced),
    ("value in a YAML block", _YAML_NEXT_LINE, _replaced),
    (
        "authorization or cookie",
        _compiled(
            rf"(?P<keep>{_HEADERS}(?:(?P<quote>\\*[\"'])\s*+[:=,]\s*+))(?P<value>{_quoted('e')}|{_LIST}|{_WORDS})"
        ),
        _replaced,
    ),
    (
        "authorization or cookie",
        _compiled(rf"(?P<keep>{_HEADERS}{_PLAIN_SAYS})(?P<value>{_REST})"),
        _replaced,
    ),
    (
        "authorization or cookie",
        _compiled(r"(?P<keep>\bbearer[ \t]+)(?!tokens?\b|auth|realm)(?P<value>[\w.~+/=-]{6,})"),
        _replaced,
    ),
    (
        "authorization or cookie",
        re.compile(
            r"(?P<keep>\b(?i:basic)[ \t]+)(?!(?i:auth))"
            r"(?P<value>(?=[a-z+/]*[0-9A-Z=])[A-Za-z0-9+/]{6,}={0,2})"
        ),
        _replaced,
    ),
    (
        "authorization or cookie",
        _compiled(rf"(?P<keep>\bdigest[ \t]+)(?P<value>\w+=(?=\S){_REST})"),
        _replaced,
    ),
    (
        "value behind a telling name",
        _compiled(rf"(?P<keep>{_NAME}{_JSON_SAYS})(?P<value>{_quoted('e')}|{_LIST}|{_NO_PROSE}{_WORD})"),
        _replaced,
    ),
    (
        "value behind a telling name",
        _compiled(rf"(?P<keep>{_NAME}{_PLAIN_SAYS})(?P<value>{_quoted('e')}|{_BARE})"),
        _replaced,
    ),
    (
        "value behind a telling name",
        _compiled(
            rf"(?P<keep>\bname\\*[\"']?:\s*+\\*[\"']?[\w.-]{{0,80}}?{_NAME}[\w.-]{{0,80}}\\*[\"']?,?\s*+"
            rf"{_TIME}[ \t]*+\\*[\"']?value\\*[\"']?:[ \t]*+)(?P<value>{_quoted('e')}|{_BARE})"
        ),
        _replaced,
    ),
    (
        "value behind a telling option",
        _compiled(
            rf"(?P<keep>(?<![\w-])--?[\w-]{{0,60}}?{_NAME}(?:[ \t]++|(?P<quote>\\*[\"'])\s*+,\s*+))"
            rf"(?!\\*[\"']?--)(?P<value>{_quoted('e')}|{_BARE})"
        ),
        _replaced,
    ),
    (
        "value behind a telling option",
        _compiled(rf"(?P<keep>\s(?:-u|--user)[ =]\S+?:)(?P<value>{_BARE})"),
        _replaced,
    ),
    (
        "password in a URL",
        re.compile(r"(?P<keep>://)(?P<value>[^\s\"/@:]{0,512}:[^\s\"]{0,512}(?=@)|[^\s/\"@']{1,512}(?=@))"),
        _replaced,
    ),
    (
        "access key",
        re.compile(
            r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}|AIza[\w-]{30,}|gh[pousr]_\w{30,}|github_pat_\w{20,}"
            r"|glpat-[\w-]{20,}|xox[abeprs]-[\w-]{10,}|sk-[\w-]{20,}|hf_\w{20,}|sha256~[\w-]{20,}"
            r"|[sr]k_(?:live|test)_\w{16,}|SG\.[\w-]{16,}\.[\w-]{16,}|npm_\w{30,}|dckr_pat_[\w-]{20,}|hv[sbr]\.[\w-]{20,}"
            r"|ya29\.[\w-]{20,})"
        ),
        _whole,
    ),
    (
        "access key",
        re.compile(r"(?<=hooks\.slack\.com/)(?:services|workflows)/[\w/]{20,}"),
        _whole,
    ),
    (
        "authorization or cookie",
        re.compile(r"(?P<keep>\bauth(?P<quote>\\*\")\s*+:\s*+)(?P<value>\\*\"[A-Za-z0-9+/]{8,}={0,2}\\*\")"),
        _replaced,
    ),
    (
        "long text without sense",
        re.compile(
            r"(?<![A-Za-z0-9+/=_.-])(?P<value>(?=[a-z0-9+/]*[A-Z])(?=[A-Z0-9+/]*[a-z])(?=[A-Za-z+/]*\d)"
            r"[A-Za-z0-9+/]{40,}+={0,2})"
        ),
        _long,
    ),
)
"""Kind, pattern, and what stands there afterwards; in this order."""
