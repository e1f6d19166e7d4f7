"""Nothing secret is left in what leaves the cluster, wherever it was planted."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from scheduler.config import ConfigError, Settings
from scheduler.edge import support_bundle
from scheduler.edge.diagnosis_telemetry import prometheus
from scheduler.edge.facts import Facts
from scheduler.edge.redaction import GONE, Redactor, bare_object, secret_variables
from scheduler.edge.support import bare_settings, secrets_of
from scheduler.edge.support_bundle import Bundle, redacted
from scheduler.edge.telemetry import TelemetryPoller

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIP3f\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"sent {JWT} to", JWT),
        (f"key: {PEM}", "MHcCAQEEIP3f"),
        (json.dumps({"tls.key": PEM}), "MHcCAQEEIP3f"),
        ("Authorization: Bearer abc.def-123456", "abc.def-123456"),
        ("header 'authorization' = Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("postgresql://fair:s3same@db:5432/x", "s3same"),
        ("postgresql://db/x?user=fair&password=s3same&ssl=1", "s3same"),
        ("redis://:s3same@cache:6379", "s3same"),
        ("password=s3same, host=db", "s3same"),
        ("db_passwd: s3same", "s3same"),
        ('{"client_secret": "s3 same, with \' and spaces"}', "s3 same"),
        ('"{\\"apiKey\\": \\"s3same\\"}"', "s3same"),
        ("AWS_SECRET_ACCESS_KEY=s3same/x+y", "s3same"),
        ("using AKIAIOSFODNN7EXAMPLE now", "AKIAIOSFODNN7EXAMPLE"),
        ("ran with --token s3same --port 3", "s3same"),
        ("ran with --db-password=s3same", "s3same"),
    ],
)
def test_what_looks_like_a_secret_goes(text: str, secret: str) -> None:
    redact = Redactor([])
    assert secret not in redact(text)
    assert GONE in redact(text)
    assert sum(redact.counts.values()) >= 1


def test_what_is_known_to_be_secret_goes_wherever_it_stands() -> None:
    redact = Redactor(["correct horse", "correct horse battery", "abc"])
    assert redact("x=correct horse battery; y-correct horse-z; abc") == f"x={GONE}; y-{GONE}-z; abc"
    assert redact.counts["known secret"] == 2


@pytest.mark.parametrize("ahead", ["", "1", "12", "123", "postgresql://fair:"])
def test_what_is_known_to_be_secret_goes_out_of_base64_too(ahead: str) -> None:
    redact = Redactor(["correct horse"])
    encoded = base64.b64encode(f"{ahead}correct horse@db".encode()).decode()
    told = redact(f"key: {encoded}")
    assert redact.counts["known secret"] == 1
    assert len(f"key: {encoded}") - len(told.replace(GONE, "")) >= len("correct horse") * 4 // 3 - 2


@pytest.mark.parametrize(
    "text",
    [
        "the bearer token is missing or wrong: set FAIRLANE_TOKEN",
        '"decisions_stored": 12, "outcomes_waiting": 0',
        "http://fairlane-recorder:8890/v1/status",
        "automountServiceAccountToken: false",
        'fairlane_queue_gangs{state="waiting"} 3.0',
        "2026-11-22T00:10:08Z user@example.org submitted pod team-a/train-0",
    ],
)
def test_what_is_needed_to_find_a_fault_stays(text: str) -> None:
    assert Redactor([])(text) == text


def test_users_become_hashes_that_tell_them_apart_and_nothing_else() -> None:
    redact = Redactor([], ["alice", "al", "bob@example.org"], b"salt")
    text = redact("alice waits, al runs; alice-etl-1 bob@example.org bob@example.organic alpine malice")
    alice, al = text.split()[0], text.split()[2]
    assert alice.startswith("user-")
    assert al.startswith("user-")
    assert alice != al
    assert f"{alice}-etl-1" in text
    assert text.endswith(" bob@example.organic alpine malice")
    assert text.count("bob") == 1
    assert Redactor([], ["alice"], b"other")("alice") != alice


@pytest.mark.parametrize(
    ("user", "text"),
    [
        ("alice", "?team%2Falice%26x"),
        ("alice", r'"by\nalice\t"'),
        ("alice", r"by\u0020alice"),
        ("nancy", r"CORP\nancy"),
        (r"CORP\nancy", r'{"user": "CORP\\nancy"}'),
        ("system:serviceaccount:a:b", "?u=system%3Aserviceaccount%3Aa%3Ab"),
        ("<b>eve</b>", "by<b>eve</b>."),
        ("李雷", "by 李雷, by"),
        ("李雷", json.dumps("by 李雷, by")),
        ("al ice", "by al ice"),
    ],
)
def test_users_are_found_however_text_around_them_is_written(user: str, text: str) -> None:
    redact = Redactor([], [user, "al"], b"salt")
    told = redact(text)
    assert redact.counts["user name, hashed"] == 1
    assert "user-" in told
    assert user[-3:] not in told


def test_thousands_of_users_cost_hardly_more_than_one() -> None:
    text = "2026-11-22 00:10:08 pod team/etl-3 of user77@example.org waits for 2.5 s\n" * 4000
    begun_s = time.process_time()
    told = Redactor([], [f"user{number}@example.org" for number in range(5000)], b"salt")(text)
    assert time.process_time() - begun_s < 5
    assert "example" not in told


def test_what_is_too_long_loses_its_beginning_and_logs_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support_bundle, "FILE_CHARACTERS_MAX", 100)
    monkeypatch.setattr(support_bundle, "CHARACTERS_MAX", 200)
    bundle = Bundle()
    bundle.add("logs/b.log", "begin " + "b" * 60 + " password=" + "x" * 140 + " end")
    assert len(bundle.files["logs/b.log"]) == 200
    for name in ("logs/a.log", "cluster/z.json", "short"):
        bundle.add(name, name + "." * 90)
    clean = redacted(bundle, Redactor([]))
    assert list(clean.files) == ["cluster/z.json", "short", "logs/a.log"]
    assert clean.left_out == [
        "cluster/z.json: all but the last 100 characters",
        "logs/b.log: the bundle has no room for it, which ends at 200 characters",
    ]
    only = Bundle(files={"logs/b.log": bundle.files["logs/b.log"]})
    (text,) = redacted(only, Redactor([])).files.values()
    assert "x" not in text
    assert text.endswith("password=[redacted] end")


def test_objects_lose_the_values_of_their_environment_and_of_secrets() -> None:
    container = {
        "env": [
            {"name": "DATABASE", "value": "plain-but-private"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "t", "key": "k"}}},
        ],
        "args": ["serve", "--api-key", "plain-key", "--verbose"],
    }
    metadata = {
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{plain-copy}", "kept": "yes"},
        "managedFields": [{"manager": "kubectl"}],
    }
    secret = {"kind": "Secret", "data": {"k": "cGxhaW4="}, "stringData": {"k": "plain-text"}}
    told = bare_object({"items": [{"metadata": metadata, "spec": {"containers": [container]}}, secret]})
    text = json.dumps(told)
    assert "plain" not in text
    assert "cGxhaW4=" not in text
    for kept in ("DATABASE", "secretKeyRef", "--api-key", "--verbose", '"kept": "yes"'):
        assert kept in text


def test_settings_are_told_without_their_secrets(tmp_path: Any) -> None:
    (tmp_path / "bearer").write_text("from-a-file\n")
    settings = Settings.model_validate(
        {
            "token": "the-shared-token",
            "prometheus": {
                "url": "http://p:9090",
                "bearer_token_file": str(tmp_path / "bearer"),
                "headers": {"X-Scope-OrgID": "tenant-word"},
            },
            "recorder": {"store_url": "postgresql://fair:pass%2Fword@db/x"},
        }
    )
    known = secrets_of(settings, {"MY_API_KEY": "from-environment", "HOME": "/root"})
    assert {"the-shared-token", "from-a-file", "tenant-word", "pass/word", "from-environment"} <= set(known)
    assert "/root" not in known
    text = Redactor(known)(json.dumps(bare_settings(settings)))
    for secret in (*known, "pass%2Fword"):
        assert secret not in text
    assert "X-Scope-OrgID" in text


def test_variables_with_telling_names_are_secret() -> None:
    assert secret_variables({"DB_PASSWORD": "a", "FAIRLANE_TOKEN": "b", "PATH": "c", "EMPTY_SECRET": ""}) == [
        "a",
        "b",
    ]


@pytest.mark.parametrize("password", ["pa[ss", "pa/ss", "pa#ss", "pa?ss", 'pa"ss', "pa]s[s"])
def test_a_password_that_the_store_would_take_is_known_however_it_is_written(password: str) -> None:
    settings = Settings.model_validate({"recorder": {"store_url": f"postgresql://fair:{password}@db/x"}})
    assert password in secrets_of(settings, {})


def test_passwords_behind_the_question_mark_of_a_url_are_known() -> None:
    url = "postgresql:///x?host=/run&password=first%20one&sslpassword=second"
    known = secrets_of(Settings.model_validate({"recorder": {"store_url": url}}), {})
    assert {"first one", "first%20one", "second"} <= set(known)


def test_what_may_not_be_read_here_is_no_reason_to_have_no_bundle(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, **_how: object) -> str:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "bearer").write_text("only root may read this")
    settings = Settings.model_validate(
        {"prometheus": {"url": "http://p:9090", "bearer_token_file": str(tmp_path / "bearer")}}
    )
    monkeypatch.setattr(Path, "read_text", refuse)
    assert secrets_of(settings, {}) == []


def test_a_password_in_the_address_of_prometheus_is_told_to_nobody() -> None:
    """What fails is in /readyz and /v1/status, which need no token, and in events of the kubelet."""
    settings = Settings.model_validate({"prometheus": {"url": "http://fair:hunter2@127.0.0.1:1/prom"}})
    poller = TelemetryPoller(settings, lambda: [])
    poller.poll()
    assert poller.stats.failure.startswith("Prometheus at http://127.0.0.1:1/prom: cannot be reached")
    facts = Facts(settings, time.time(), poll=poller.stats)
    told = [finding.sentence for finding in prometheus(facts)]
    told += [finding.sentence for finding in prometheus(Facts(settings, time.time()))]
    assert len(told) == 2
    assert "hunter2" not in "".join(told)


def test_a_password_in_an_address_that_is_none_is_not_repeated(tmp_path: Any) -> None:
    (tmp_path / "fairlane.yaml").write_text("prometheus: {url: 'htp://fair:hunter2@prom'}")
    with pytest.raises(ConfigError, match="a URL must start with http") as raised:
        Settings.load(tmp_path / "fairlane.yaml", {})
    assert "hunter2" not in str(raised.value)
