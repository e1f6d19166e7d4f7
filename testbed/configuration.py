"""The configuration files of a testbed's processes: values in, dictionaries out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.credentials import USERS
from testbed.layout import Layout, Options

FAIRLANE_SCHEDULER = "fairlane"
EXTENDER_PREFIX = "/scheduler"
CONTROLLER_NAMESPACE = "kube-system"
"""Of the controller's Lease and checkpoint; it is there from the start."""
EPOCH_S = 2.0
"""Between two polls of the telemetry."""
RATE_SCRAPES = 3
"""Rates are taken over so many scrapes, so that one lost scrape does not make a gap."""

OWN_METRICS = {
    "extender": "extender_metrics",
    "predictor": "predictor_metrics",
    "recorder": "recorder",
    "controller": "controller",
}
"""Our processes, and at which port each is scraped."""

Config = dict[str, Any]

PREDICTED = ("ImageLocality", "NodeResourcesBalancedAllocation")
"""Score plugins of what the predictions count already: images, requested cores. They take a tenth of the time
of a kube-scheduler that scores all nodes. Those of what users ask for stay, and that of free resources."""

SCHEDULER_ENVIRONMENT = {"GOGC": "400"}
"""Of our kube-scheduler. Each pod leaves lists of all nodes behind, and collecting them takes much of its
processor time by default (100); what is in use is some tens of MB, so four times that is little memory."""

SCHEDULER_FLAGS = {"feature-gates": "ContextualLogging=false"}
"""Of our kube-scheduler. It names a logger for each node that it looks at, whether it logs or not: a tenth of
its processor time on 500 nodes."""

CONTROL_PLANE_ENVIRONMENT = {"GOGC": "400", "GOMEMLIMIT": "4GiB"}
"""Of etcd and the API server, which share the cores of one machine with all else: their garbage is collected
less often while they are small (an eighth of what a patch costs), and as usual once they have grown."""


def scheduler_config(options: Options, layout: Layout, ours: bool, hints: bool = False) -> Config:
    """KubeSchedulerConfiguration of the default scheduler, or of ours with the extender.

    Ours scores every feasible node but not what is `PREDICTED`, does not preempt
    (that would break gangs behind the queue's back) and goes on without the
    extender when that does not answer; where placement is written at release
    (`hints`) it has none. Client limits are lifted so that neither is measured by
    them.
    """
    config: Config = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {
            "kubeconfig": str(layout.file("scheduler.kubeconfig")),
            "qps": 5000,
            "burst": 5000,
        },
    }
    if ours:
        config["percentageOfNodesToScore"] = 100
        config["enableContentionProfiling"] = False  # it notes a stack at every wait of every goroutine
        config["profiles"] = [
            {
                "schedulerName": FAIRLANE_SCHEDULER,
                "plugins": {
                    "postFilter": {"disabled": [{"name": "DefaultPreemption"}]},
                    "score": {"disabled": [{"name": name} for name in PREDICTED]},
                },
            }
        ]
        if hints:
            config["profiles"][0]["plugins"]["score"]["enabled"] = [_hints_win(options)]
        else:
            config["extenders"] = [_extender(options, layout)]
    return config


def writes_hints(options: Options) -> bool:
    """True when the controller writes placement at release, so that kube-scheduler asks nobody."""
    controller = options.settings.get("controller") or {}
    return bool(controller.get("placement") == "hint")


def _hints_win(options: Options) -> Config:
    """As many points for the planned node as the extender would give it."""
    return {"name": "NodeAffinity", "weight": options.extender_weight}


def _extender(options: Options, layout: Layout) -> Config:
    asks: Config = {"filterVerb": "filter"}
    if options.extender_verb == "prioritize":
        asks = {"prioritizeVerb": "prioritize", "weight": options.extender_weight}
    return {
        "urlPrefix": layout.url("extender") + EXTENDER_PREFIX,
        **asks,
        "nodeCacheCapable": True,
        "ignorable": True,
        "httpTimeout": f"{options.extender_timeout_ms}ms",
    }


def prometheus_config(options: Options, layout: Layout) -> Config:
    """Scrapes the emulated exporters (by the list that physics serves), Fairlane and the schedulers."""
    interval = f"{max(1, round(options.scrape_interval_s * 1000))}ms"
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": "1m"},
        "scrape_configs": [
            {
                "job_name": "nodes",
                "http_sd_configs": [{"url": layout.url("physics") + "/targets", "refresh_interval": "2s"}],
            },
            *(_own(layout, name) for name in OWN_METRICS),
            *(_scheduler(layout, name) for name in ("default_scheduler", "fairlane_scheduler")),
        ],
    }


def _own(layout: Layout, name: str) -> Config:
    target = f"127.0.0.1:{layout.ports[OWN_METRICS[name]]}"
    return {"job_name": f"fairlane-{name}", "static_configs": [{"targets": [target]}]}


def _scheduler(layout: Layout, name: str) -> Config:
    return {
        "job_name": name.replace("_", "-"),
        "scheme": "https",
        "authorization": {"credentials_file": str(layout.file("prometheus.token"))},
        "tls_config": {"insecure_skip_verify": True},  # each made its own certificate, on loopback
        "static_configs": [{"targets": [f"127.0.0.1:{layout.ports[name]}"]}],
    }


def fairlane_settings(options: Options, layout: Layout, token: str) -> Config:
    """Settings of Fairlane's processes (scheduler.config), with the caller's laid over them."""
    generated: Config = {
        "kubeconfig": str(layout.file("doctor.kubeconfig")),  # the processes are told their own
        "prometheus": {
            "url": layout.url("prometheus") if options.wants("prometheus") else "",
            "rate_range_s": max(RATE_SCRAPES * options.scrape_interval_s, 1.0),
        },
        "epoch_s": EPOCH_S,
        "predictor_address": f"127.0.0.1:{layout.ports['predictor']}",
        "extender_url": layout.url("extender"),
        "recorder_url": layout.url("recorder"),
        "controller_url": layout.url("controller"),
        "token": token,
        "admission": {"controller": USERS["controller"][0]},
        "extender": {
            "host": "127.0.0.1",
            "port": layout.ports["extender"],
            "metrics_host": "127.0.0.1",
            "metrics_port": layout.ports["extender_metrics"],
            "prefix": EXTENDER_PREFIX,
        },
        "recorder": {
            "host": "127.0.0.1",
            "port": layout.ports["recorder"],
            "store_url": f"sqlite:///{layout.file('experience.db')}",
        },
        "controller": {
            "host": "127.0.0.1",
            "port": layout.ports["controller"],
            "namespace": CONTROLLER_NAMESPACE,
        },
        "predictor": {
            "host": "127.0.0.1",
            "port": layout.ports["predictor"],
            "metrics_host": "127.0.0.1",
            "metrics_port": layout.ports["predictor_metrics"],
            "registry": str(layout.file("registry")),
        },
    }
    return laid_over(generated, options.settings)


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Config:
    """`below` with the values of `above` in place of its own, section by section."""
    both = dict(below)
    for name, value in above.items():
        known = both.get(name)
        nested = isinstance(value, Mapping) and isinstance(known, Mapping)
        both[name] = laid_over(known, value) if nested else value  # type: ignore[arg-type]
    return both


def stages_file() -> Path:
    """KWOK's stages."""
    return Path(__file__).parent / "kwok-stages.yaml"


def rbac_file() -> Path:
    """Rights of Fairlane's own processes."""
    return Path(__file__).parent / "rbac.yaml"
