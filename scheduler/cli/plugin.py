"""`kubectl fairlane ...`: the same commands as a plugin of kubectl; those that ask the parts run beside them.

From a laptop the parts cannot be reached, and need not be: what asks them is
run by `kubectl exec` in a pod that is allowed to, which is found by its
labels. Everything else, and all where a settings file is named, runs here,
with the connection that kubectl's options choose.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

from scheduler.cli.main import app
from scheduler.cli.output import write_letters_that_lack_otherwise
from scheduler.edge.whereabouts import (
    CONTROLLER,
    KNOW_ALL,
    LEASES,
    NAMESPACE,
    OTHERS,
    Place,
    not_found,
    place,
    places,
)

BESIDE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("status", "doctor", "explain"), KNOW_ALL),
    **dict.fromkeys(("queue", "usage", "promote"), (CONTROLLER,)),
}
"""Which commands run in the cluster, and in which container; the first that is there."""
OPTIONS = ("-n", "--namespace", "--context", "--cluster", "--user", "--kubeconfig", "--request-timeout")
"""Of kubectl, before the command."""
CONNECTION = ("--context", "--cluster", "--user", "--kubeconfig")
IN_NAMESPACE = ("support-bundle", "trial")
"""Commands that run here and have the option --namespace."""
ONLY_COMPLETIONS = ":4"
"""What kubectl wants as the last line: offer these and no file names."""


class PluginError(Exception):
    """The command cannot be run; the message says why."""


def main() -> None:
    """Entry point of kubectl-fairlane: run the command beside the parts, or here."""
    write_letters_that_lack_otherwise()
    options, rest = split(sys.argv[1:])
    try:
        if wanted := containers(rest, os.environ):
            _exec(options, found(options, wanted), rest)
        with connection(options) as kubeconfig:
            os.environ |= {"KUBECONFIG": kubeconfig} if kubeconfig else {}
            app(here(options, rest), prog_name="kubectl fairlane")
    except PluginError as error:
        sys.exit(f"kubectl fairlane: {error}")


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """kubectl's own options at the beginning, and our command with its own."""
    rest, at = list(words), 0
    while at < len(rest):
        if rest[at][:2] == "-n" and rest[at][2:3] not in ("", "="):  # -nprod
            rest[at : at + 1] = ["-n", rest[at][2:]]
        if rest[at].partition("=")[0] not in OPTIONS:
            break
        at += 1 if "=" in rest[at] else 2
    return rest[:at], rest[at:]


def containers(rest: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """In which of them the command is run; empty for what runs here."""
    named = any(word.partition("=")[0] == "--config" for word in rest)
    if not rest or "--help" in rest or named or "FAIRLANE_CONFIG" in environment:
        return ()
    return BESIDE.get(rest[0], ())


def found(options: Sequence[str], wanted: Sequence[str]) -> Place:
    """The container to run it in: of the namespace that is named, else of ours, else of any.

    Raises:
        PluginError: there is none, or kubectl does not tell.
    """
    if namespace := _namespace(options):
        return _chosen(options, _pods(options), wanted, namespace)
    if at := _leading(options, _pods(["--namespace", NAMESPACE, *options]), wanted):
        return at
    try:
        elsewhere = _pods(options, "--all-namespaces")
    except PluginError as error:
        told = not_found(wanted, NAMESPACE)
        raise PluginError(f"{told}; name another namespace by -n: {error}") from error
    return _chosen(options, elsewhere, wanted, "")


def here(options: Sequence[str], rest: Sequence[str]) -> list[str]:
    """The command for this machine, with the namespace that was named before it."""
    namespace = _namespace(options)
    has_own = any(word.partition("=")[0] == "--namespace" for word in rest)
    if not namespace or has_own or not rest or rest[0] not in IN_NAMESPACE:
        return list(rest)
    return [rest[0], "--namespace", namespace, *rest[1:]]


@contextmanager
def connection(options: Sequence[str]) -> Iterator[str]:
    """A kubeconfig, for this while, with what kubectl's options choose; empty when they choose nothing."""
    if not any(word.partition("=")[0] in CONNECTION for word in options):
        yield ""
        return
    chosen = _kubectl(options, "config", "view", "--minify", "--flatten", "--output=json")
    with tempfile.NamedTemporaryFile("w", suffix=".kubeconfig") as file:  # readable for its owner only
        file.write(chosen)
        file.flush()
        yield file.name


def _namespace(options: Sequence[str]) -> str:
    """The one that is named last; empty if none is."""
    named = ""
    for word, following in zip_longest(options, options[1:], fillvalue=""):
        option, is_joined, value = word.partition("=")
        if option in ("-n", "--namespace"):
            named = value if is_joined else following
    return named


def _chosen(
    options: Sequence[str], pods: Sequence[Mapping[str, Any]], wanted: Sequence[str], namespace: str
) -> Place:
    if (at := _leading(options, pods, wanted)) is None:
        raise PluginError(not_found(wanted, namespace))
    return at


def _leading(
    options: Sequence[str], pods: Sequence[Mapping[str, Any]], wanted: Sequence[str]
) -> Place | None:
    """Of several replicas that which leads, where kubectl tells."""
    at = place(pods, wanted)
    if at is None or sum(one.container == at.container for one in places(pods)) == 1:
        return at
    return place(pods, wanted, _leaders(options, at.namespace))


def _leaders(options: Sequence[str], namespace: str) -> list[str]:
    """Holders of the Leases; none for who may not read them, which is no reason not to ask any replica."""
    command = ["kubectl", *options, "--namespace", namespace, "get", "leases", *LEASES]
    command += ["--ignore-not-found", "--output=json"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        items = json.loads(ended.stdout)["items"]
        return [item["spec"].get("holderIdentity") or "" for item in items]
    except (OSError, ValueError, KeyError):
        return []


def _pods(options: Sequence[str], *more: str) -> list[Mapping[str, Any]]:
    told = _kubectl(options, "get", "pods", *more, "--selector", OTHERS, "--output=json")
    try:
        items: list[Mapping[str, Any]] = json.loads(told)["items"]
    except (ValueError, KeyError) as error:
        raise PluginError(f"kubectl told no list of pods: {told[:200]}") from error
    return items


def _kubectl(options: Sequence[str], *words: str) -> str:
    command = ["kubectl", *options, *words]
    try:  # what it complains of, and asks who logs in, is told by itself
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        raise PluginError(f"kubectl cannot be run: {error.strerror}") from error
    if ended.returncode:
        raise PluginError(f"`kubectl {' '.join(words[:2])}` failed")
    return ended.stdout


def _exec(options: Sequence[str], at: Place, rest: Sequence[str]) -> None:
    """Be `kubectl exec` from now on."""
    where = [*options, "--namespace", at.namespace, "exec", at.pod, "-c", at.container]
    try:
        os.execvp("kubectl", ["kubectl", *where, "--", "fairlane", *rest])
    except OSError as error:
        raise PluginError(f"kubectl cannot be run: {error.strerror}") from error


def complete() -> None:
    """Entry point of kubectl_complete-fairlane: what kubectl's completion offers after `kubectl fairlane`."""
    options, rest = split(sys.argv[1:-1])
    if options and options[-1] in OPTIONS:  # it is the value of kubectl's own option, which we do not know
        print(ONLY_COMPLETIONS)
        return
    words = ["fairlane", *rest, *sys.argv[1:][-1:]]
    os.environ |= {
        "_FAIRLANE_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    try:
        app([], prog_name="fairlane")
    except SystemExit:
        print(ONLY_COMPLETIONS)


if __name__ == "__main__":
    main()
