"""Settings of certificates that Fairlane keeps itself, by a CA of its own, in a Secret."""

from __future__ import annotations

from pydantic import PositiveFloat, model_validator

from scheduler.settings_section import Section


class KeptCertificate(Section):
    """A CA and the certificate that it signs, in one Secret: where that is, and how long they live."""

    secret: str = ""
    """Where the self-managed CA and certificate are kept; empty: none are."""
    namespace: str = "fairlane-system"
    """Of the Secret."""
    ca_s: PositiveFloat = 2 * 365 * 86400.0
    """Life of the self-managed CA; it is renewed after two thirds."""
    certificate_s: PositiveFloat = 90 * 86400.0
    """Life of the certificate; it is renewed after two thirds."""
    settle_s: PositiveFloat = 600.0
    """How long a new CA is only trusted before it signs, and an old one stays trusted: until all know it."""
    check_s: PositiveFloat = 30.0
    """How often certificates are looked at."""

    @model_validator(mode="after")
    def _steps_fit(self) -> KeptCertificate:
        if 6 * self.settle_s > self.certificate_s or self.certificate_s > self.ca_s:
            raise ValueError("settle_s must be at most a sixth of certificate_s, and that at most ca_s")
        return self


class PredictorCertificate(KeptCertificate):
    """The predictor's, kept by the recorder; the predictor and the extender are given it as files."""

    names: tuple[str, ...] = ("fairlane-predictor",)
    """DNS names or addresses by which clients reach the predictor."""

    @model_validator(mode="after")
    def _has_a_name(self) -> PredictorCertificate:
        if not self.names:
            raise ValueError("names must not be empty: clients check the name by which they asked")
        return self
