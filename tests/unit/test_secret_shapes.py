"""A secret does not survive in any of the ways in which programs write one down; what is no secret does."""

from __future__ import annotations

import base64
import json
import string
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scheduler.edge.redaction import Redactor
from scheduler.edge.secret_shapes import GONE

TIME = "2026-11-22T00:10:08.123456789Z "
VISIBLE = "".join(chr(code) for code in range(33, 127))
PLAIN = VISIBLE.translate({ord(mark): None for mark in "\"'\\"})
"""What a value without quotes can hold: a quote ends it."""
TOKENS = string.ascii_letters + string.digits + "._~+/-"
BASE64 = string.ascii_letters + string.digits + "+/"
NAMES = (
    "password",
    "PGPASSWORD",
    "db_password",
    "pwd",
    "secret",
    "client_secret",
    "token",
    "apiKey",
    "db-pass",
)
NAMES += (
    "passwd",
    "AWS_SECRET_ACCESS_KEY",
    "password1",
    "tokenValue",
    "DB_PASS",
    "credentials",
    "passphrase",
)

Shape = Callable[[str], str]


def escaped(text: str, times: int = 1) -> str:
    """As it stands in JSON in JSON."""
    for _ in range(times):
        text = json.dumps(text)
    return text


ANY_NAME: dict[str, Callable[[str, str], str]] = {
    "equals": lambda name, secret: f"login {name}={secret} by alice",
    "equals, spaced": lambda name, secret: f"login {name} = {secret} by alice",
    "colon": lambda name, secret: f"login {name}: {secret}",
    "colon, tight": lambda name, secret: f"{name}:{secret}x",
    "compared": lambda name, secret: f"if {name} == {secret}",
    "braces": lambda name, secret: f"{name}=[{secret}]",
    "bytes": lambda name, secret: f"{name}=b'{secret}'",
    "query": lambda name, secret: f"GET https://h:8443/x?{name}={secret}&a=1 200",
    "query, quoted": lambda name, secret: f"GET /x?{name}%3D{secret} 200",
    "yaml": lambda name, secret: f"spec:\n  - {name}: {secret}\n    user: x\n",
    "yaml, next line": lambda name, secret: f"spec:\n  {name}:\n    x{secret}\nb: c\n",
    "yaml block": lambda name, secret: f"a:\n  {name}: |\n    x\n\n    {secret}\n  b: c\n",
    "yaml block, folded": lambda name, secret: f"{name}: >-\n  {secret}\n  {secret}\nb: c\n",
    "yaml block in a log": lambda name, secret: f"{TIME}{name}: |\n{TIME}  {secret}\n{TIME}done\n",
    "yaml block in JSON": lambda name, secret: escaped(f"a:\n  {name}: |\n    {secret}\n  b: c\n"),
    "option": lambda name, secret: f"ran with --{name} x{secret} --port 3",
    "option, equals": lambda name, secret: f"ran with --{name}={secret} --port 3",
    "options": lambda name, secret: json.dumps(["--" + name, secret]),
    "variable": lambda name, secret: json.dumps({"name": name, "value": secret}, indent=1),
    "variable in yaml": lambda name, secret: f"env:\n- name: {name}\n  value: {secret}\n",
}
IN_QUOTES: dict[str, Callable[[str, str], str]] = {
    "json": lambda name, secret: json.dumps({"a": 1, name: secret, "b": 2}),
    "json, indented": lambda name, secret: json.dumps({"a": 1, name: secret, "b": 2}, indent=1),
    "json, tight": lambda name, secret: json.dumps({name: secret, "b": "c"}, separators=(",", ":")),
    "json list": lambda name, secret: json.dumps({name: [secret, secret], "b": "c"}, indent=1),
    "json in json": lambda name, secret: json.dumps({"m": json.dumps({name: secret, "b": "c"})}),
    "json thrice": lambda name, secret: json.dumps(json.dumps(json.dumps({name: secret, "b": "c"}))),
    "python": lambda name, secret: f"got { ({name: secret, 'b': 'c'})!r}",
    "logfmt": lambda name, secret: f"{name}={json.dumps(secret)} b=c",
    "sentence in JSON": lambda name, secret: json.dumps(
        {"message": f"login {name}={json.dumps(secret)}", "b": 2}
    ),
}
HEADERS: dict[str, Shape] = {
    "token": lambda secret: f"Authorization: Token {secret}",
    "basic": lambda secret: (
        f"> Authorization: Basic {base64.b64encode(secret.encode()).decode()}\n> Accept: */*"
    ),
    "digest": lambda secret: (
        f'Authorization: Digest username="x", nonce="{secret}", response="{secret}"\nnext'
    ),
    "bare": lambda secret: f"authorization={secret}",
    "cookie": lambda secret: f"cookie: session={secret}; other={secret}",
    "set-cookie": lambda secret: f"Set-Cookie: id={secret}; Path=/; Secure",
    "curl": lambda secret: f"curl -H 'Authorization: Token {secret}' https://x",
    "json": lambda secret: json.dumps(
        {"Authorization": f"Token {secret}", "Cookie": f"a={secret}; b={secret}"}
    ),
    "line in JSON": lambda secret: json.dumps({"m": f"Cookie: a={secret}; b={secret}\nnext", "n": 1}),
    "asgi": lambda secret: f"[(b'authorization', b'Token {secret}'), (b'cookie', b'a={secret}')]",
    "url": lambda secret: f"cannot reach postgresql://u:{secret}@db:5432/x?ssl=1",
    "url of no user": lambda secret: f"redis://:{secret}@cache:6379/0 is away",
}


def is_open(secret: str) -> bool:
    """Whether what was drawn is a word that may stay."""
    return secret.strip(",;)}]").strip("\\\"'").lower() in (
        "",
        "true",
        "false",
        "null",
        "none",
        "nil",
        "<nil>",
        "~",
    )


def without(text: str) -> str:
    """What is left; without our own word, which can be drawn as a secret."""
    return Redactor([])(text).replace(GONE, "")


def goes(text: str, secret: str) -> None:
    told = without(text)
    assert secret not in told, told
    for at in range(0, len(secret) - 7):  # nor a large piece of it
        assert secret[at : at + 8] not in told, told


unquoted = st.text(PLAIN, min_size=6, max_size=24).filter(lambda one: not is_open(one) and "{" not in one[:1])
quoted = st.text(VISIBLE + " äß", min_size=6, max_size=24).filter(lambda one: not is_open(one.strip()))


@pytest.mark.parametrize("shape", ANY_NAME)
@settings(max_examples=40)
@given(name=st.sampled_from(NAMES), secret=unquoted)
def test_a_secret_behind_a_telling_name_goes(shape: str, name: str, secret: str) -> None:
    goes(ANY_NAME[shape](name, f"Qz{secret}"), secret)


@pytest.mark.parametrize("shape", IN_QUOTES)
@settings(max_examples=40)
@given(name=st.sampled_from(NAMES), secret=quoted)
def test_a_secret_in_quotes_goes_and_what_was_json_stays_json(shape: str, name: str, secret: str) -> None:
    text = IN_QUOTES[shape](name, secret)
    told = without(text)
    inside = json.dumps(secret)[1:-1]
    for form in (secret, inside, json.dumps(inside)[1:-1], secret[1:], inside[:-1]):
        assert form not in told, told
    if text.startswith(("{", '"')):
        json.loads(Redactor([])(text))


@pytest.mark.parametrize("shape", HEADERS)
@settings(max_examples=40)
@given(secret=st.text(TOKENS, min_size=8, max_size=40))
def test_a_secret_in_a_header_or_a_url_goes(shape: str, secret: str) -> None:
    around = HEADERS[shape]("")
    assume(not any(secret[at : at + 8] in around for at in range(len(secret) - 7)))  # a piece of a name stays
    text = HEADERS[shape](secret)
    goes(text, secret)
    goes(text, base64.b64encode(secret.encode()).decode())
    if text.startswith("{"):
        json.loads(Redactor([])(text))


@given(
    name=st.sampled_from(("password", "PGPASSWORD", "db_password", "token", "secret")),
    number=st.integers(100_000, 10**12),
    shape=st.sampled_from(("{}={}", "{}: {}", '{{"{}": {}, "b": 1}}', "{{'{}': {}}}", "--{} {}")),
)
def test_a_secret_of_digits_goes_though_it_looks_like_a_figure(name: str, number: int, shape: str) -> None:
    text = shape.format(name, number)
    goes(text, str(number))
    if text.startswith('{"'):
        assert json.loads(Redactor([])(text))["b"] == 1


@given(st.text(TOKENS.replace(".", ""), min_size=9, max_size=60), st.sampled_from(("Bearer ", "bearer ")))
def test_a_bearer_token_goes_without_its_header(secret: str, word: str) -> None:
    goes(f"sent {word}Q1{secret} to the server", secret)


@given(
    st.lists(st.binary(min_size=9, max_size=60), min_size=2, max_size=3),
    st.sampled_from(("{}", "x {} y", "a={}")),
)
def test_a_web_token_goes_where_it_stands_alone(parts: list[bytes], around: str) -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    rest = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts]
    for part in rest:
        goes(around.format(".".join([head, *rest])), part)


@given(st.text(BASE64, min_size=40, max_size=40))
def test_a_key_of_forty_signs_goes_where_it_stands_alone(key: str) -> None:
    key = "a1B" + key[3:].replace("/", "x")
    assert key not in Redactor([])(f"using {key} and AKIA{'A1' * 8} now")


WRITTEN_BY_OTHERS = (
    ("charge failed: {}", "sk_live_51H8xYzKj2eZvKYlo2C9Qw"),
    ("mail: {}", "SG.ngeVfQFYQlKU0ufo8x5d1A.TwL2iGABf9DHoTf-09kqeF8t"),
    ("pull: {}", "dckr_pat_abcdefghijklmnopqrstuvwxy"),
    ("install: {}", "npm_aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789"),
    ("vault: {}", "hvs.CAESIJ1234567890abcdefghijklmnop"),
    ("google: {}", "ya29.a0AfH6SMBxxxxxxxxxxxxxxxxxxxx"),
    ("POST https://hooks.slack.com/{}", "services/T00000000/B00000000/ABCDEFabcdef0123456789"),
    ('{{"auths": {{"registry": {{"auth": "{}"}}}}}}', "dXNlcjpwYXNzd29yZA=="),
    ("spark.hadoop.fs.s3a.secret.key={} x", "wJalrXUtnFEMI"),
    ("--conf spark.hadoop.fs.s3a.access.key={}", "DEXAMPLE1"),
    ("fs.azure.account.key.lake.dfs.core.windows.net={}", "abc123secret=="),
    ("GET https://lake.blob.core.windows.net/c?sv=2020&sig={}&se=1", "abcDEF%2B123%3D"),
    ("GET https://storage.googleapis.com/b?X-Goog-Signature={}", "0123456789abcdef"),
    ("-Djavax.net.ssl.keyStorePass={}", "changeit"),
)
"""How others write down their keys, and a key."""


@pytest.mark.parametrize(("line", "key"), WRITTEN_BY_OTHERS)
def test_a_key_goes_in_the_ways_of_registries_stores_and_spark(line: str, key: str) -> None:
    told = Redactor([])(line.format(key))
    assert key not in told
    assert GONE in told


def pem(content: bytes, kind: str = "RSA PRIVATE KEY") -> list[str]:
    text = base64.b64encode(content).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return [f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----"]


@given(
    content=st.binary(min_size=60, max_size=400),
    first=st.integers(0, 3),
    last=st.integers(0, 3),
    way=st.sampled_from(("\n", "\r\n", "\\n", "\\\\n", f"\n{TIME}")),
)
def test_a_key_goes_also_when_its_beginning_or_its_end_is_cut_off(
    content: bytes, first: int, last: int, way: str
) -> None:
    lines = pem(content)
    kept = lines[first : len(lines) - last] if first == 0 or last == 0 else lines
    body = [line for line in kept if not line.startswith("-----")]
    text = way.join(["before", *kept, "after it"] if last == 0 else ["before it", *kept])
    told = Redactor([])(text)
    for line in body:
        assert line not in told or len(line) < 8, told
    assert "before" in told or first
    assert "after it" in told or last


@pytest.mark.parametrize(
    "line",
    [
        "the bearer token is missing or wrong: set FAIRLANE_TOKEN",
        "Basic authentication is not offered; bearer authentication is",
        '"decisions_stored": 12, "outcomes_waiting": 0',
        "http://fairlane-recorder:8890/v1/status",
        "automountServiceAccountToken: false",
        'fairlane_queue_gangs{state="waiting"} 3.0',
        "fairlane_tokens_total 17",
        "tokens=5 timeout=30 secrets=3",
        "bypass=on compass: north config.sig=1 auth: basic",
        '"tokens": 5, "timeout_s": 30.0',
        "rate limited: tokens=0.25, burst=10",
        "token_timeout_s: 30",
        "2026-11-22T00:10:08Z user@example.org submitted pod team-a/train-0",
        'MountVolume.SetUp failed for volume "token" : secret "fairlane-token" not found',
        '{"name": "token", "secret": {"secretName": "fairlane-token", "defaultMode": 420}}',
        '{"valueFrom": {"secretKeyRef": {"name": "fairlane-token", "key": "token"}}}',
        '"imagePullSecrets": [{"name": "registry"}]',
        "image: registry:5000/fairlane@sha256:" + "0a1b2c3d" * 8,
        "commit 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
        '{"apiVersion": "rbac.authorization.k8s.io/v1", "resources": ["secrets"], "verbs": ["get"]}',
        "Successfully assigned team-a/train-0 to node-07",
        "0/12 nodes are available: 3 Insufficient cpu, 9 node(s) had untolerated taint {a: b}.",
        "pod team-a/train-0 waits: alice holds 0.61 of an entitled 0.5",
        "/usr/lib/python3.11/site-packages/scheduler/edge/ExtenderApp.py line 3",
        "apiserver_authorization_decisions_total{decision=\"allowed\"} 5",
        'serviceaccount_stale_tokens_total 0',
        "process_cpu_seconds_total 1.7976931348623157e+308",
        "uid 3f1c2a34-8a6e-4b5e-9f67-0a1b2c3d4e5f, resourceVersion 184467",
        "the password is asked for at each start",
        "passed: 12, bypass: 3, compass: north",
    ],
)  # fmt: skip
def test_what_is_needed_to_find_a_fault_stays(line: str) -> None:
    for text in (line, f"{TIME}{line}\nnext", json.dumps({"message": line}), f"  - {line}"):
        assert Redactor([])(text) == text


@pytest.mark.parametrize("page", ["docs/events.md", "helm/fairlane/files/alerts.yaml"])
def test_what_our_own_processes_say_stays(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text()
    assert Redactor([])(text).splitlines() == text.splitlines()


ENDLESS = (
    "a",
    "A1b",
    "/",
    "\\",
    '"',
    "'",
    "-",
    "a-",
    "=",
    "password",
    "token ",
    "name: ",
    "AAAA\n",
    "[",
    "://a:b",
)
ENDLESS += (
    "eyJ",
    "-----BEGIN A-----\n",
    "-----END A-----\n",
    "--token-",
    "password: |\n ",
    '{"token": [',
    "Basic ",
)


@pytest.mark.parametrize("piece", ENDLESS)
def test_no_text_takes_longer_than_its_length_allows(piece: str) -> None:
    def spent_s(size: int) -> float:
        text = piece * (size // len(piece))
        begun_s = time.process_time()
        Redactor([])(text)
        return time.process_time() - begun_s

    assert spent_s(160_000) < 8 * max(spent_s(40_000), 0.02)
