"""The `fairlane` command: one sub-command per file, imported only when it is used.

Serving processes must start fast and must not load training code, so the
table below holds dotted paths instead of imports.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from scheduler.cli.output import write_letters_that_lack_otherwise


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a sub-command lives: `module:attribute`, the attribute being a `typer.Typer`."""

    path: str
    help: str


COMMANDS: dict[str, Entry] = {
    "status": Entry(
        "scheduler.cli.status:app", "Queue, shares, model, telemetry and last training on one screen."
    ),
    "doctor": Entry("scheduler.cli.doctor:app", "Tell what works, what is missing and what to do about it."),
    "support-bundle": Entry(
        "scheduler.cli.support_bundle:app", "What is needed to find a fault, in a file without secrets."
    ),
    "explain": Entry("scheduler.cli.explain:app", "Why a pod was placed where it is."),
    "train": Entry("scheduler.cli.train:app", "Train, judge and publish a completion-time model."),
    "extender": Entry("scheduler.cli.extender:app", "Serve the scheduler extender (filter, prioritize)."),
    "predictor": Entry("scheduler.cli.predictor:app", "Serve the model over gRPC."),
    "recorder": Entry(
        "scheduler.cli.recorder:app", "Record decisions and outcomes into the experience store."
    ),
    "admission": Entry(
        "scheduler.cli.admission:app", "Serve the admission webhook, or print the manifests of admission."
    ),
    "controller": Entry("scheduler.cli.controller:app", "Keep the fair queue: release gangs in fair order."),
    "queue": Entry("scheduler.cli.queue:app", "Who waits, why, and who has what share."),
    "promote": Entry("scheduler.cli.promote:app", "Let one waiting gang go before all others."),
    "usage": Entry("scheduler.cli.usage:app", "What each user asked for and received in a period."),
    "probe": Entry(
        "scheduler.cli.probe:app", "Measure RTT, loss and transfer time to peers, within a budget."
    ),
    "trial": Entry(
        "scheduler.cli.trial:app", "Submit a small gang, and see whether every part does its share."
    ),
    "simulate": Entry(
        "scheduler.cli.simulate:app", "Replay jobs: the fair queue beside published policies, in simulation."
    ),
    "testbed": Entry("testbed.commands:app", "A local cluster from real components, for trying and testing."),
    "demo": Entry("testbed.demo.commands:app", "The main job end to end on a local cluster."),
    "e2e": Entry("testbed.kind.commands:app", "The comparison and real workloads on a kind cluster."),
    "bench": Entry("benchmarks.commands:app", "Benchmarks with stored JSON results."),
}


class LazyCommands(TyperGroup):
    """Loads a sub-command's module when the sub-command is asked for."""

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: object, cmd_name: str) -> TyperCommand | TyperGroup | None:  # noqa: ARG002
        """The named sub-command, imported now; None if there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, attribute = entry.path.split(":")
        command = get_command(getattr(importlib.import_module(module), attribute))
        command.name = cmd_name
        return command  # type: ignore[return-value]

    def format_commands(self, ctx: object, formatter: object) -> None:  # noqa: ARG002
        """List the sub-commands from the table, without importing any."""
        with formatter.section("Commands"):  # type: ignore[attr-defined]
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])  # type: ignore[attr-defined]


app = typer.Typer(cls=LazyCommands, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def fairlane() -> None:
    """Fairlane places every Spark or GPU-training job on the node where it is predicted to finish first."""


def main() -> None:
    """Entry point of the console script."""
    write_letters_that_lack_otherwise()
    sys.exit(app())


if __name__ == "__main__":
    main()
