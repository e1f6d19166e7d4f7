"""Settings of admission: who is trusted, what is stamped, and the webhook that does it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from scheduler.certificate_settings import KeptCertificate
from scheduler.core.admission.kinds import KNOWN
from scheduler.settings_section import EVERYWHERE, Port, Seconds, Section


def _known_kind(name: str) -> str:
    if name not in KNOWN:
        raise ValueError(f"{name!r} is not known: describe the kind, or use one of {', '.join(KNOWN)}")
    return name


def _authenticated(user: str) -> str:
    if user in ("", "system:anonymous"):
        raise ValueError(f"{user!r} is nobody in particular: everybody would be trusted; name a user")
    return user


User = Annotated[str, AfterValidator(_authenticated)]
"""A user as the API server names him."""


class KindSettings(Section):
    """A kind of object that makes pods, which Fairlane does not know by name."""

    resource: str
    """Plural, as in its URL."""
    group: str
    versions: tuple[str, ...] = Field(min_length=1)
    templates: tuple[Annotated[str, Field(pattern=r"^\w+((\[\]|\{\})?\.\w+)*$")], ...] = Field(min_length=1)
    """Where pod templates lie: spec.template, spec.groups[].template (list), spec.roles{}.template (map)."""
    controllers: tuple[User, ...] = ()
    """Users that make pods or other objects of this kind from those templates."""

    @field_validator("templates")
    @classmethod
    def _repeats_once(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for path in templates:
            if path.count("[]") + path.count("{}") > 1:
                raise ValueError(f"{path!r} repeats twice; at most one [] or {{}} is understood")
        return templates


def _kind_named(value: object) -> str:
    return "known" if isinstance(value, str) else "inline"


KnownKind = Annotated[str, AfterValidator(_known_kind)]
NamedKind = Annotated[
    Annotated[KnownKind, Tag("known")] | Annotated[KindSettings, Tag("inline")], Discriminator(_kind_named)
]


class AdmissionSettings(KeptCertificate):
    """Who is trusted, what is stamped, and the webhook that does it where there are no admission policies."""

    host: str = EVERYWHERE
    port: Port = 9443
    scheduler_name: str = "fairlane"
    """`spec.schedulerName` of pods for our kube-scheduler."""
    namespace: str = "fairlane-system"
    """Where Fairlane runs; never touched by admission, so that it can always start."""
    controller: str = ""
    """User that releases pods; empty: the service account fairlane-controller of `namespace`."""
    kinds: tuple[NamedKind, ...] = ()
    """Kinds beside those of every cluster, by name (e.g. jobsets) or described; their controllers are
    trusted."""
    trusted_controllers: tuple[User, ...] = ("system:kube-controller-manager",)
    """More users whose pods keep the stamp of the template: only controllers whose templates are stamped."""
    submitters: tuple[User, ...] = ()
    """Users that may submit for others by fairlane.dev/on-behalf-of, e.g. Airflow's service account."""
    excluded_namespaces: tuple[str, ...] = ("kube-system",)
    """Left alone, beside `namespace`."""
    failure_policy: Literal["Fail", "Ignore"] = "Fail"
    """Of pods that opt in, while admission does not answer: refused, or let past the queue."""
    timeout_s: Annotated[int, Field(ge=1, le=30)] = 5
    """How long the API server waits for the webhook."""
    service: str = "fairlane-admission"
    """Service in front of the webhook."""
    url: str = ""
    """Where the API server reaches the webhook if there is no service, e.g. https://10.0.0.7:9443."""
    image: str = "fairlane:latest"
    """Of the webhook's Deployment."""
    certificate_file: Path | None = None
    """PEM chain kept by somebody else, e.g. cert-manager; read again when it changes."""
    key_file: Path | None = None
    secret: str = "fairlane-admission-certificates"
    """Where the self-managed CA and certificate are kept."""
    max_body_bytes: PositiveInt = 16 * 2**20
    read_timeout_s: Seconds = 5.0

    @model_validator(mode="after")
    def _usable(self) -> AdmissionSettings:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("certificate_file and key_file go together")
        if self.url and not re.match(r"https://[^/\s]+", self.url):
            raise ValueError(f"the url must start with https://, not {self.url!r}")
        return self

    @property
    def controller_user(self) -> str:
        """The one user that removes gates."""
        return self.controller or f"system:serviceaccount:{self.namespace}:fairlane-controller"
