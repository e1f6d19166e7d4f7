"""Settings from a file and the environment, and the sentences about mistakes in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from scheduler.cli.serving import with_options
from scheduler.config import ConfigError, Settings, Source
from scheduler.edge.sources import load_sources, preset, preset_names
from scheduler.settings_text import read_yaml


def load(text: str = "", tmp_path: Path | None = None, **environment: str) -> Settings:
    if tmp_path is None:
        return Settings.load(None, environment)
    path = tmp_path / "fairlane.yaml"
    path.write_text(text)
    return Settings.load(path, environment)


def mistake(text: str, tmp_path: Path, **environment: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load(text, tmp_path, **environment)
    return str(raised.value)


def test_the_defaults_need_no_file() -> None:
    settings = load()
    assert (settings.epoch_s, settings.stale_after_scrapes, settings.extender.max_listed) == (15.0, 3.0, 5)


@pytest.mark.parametrize(
    "key", ["epoch_s", "stale_at_least_s", "extender: {hold_s", "prometheus: {timeout_s"]
)
def test_nothing_waits_longer_than_a_year(key: str, tmp_path: Path) -> None:
    """Clocks that are told to wait for centuries raise instead."""
    text = f"{key}: 1e300" + "}" * key.count("{")
    assert "should be less than or equal to 31622400" in mistake(text, tmp_path)


@pytest.mark.parametrize("text", ["2020-13-45", "0x_", "[" * 3000, "!!timestamp x", "!!int ''"])
def test_what_the_yaml_parser_stumbles_over_is_told(text: str, tmp_path: Path) -> None:
    assert "is not valid YAML" in mistake(f"epoch_s: {text}", tmp_path)
    assert "FAIRLANE_EPOCH_S is not valid YAML" in mistake("", tmp_path, FAIRLANE_EPOCH_S=text)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load().epoch_s = 1  # type: ignore[misc]


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    text = "epoch_s: 30\nprometheus: {url: 'http://a:9090', timeout_s: 2}\n"
    settings = load(text, tmp_path, FAIRLANE_EPOCH_S="3", FAIRLANE_PROMETHEUS__URL="http://b:9090")
    assert (settings.epoch_s, settings.prometheus.url, settings.prometheus.timeout_s) == (
        3,
        "http://b:9090",
        2,
    )


def test_lists_in_the_environment_are_yaml() -> None:
    assert load(FAIRLANE_SOURCES="[dcgm, smokeping]").sources == ("dcgm", "smokeping")


def test_a_secret_of_digits_stays_text_and_is_not_shown() -> None:
    settings = load(FAIRLANE_TOKEN="0123")
    assert settings.token.get_secret_value() == "0123"
    assert "0123" not in repr(settings)


@pytest.mark.parametrize("around", ["%s\n", " %s \r\n"])
def test_secrets_lose_the_white_space_around_them(around: str, tmp_path: Path) -> None:
    """A Secret made from a file ends with a line break, which no header can have."""
    given = load(FAIRLANE_TOKEN=around % "shared", FAIRLANE_PROMETHEUS__BEARER_TOKEN=around % "bearer")
    assert given.token.get_secret_value() == "shared"
    assert given.prometheus.bearer_token is not None
    assert given.prometheus.bearer_token.get_secret_value() == "bearer"
    written = "token: |\n  shared\nprometheus:\n  username: me\n  password: |\n    known\n"
    read = load(written, tmp_path)
    assert read.token.get_secret_value() == "shared"
    assert read.prometheus.password is not None
    assert read.prometheus.password.get_secret_value() == "known"
    assert with_options(read, "prometheus", {"url": "http://p"}).token == read.token


def test_the_token_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    text = f"token_file: {tmp_path}/token"
    assert load(text, tmp_path).token.get_secret_value() == "from-file"
    assert load(text, tmp_path, FAIRLANE_TOKEN="mine").token.get_secret_value() == "mine"
    assert "token" in mistake(f"token_file: {tmp_path}/absent", tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epoc_s: 3", "epoc_s: there is no such setting; did you mean epoch_s?"),
        ("prometheus: {urll: x}", "prometheus.urll: there is no such setting; did you mean prometheus.url?"),
        ("epoch_s: -1", "epoch_s: input should be greater than 0."),
        ("epoch_s: soon", "epoch_s: input should be a valid number"),
        ("prometheus: {url: 'prom:9090'}", "prometheus.url: a URL must start with http:// or https://"),
        ("prometheus: {url: 'http://[::1'}", "prometheus.url: invalid IPv6 URL"),
        ("prometheus: {url: 'http://prom:99999'}", "prometheus.url: port out of range"),
        ("recorder_url: recorder:8890", "recorder_url: a URL must start with http:// or https://"),
        ("extender_url: 'http://'", "extender_url: a URL must start with http:// or https:// and"),
        ("epoch_s: .inf", "epoch_s: input should be a finite number."),
        ("controller: {reference: {cpu: .nan}}", "reference.cpu: input should be a finite number."),
        ("epoch_s: 5\nepoch_s: 6", "epoch_s is given more than once"),
        ("extender: {port: 1}\nprometheus: {parallel: 1, parallel: 2}", "parallel is given more than once"),
        (
            "sources: [{name: x, newest: y, readings: {rtt: {expr: y, scale: 0}}}]",
            "readings.rtt.scale: input should be greater than 0.",
        ),
        ("prometheus: {username: a}", "username and password go together"),
        ("prometheus: {username: a, password: b, bearer_token: c}", "a bearer token or a username, not both"),
        ("prometheus: {ca_file: a, skip_tls_verify: true}", "a ca_file or skip_tls_verify, not both"),
        ("controller: {placement: hint}", "hint needs extender_url, where plans are asked for"),
        ("epoch_s: 150", "epoch_s (150) must be less than extender.max_epoch_age_s (120)"),
        ("probe: {ca_file: a}", "mutual TLS needs ca_file, certificate_file and key_file together"),
        ("probe: {budget_bytes_per_minute: 1000}", "one transfer (transfer_bytes) is larger than"),
        ("exploration: {rate: 2}", "exploration.rate: input should be less than or equal to 1."),
        ("sources: [{name: x}]", "sources.0.inline.readings: this is needed and not given."),
        ("sources: [{name: x, readings: {rtt: {expr: y}}}]", "'rtt' needs `newest` or `measured_at`"),
        ("- a", "must hold keys and values, not a list"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_mistake_in_the_file_is_told_in_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    assert sentence in mistake(text, tmp_path)


def test_a_mapping_may_still_be_merged_into_another(tmp_path: Path) -> None:
    text = "exploration: &one {rate: 0.5, temperature: 2}\n"
    file = tmp_path / "merged.yaml"
    file.write_text(f"{text}other: {{<<: *one, rate: 0.25}}\n")
    assert read_yaml(file)["other"] == {"rate": 0.25, "temperature": 2}


def test_options_are_checked_like_settings() -> None:
    settings = load(FAIRLANE_EPOCH_S="3")
    changed = with_options(settings, "extender", {"port": 1, "host": None}, extender_url="http://x:1")
    assert (changed.extender.port, changed.extender.host) == (1, settings.extender.host)
    assert (changed.extender_url, changed.epoch_s, changed.sources) == ("http://x:1", 3, settings.sources)
    for own, general, sentence in (
        ({"port": 70_000}, {}, "port: input should be less than or equal to 65535."),
        ({}, {"extender_url": "x:1"}, "extender_url: a URL must start with http:// or https://"),
    ):
        with pytest.raises(ConfigError, match="the options cannot be used") as raised:
            with_options(settings, "extender", own, **general)
        assert sentence in str(raised.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    assert len(mistake("epoch_s: -1\nfoo: 1\nextender: {port: 99999}", tmp_path).splitlines()) == 4


def test_a_secret_is_not_repeated_in_a_mistake(tmp_path: Path) -> None:
    assert "hush" not in mistake("token: [hush]", tmp_path)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(ConfigError, match="cannot read the settings file /nowhere"):
        Settings.load("/nowhere", {})


@pytest.mark.parametrize(
    ("name", "hint"),
    [("FAIRLANE_EPOC_S", "FAIRLANE_EPOCH_S"), ("FAIRLANE_PROMETHEUS_URL", "FAIRLANE_PROMETHEUS__URL")],
)
def test_a_misspelt_variable_is_refused(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is no setting; did you mean {hint}"):
        load(**{name: "1"})


@pytest.mark.parametrize(
    "name",
    [
        "FAIRLANE_PREDICTOR_SERVICE_HOST",
        "FAIRLANE_EXTENDER_PORT",
        "FAIRLANE_RECORDER_PORT_8890_TCP_ADDR",
        "FAIRLANE_BIN_DIR",
        "FAIRLANE_CONFIG",
    ],
)
def test_variables_of_others_are_left_alone(name: str) -> None:
    assert load(**{name: "tcp://10.0.0.1:80"}) == load()


@pytest.mark.parametrize("users", ["submitters: [system:anonymous]", "trusted_controllers: ['']"])
def test_nobody_in_particular_is_trusted_with_nothing(users: str, tmp_path: Path) -> None:
    assert "everybody would be trusted; name a user" in mistake(f"admission: {{{users}}}", tmp_path)


def test_a_field_below_a_plain_value_is_refused(tmp_path: Path) -> None:
    assert "is no section" in mistake("epoch_s: 3", tmp_path, FAIRLANE_EPOCH_S__X="1")


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_says_what_to_do(name: str) -> None:
    source = preset(name)
    assert source.name == name
    assert source.install
    assert source.relabel


def test_an_unknown_preset_is_told_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no preset 'nagios'; there are blackbox, dcgm"):
        load_sources(Settings(sources=("nagios",)))


def test_a_source_listed_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="dcgm is listed twice"):
        load_sources(Settings(sources=("dcgm", "dcgm")))


def test_a_reading_that_does_not_exist_is_told_with_those_that_do() -> None:
    source = Source.model_validate({"name": "own", "readings": {"speed": {"expr": "x", "newest": "x"}}})
    with pytest.raises(ConfigError, match=r"own has readings that do not exist \(speed\); there are cpu_use"):
        load_sources(Settings(sources=(source,)))


def test_the_probe_needs_neither_numpy_nor_the_api_client() -> None:
    heavy = "{'numpy', 'kubernetes', 'aiohttp', 'pandas'}"
    program = f"import sys, scheduler.cli.probe; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


def test_only_the_recorder_and_training_load_the_store() -> None:
    """They take half of a process' start and a third of its memory."""
    others = "controller, extender, predictor, admission, queue, usage, status, doctor, explain"
    heavy = "{'pandas', 'sqlalchemy'}"
    program = f"import sys; from scheduler.cli import {others}; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


def test_inline_sources_stand_beside_presets(tmp_path: Path) -> None:
    text = "sources: [node_exporter, {name: own, readings: {rtt: {expr: a, newest: b}}}]"
    second = load_sources(load(text, tmp_path))[1]
    assert isinstance(second, Source)
    assert second.readings["rtt"].newest == "b"
