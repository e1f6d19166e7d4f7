"""Is a process of the testbed ready to be used? One cheap question per process."""

from __future__ import annotations

import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable

from testbed.layout import Layout

TIMEOUT_S = 2.0

_NO_PROXY = urllib.request.ProxyHandler({})


def is_ready(process: str, layout: Layout) -> bool:
    """Whether `process` answers that it is ready (its port is open, where it has no better answer)."""
    check = _CHECKS.get(process)
    return True if check is None else check(layout)


def answers(url: str, layout: Layout | None = None) -> bool:
    """True when a GET of `url` is answered with 200.

    With a layout the testbed's CA is trusted; without, certificates are not
    looked at: the schedulers make their own, on loopback.
    """
    context = ssl._create_unverified_context()
    if layout is not None:
        context = ssl.create_default_context(cafile=str(layout.file("ca.crt")))
    opener = urllib.request.build_opener(_NO_PROXY, urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def listens(port: int) -> bool:
    """True when a server accepts connections on the port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S):
            return True
    except OSError:
        return False


_CHECKS: dict[str, Callable[[Layout], bool]] = {
    "etcd": lambda at: answers(at.url("etcd") + "/health"),
    "kube-apiserver": lambda at: answers(at.url("apiserver", "https") + "/readyz", at),
    "kube-controller-manager": lambda at: answers(at.url("controller_manager", "https") + "/healthz"),
    "kube-scheduler": lambda at: answers(at.url("default_scheduler", "https") + "/readyz"),
    "fairlane-scheduler": lambda at: answers(at.url("fairlane_scheduler", "https") + "/readyz"),
    "kwok": lambda at: answers(at.url("kwok") + "/healthz"),
    "prometheus": lambda at: answers(at.url("prometheus") + "/-/ready"),
    "physics": lambda at: answers(at.url("physics") + "/targets"),
    "recorder": lambda at: listens(at.ports["recorder"]),
    "predictor": lambda at: listens(at.ports["predictor"]),
    "controller": lambda at: answers(at.url("controller") + "/readyz"),
    "extender": lambda at: answers(at.url("extender") + "/healthz"),
}
