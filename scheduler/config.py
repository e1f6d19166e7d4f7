"""Every setting of every process, in one frozen object; nothing else reads the environment.

Values come from a YAML file and then from the environment, which wins
(settings_text.py). A key nobody knows is refused: a misspelt setting must not
be a silent default. Units are the last word of a name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    Tag,
    ValidationError,
    model_validator,
)

from scheduler.admission_settings import AdmissionSettings
from scheduler.certificate_settings import PredictorCertificate
from scheduler.settings_section import EVERYWHERE, YEAR_S, Port, Seconds, Secret, Section, WebAddress
from scheduler.settings_text import ConfigError, overlay, read_secret, read_yaml, sentences

__all__ = ["ConfigError", "Settings", "Source"]

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
UrlPath = Annotated[str, Field(pattern=r"^(/[\w.-]+)*$")]


class PrometheusSettings(Section):
    """Where and how telemetry is read."""

    url: WebAddress = ""
    """Base URL, e.g. http://prometheus.monitoring:9090; empty: no telemetry."""
    bearer_token: Secret | None = None
    bearer_token_file: Path | None = None
    """File with the bearer token; read again at every poll, because tokens rotate."""
    username: str | None = None
    password: Secret | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    """PEM bundle that signs the server's certificate."""
    skip_tls_verify: bool = False
    proxy: str = ""
    """URL of an HTTP proxy; the environment's proxies and .netrc are not used."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent with every query, e.g. X-Scope-OrgID of a multi-tenant store."""
    timeout_s: Seconds = 5.0
    """For one query, connection included."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 4
    """Queries in flight at once."""
    rate_range_s: Annotated[float, Field(ge=1.0)] = 60.0
    """What $range stands for in queries; at least twice the scrape interval, better four times."""
    max_response_bytes: PositiveInt = 64 * 2**20
    """A larger answer is refused."""

    @model_validator(mode="after")
    def _usable(self) -> PrometheusSettings:
        if (self.bearer_token or self.bearer_token_file) and self.username:
            raise ValueError("give a bearer token or a username, not both")
        if bool(self.username) != bool(self.password or self.password_file):
            raise ValueError("username and password go together")
        if self.skip_tls_verify and self.ca_file:
            raise ValueError("give a ca_file or skip_tls_verify, not both")
        return self


class Freshness(Section):
    """How the age of a value and the time between two values are known."""

    newest: str = ""
    """Selector of raw series: the time of their newest sample is the time of measurement."""
    measured_at: str = ""
    """Selector of series whose value is the unix time of measurement; preferred, because an
    exporter that hangs may still be scraped."""
    interval: PositiveFloat | str | None = None
    """Seconds between two measurements. Learned from the series if absent; PromQL is asked where the
    last five minutes were too short to learn from."""


class ReadingQuery(Freshness):
    """How one reading is read from Prometheus; what it leaves out about freshness, its source says."""

    expr: str
    """PromQL; $range stands for prometheus.rate_range_s, $rate(selector) for rate() over that range
    where the series has samples at both ends of it."""
    scale: PositiveFloat = 1.0
    """The answer times this is in the reading's unit (model.snapshot)."""


MappingStep = Literal["label", "nodename", "host", "address", "host_ip"]


class Source(Freshness):
    """One exporter: what it delivers and which labels name the nodes (docs/telemetry.md)."""

    name: str
    node_label: str = "node"
    """Label with the name of the node, or of the pair's source, where the scrape adds one."""
    instance_label: str = "instance"
    """Label with the host:port that was scraped."""
    target_labels: tuple[str, ...] = ("target",)
    """Labels that name the far end of a pair, tried in order."""
    mapping: tuple[MappingStep, ...] = ("label", "nodename", "host", "address", "host_ip")
    """Ways from a series to its node, tried in order."""
    install: str = ""
    """What to do when nothing of this source is there, for `fairlane doctor`."""
    relabel: str = ""
    """What to do when its series name no node of the cluster."""
    readings: dict[str, ReadingQuery] = Field(min_length=1)

    @model_validator(mode="after")
    def _dated(self) -> Source:
        for name, query in self.readings.items():
            if not (query.newest or query.measured_at or self.newest or self.measured_at):
                raise ValueError(f"{name!r} needs `newest` or `measured_at`, or its age would be unknown")
        return self


def _kind_of_source(value: object) -> str:
    return "preset" if isinstance(value, str) else "inline"


NamedSource = Annotated[
    Annotated[str, Tag("preset")] | Annotated[Source, Tag("inline")], Discriminator(_kind_of_source)
]


class ExplorationSettings(Section):
    """How often a near-tie is chosen on purpose, to learn what the model does not know."""

    rate: Ratio = 0.0
    """Share of decisions that explore; 0 switches it off."""
    temperature: PositiveFloat = 0.1
    """Of the softmax over predicted log completion time."""
    max_regret: NonNegativeFloat = 0.2
    """A node predicted slower than best x (1 + this) is no near-tie."""
    scope: Literal["near_ties", "all"] = "near_ties"
    """Where to explore: among near-ties by softmax, or among all candidates alike (to collect examples)."""


class ExtenderSettings(Section):
    """The HTTP server that kube-scheduler asks."""

    host: str = "127.0.0.1"
    port: Port = 8888
    metrics_host: str = EVERYWHERE
    metrics_port: Port | None = None
    """Tells /metrics, /healthz, /readyz and /v1/status there too, and nothing else; none: only on `port`."""
    prefix: UrlPath = "/scheduler"
    """Path before /filter and /prioritize."""
    max_listed: PositiveInt = 5
    """Best nodes listed in an answer; a node left out counts 0."""
    max_body_bytes: PositiveInt = 4 * 2**20
    """A larger request is refused with 413."""
    read_timeout_s: Seconds = 2.0
    """A request that is not complete by then gets 408."""
    keep_alive_s: Seconds = 120.0
    """kube-scheduler drops idle connections after 90 s; ours must live longer."""
    max_epoch_age_s: Seconds = 120.0
    """An older snapshot is not used any more; more than `epoch_s`."""
    decision_buffer: PositiveInt = 10_000
    """Decisions kept for the recorder; beyond it the oldest are dropped and counted."""
    decision_batch: PositiveInt = 200
    flush_s: Seconds = 1.0
    """Decisions wait at most this long for their batch."""
    hold_s: Annotated[float, Field(ge=0.0, le=YEAR_S)] = 10.0
    """While call follows call, decisions wait up to this long more: what waits is placed first."""
    predict_timeout_s: Seconds = 2.0
    """Deadline of a background prediction."""
    table_idle_s: Seconds = 600.0
    """Score tables of a job class unused for so long are dropped."""
    max_tables: PositiveInt = 256
    niceness: Annotated[int, Field(ge=-20, le=0)] = -10
    """Added to that of the thread that answers, for which kube-scheduler waits, where that is allowed
    (Linux, CAP_SYS_NICE). In a pod the request for CPU does the same."""


class RecorderSettings(Section):
    """The process that owns the experience store."""

    host: str = EVERYWHERE
    port: Port = 8890
    store_url: str = "sqlite:///fairlane.db"
    """SQLAlchemy URL: an SQLite file or PostgreSQL."""
    keep_rows: PositiveInt = 1_000_000
    """Decisions kept; the oldest go first."""
    keep_days: PositiveFloat = 180.0
    max_body_bytes: PositiveInt = 64 * 2**20
    niceness: Annotated[int, Field(ge=0, le=19)] = 10
    """Added to the process's niceness: writing what happened yields to placing what waits."""


class ControllerSettings(Section):
    """The process that keeps the fair queue."""

    host: str = EVERYWHERE
    port: Port = 8891
    url: WebAddress = ""
    """Where other replicas and `fairlane queue` reach this one; default: its host name and port."""
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$")] = "fairlane-controller"
    """Of the Lease and of the checkpoint's ConfigMap: one for all replicas of a queue."""
    namespace: str = ""
    """Of both; default: the pod's own, else `default`."""
    queue: str = "default"
    """The FairQueue object to obey; what it leaves out, or all without it, is set here."""
    scheduler_name: str = "fairlane"
    """Pods that name it belong to the queue."""
    reference: dict[str, float] = Field(default_factory=dict)
    """Capacity that shares are measured against (cores, bytes, devices); default: the sum of the nodes
    when the queue is first started, kept from then on."""
    default_weight: PositiveFloat = 1.0
    weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Entitlements by user."""
    backfill: bool = True
    depth: PositiveInt = 200
    """Waiting gangs looked at in one walk."""
    lease_s: Annotated[int, Field(ge=3, le=300)] = 10
    """A leader that is not heard of for so long is replaced; it stops acting after 60 % of it."""
    parallel: Annotated[int, Field(ge=1, le=256)] = 32
    """Patches in flight at once."""
    tick_s: Annotated[float, Field(gt=0, le=30)] = 5.0
    checkpoint_s: Seconds = 5.0
    """At most so much of the ledger is lost by a crash: that of gangs that ended and vanished meanwhile."""
    announce_s: Seconds = 5.0
    """How often it is looked whose place in the queue has changed noticeably."""
    announcements_per_s: Seconds = 20.0
    """Conditions and events written at most; what is too many waits, or is dropped and counted."""
    check_s: Seconds = 60.0
    """How often all invariants of the queue are checked."""
    placement: Literal["extender", "hint"] = "extender"
    """Who says where pods go: `extender`, kube-scheduler asks it pod by pod; `hint`, the controller asks it
    (at extender_url) for the plan of a whole gang and writes that in the patch that opens the gates."""
    hint_binds: Literal["nobody", "others", "all"] = "nobody"
    """Whom a plan of several nodes binds to these, beside preferring them: pods that keep another scheduler
    and only join the queue, or all. kube-scheduler then looks at these nodes alone."""
    hint_nominates: bool = True
    """The best node of a plan is nominated beside being preferred (status.nominatedNodeName, one more patch
    per pod): kube-scheduler tries it first, and looks at other nodes only if the pod does not fit there."""
    plan_timeout_s: Seconds = 1.0
    """Without a plan by then gangs are released without a hint."""
    expected_core_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Part of one core, at most, that works out expected starts, at the lowest priority; 0: none are."""
    expected_gangs: Annotated[int, Field(ge=1, le=10_000)] = 300
    """Waiting gangs, the next first, whose expected start is worked out; the others start later."""
    expected_every_s: Seconds = 10.0
    """How often the queue is looked at for that, at most."""


class PredictorSettings(Section):
    """The gRPC model server."""

    host: str = EVERYWHERE
    port: Port = 8889
    metrics_host: str = EVERYWHERE
    metrics_port: Port | None = None
    """Tells /metrics, /healthz, /readyz and /v1/status there; none: nowhere, `port` speaks gRPC only."""
    registry: str = "registry"
    """Folder or fsspec URL with the published models."""
    reload_s: Seconds = 5.0
    """How often the registry is looked at for a newer champion."""
    threads: PositiveInt = 1
    """Threads that one prediction may use; two predictions may run at once."""
    niceness: Annotated[int, Field(ge=0, le=19)] = 5
    """Added to the process's niceness: tables made ahead yield to placing what waits."""
    stale_after_days: PositiveFloat = 14.0
    """Since its training, until the alert FairlaneModelStale: more than is between two trainings."""
    certificate_file: Path | None = None
    """PEM chain to speak TLS with, read again when it changes; with key_file."""
    key_file: Path | None = None

    @model_validator(mode="after")
    def _usable(self) -> PredictorSettings:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("certificate_file and key_file go together")
        return self


class ProbeSettings(Section):
    """The daemon on every node that measures its peers."""

    host: str = EVERYWHERE
    port: Port = 8893
    """Peers connect here."""
    metrics_port: Port = 8894
    """Prometheus scrapes /metrics here."""
    interval_s: Seconds = 15.0
    """Between two rounds."""
    peers_per_round: PositiveInt = 5
    """Peers measured in one round, in turn, so that every pair is measured in time."""
    max_peers: PositiveInt = 64
    """Peers in the rotation; of more, each node takes its own fixed choice, so that the number of
    series grows with the nodes and not with their square."""
    samples: Annotated[int, Field(ge=1, le=1000)] = 5
    """Round trips per peer and round."""
    sample_gap_s: Annotated[float, Field(ge=0.0, le=YEAR_S)] = 0.05
    """Pause between two round trips."""
    timeout_s: Seconds = 1.0
    """A round trip that takes longer is lost."""
    transfer_bytes: Annotated[int, Field(ge=0, le=64 * 2**20)] = 256 * 1024
    """Payload of the probe transfer; 0 switches it off."""
    transfer_timeout_s: Seconds = 10.0
    budget_bytes_per_minute: PositiveInt = 20 * 2**20
    """Bytes that a probe sends to its peers, and likewise bytes that it takes from them, in any minute."""
    max_connections: PositiveInt = 64
    """Connections served at once; a further one is closed and counted."""
    peers_refresh_s: Seconds = 60.0
    """How often the list of peers is read again."""
    ca_file: Path | None = None
    """With certificate and key: mutual TLS."""
    certificate_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _usable(self) -> ProbeSettings:
        files = (self.ca_file, self.certificate_file, self.key_file)
        if any(files) and not all(files):
            raise ValueError("mutual TLS needs ca_file, certificate_file and key_file together")
        if self.transfer_bytes > self.budget_bytes_per_minute:
            raise ValueError("one transfer (transfer_bytes) is larger than budget_bytes_per_minute")
        return self


class Settings(Section):
    """All settings; the defaults run on one machine without a file."""

    kubeconfig: Path | None = None
    """Default: in-cluster, else $KUBECONFIG or ~/.kube/config."""
    prometheus: PrometheusSettings = PrometheusSettings()
    sources: tuple[NamedSource, ...] = ("node_exporter", "fairlane_probe", "ping_exporter")
    """Preset names or inline sources; the first that delivers a reading for a node or pair wins."""
    epoch_s: Seconds = 15.0
    """Time between two telemetry snapshots."""
    stale_after_scrapes: Annotated[float, Field(ge=1.0)] = 3.0
    """Measurement intervals without a new value after which a reading is unknown."""
    stale_at_least_s: Annotated[float, Field(ge=0.0, le=YEAR_S)] = 30.0
    """A reading is not unknown before this age, however short its interval: networks change over minutes."""
    missing_nodes_ratio: Ratio = 0.05
    """`fairlane doctor` fails when an essential reading is missing for more than this share of the nodes."""
    predictor_address: str = ""
    """host:port of the predictor; empty: the analytic prior alone."""
    predictor_ca_file: Path | None = None
    """PEM bundle that signs the predictor's certificate, read again when it changes; empty: no TLS."""
    extender_url: WebAddress = ""
    """Base URL of the extender, as `fairlane doctor` reaches it."""
    recorder_url: WebAddress = ""
    """Base URL of the recorder; empty: nothing is recorded."""
    controller_url: WebAddress = ""
    """Base URL of the controller, as `fairlane queue` reaches it."""
    token: Secret = SecretStr("")
    """Shared by our own processes (recorder, probe); usually FAIRLANE_TOKEN."""
    token_file: Path | None = None
    """File with the token, e.g. a mounted Secret; `token` wins."""
    log_format: Literal["text", "json"] = "text"
    """How the serving processes log; every kind of event has an id in both (docs/events.md)."""
    exploration: ExplorationSettings = ExplorationSettings()
    extender: ExtenderSettings = ExtenderSettings()
    recorder: RecorderSettings = RecorderSettings()
    controller: ControllerSettings = ControllerSettings()
    predictor: PredictorSettings = PredictorSettings()
    predictor_certificate: PredictorCertificate = PredictorCertificate()
    probe: ProbeSettings = ProbeSettings()
    admission: AdmissionSettings = AdmissionSettings()

    @model_validator(mode="after")
    def _can_plan(self) -> Settings:
        if self.controller.placement == "hint" and not self.extender_url:
            raise ValueError("controller.placement: hint needs extender_url, where plans are asked for")
        return self

    @model_validator(mode="after")
    def _knows_of_nodes_all_the_time(self) -> Settings:
        own_s, oldest_s = self.epoch_s, self.extender.max_epoch_age_s
        if own_s >= oldest_s:
            raise ValueError(f"epoch_s ({own_s:g}) must be less than extender.max_epoch_age_s ({oldest_s:g})")
        return self

    @classmethod
    def load(cls, path: Path | str | None = None, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings from the YAML file at `path` (none: defaults), overlaid with the environment.

        Raises `ConfigError` with one sentence per mistake.
        """
        values = read_yaml(Path(path)) if path is not None else {}
        overlay(values, os.environ if environment is None else environment, cls)
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            where = f"the settings in {path}" if path is not None else "the settings"
            raise ConfigError("\n".join([f"{where} cannot be used:", *sentences(error, cls)])) from error
        return settings._with_token_from_file()

    def _with_token_from_file(self) -> Settings:
        if self.token_file is None or self.token.get_secret_value():
            return self
        return self.model_copy(update={"token": SecretStr(read_secret(self.token_file))})
