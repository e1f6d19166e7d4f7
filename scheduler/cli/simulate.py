"""`fairlane simulate`: the production queue beside published policies; traces, generated and closed loads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer.core import TyperGroup

if TYPE_CHECKING:
    from simulator.cluster import Cluster
    from simulator.comparison import Comparison
    from simulator.engine import Watch
    from simulator.workload import Workload

POLICIES = "fairlane,ujf,cfq,uwfq"
WIDTH_AT_MOST = 1000
WEIGHTS = (1e-6, 1e6)
"""Beyond, rounding takes the place of what the lighter user would get."""
EXIT_INPUT, EXIT_DEFECT = 2, 3
NAMES = (
    "fairlane, fairlane-slack, fifo, fair, ujf, srpt, cfq, uwfq, uwfq-floor, drf, "
    "settled, settled-slack, settled-small"
)


class DefaultsToRun(TyperGroup):
    """`fairlane simulate TRACE` means `fairlane simulate run TRACE`."""

    def parse_args(self, ctx: object, args: list[str]) -> list[str]:
        """Put `run` first where no sub-command is named."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)  # type: ignore[arg-type]


app = typer.Typer(cls=DefaultsToRun, add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def simulate() -> None:
    """Replay jobs on simulated slots or nodes: our queue as it runs in production, beside published policies.

    \b
    fairlane simulate TRACE ...     a trace (same as `fairlane simulate run TRACE`)
    fairlane simulate generate ...  make a trace from a description of users
    fairlane simulate closed ...    users who always wait: shares by weight

    \b
    Examples:
      fairlane simulate trace.swf.gz --slots 128
      fairlane simulate jobs.csv --nodes nodes.csv --policy fairlane,drf --report report
      fairlane simulate generate mixed --out mixed.csv
      fairlane simulate closed --weights 1,2,4 --slots 32

    Formats, policies with their sources, and figures: docs/simulator.md.
    """


Policies = Annotated[str, typer.Option("--policy", help=f"Comma separated, of: {NAMES}.")]
Estimates = Annotated[
    str, typer.Option(help="exact, lognormal:S, bias:USER=X, constant, model; several by comma, multiplied.")
]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write all figures there, as JSON.")]

RUN_EXAMPLES = """
Exit codes: 0 done, 2 the trace or an option is wrong, 3 a scheduler broke a rule (a defect: please report).

Examples:

  fairlane simulate trace.swf.gz --slots 128 --policy fairlane,fifo

  fairlane simulate jobs.parquet --nodes nodes.csv --weight alice=2 --estimates lognormal:0.5 --seed 1

  fairlane simulate homo_macro_config.json.gz --slots 32 --estimates bias:user_5=0.1

  fairlane simulate mixed.csv --slots 64 --json figures.json --report report
"""


@app.command(epilog=RUN_EXAMPLES)
def run(
    trace: Annotated[Path, typer.Argument(help=".swf, .csv, .parquet, UWFQ .json; .gz where it is text.")],
    slots: Annotated[int, typer.Option(min=0, help="Identical slots; a pod takes one.")] = 0,
    nodes: Annotated[
        Path | None, typer.Option(help="Nodes instead of slots: CSV with cpu, memory, gpu; name, count.")
    ] = None,
    policy: Policies = POLICIES,
    estimates: Estimates = "exact",
    weight: Annotated[
        list[str] | None, typer.Option(help="USER=W, repeatable; users not named weigh 1.")
    ] = None,
    seed: Seed = 0,
    first: Annotated[int, typer.Option(min=0, help="Only the first so many jobs; 0: all.")] = 0,
    shares: Annotated[
        bool, typer.Option("--shares", help="Print received against entitled by user.")
    ] = False,
    out: Json = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder for report.json, report.txt and plots (PNG).")
    ] = None,
) -> None:
    """Run every policy on the trace; print response times, lateness, shares and use.

    All policies see the same jobs and the same errors of estimates. Lateness is against a fluid cluster
    shared perfectly by weight, uncapped and with each job capped at its own share; DVR and DSR against UJF.
    """
    from simulator.comparison import Setting, compare
    from simulator.traces import read_trace

    with _explained():
        names, make = _names(policy), _cluster(slots, nodes)
        workload = _first(read_trace(trace), first)
        setting = Setting(workload, make, estimates, seed, _weights(weight or [], workload))
        with _progress(len(workload.jobs)) as announce:
            comparison = compare(setting, names, announce)
        _show(comparison, shares, out, report)


GENERATE_EXAMPLES = """
Examples:

  fairlane simulate generate mixed --seed 1 --out mixed.csv

  fairlane simulate generate --print flood > my-users.yaml

  fairlane simulate generate my-users.yaml --out jobs.csv
"""


@app.command(epilog=GENERATE_EXAMPLES)
def generate(
    scenario: Annotated[
        str, typer.Argument(help="A YAML description, or one of: adversary, flood, large, mixed.")
    ],
    out: Annotated[Path | None, typer.Option(help="CSV to write; default: SCENARIO.csv.")] = None,
    seed: Seed = 0,
    print_it: Annotated[bool, typer.Option("--print", help="Print a ready description instead.")] = False,
) -> None:
    """Make a trace: load composed per user from arrivals, bursts, a mix of jobs and heavy tails."""
    from simulator.generator import description, read_scenario
    from simulator.generator import generate as make
    from simulator.traces.tables import write_csv

    with _explained():
        if print_it:
            print(description(scenario), end="")
            return
        workload = make(read_scenario(scenario), seed, Path(scenario).stem)
        path = out or Path(f"{Path(scenario).stem}.csv")
        write_csv(path, workload)
        last_s = workload.jobs[-1].submitted_s
        busy = sum(job.pod_seconds for job in workload.jobs) / last_s if last_s > 0 else float("nan")
        Console(stderr=True, highlight=False, markup=False, emoji=False).print(
            f"{path}: {len(workload.jobs):,} jobs of {len(workload.users)} users over {last_s:,.0f} s, "
            f"{busy:.1f} pods busy in the mean if none had to wait"
        )


CLOSED_EXAMPLES = """
Examples:

  fairlane simulate closed --weights 1,2,4 --slots 32

  fairlane simulate closed --weights 1,1,1 --estimates bias:user-1=0.3,bias:user-3=3 --policy fairlane,uwfq
"""


@app.command(epilog=CLOSED_EXAMPLES)
def closed(
    weights: Annotated[str, typer.Option(help="One a user, comma separated.")] = "1,1,1",
    slots: Annotated[int, typer.Option(min=1, help="Identical slots.")] = 32,
    outstanding: Annotated[
        int, typer.Option(min=1, help="Jobs that each user always has in the system.")
    ] = 64,
    horizon_s: Annotated[float, typer.Option("--horizon", min=1, help="Seconds simulated.")] = 7200.0,
    pods: Annotated[int, typer.Option(min=1, help="A job has one pod up to so many.")] = 1,
    policy: Policies = "fairlane,uwfq",
    estimates: Estimates = "exact",
    seed: Seed = 0,
    out: Json = None,
) -> None:
    """Users who always wait: the share each receives of the cluster, beside his entitlement by weight."""
    from simulator.closed_loop import ClosedLoop, Received, run_closed_loop

    with _explained():
        names = _names(policy)
        of_user = {f"user-{at}": each for at, each in enumerate(map(_weight, weights.split(",")), 1)}
        setting = ClosedLoop(
            of_user, slots, horizon_s, outstanding, pods=pods, estimates=estimates, seed=seed
        )
        with _progress(None) as announce:
            results: list[Received] = [run_closed_loop(setting, name, announce(name)) for name in names]
        from simulator.report import closed_json, closed_table

        _print_whole(closed_table(results))
        if out:
            out.write_text(json.dumps(closed_json(setting, results), indent=2) + "\n")


@contextmanager
def _explained() -> Iterator[None]:
    """Mistakes in traces and options end the command with their sentence."""
    from simulator.engine import StuckError
    from simulator.generator import ScenarioError
    from simulator.policies.fairlane import CoreDefectError
    from simulator.traces import TraceError

    complain = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False).print
    try:
        yield
    except (TraceError, ScenarioError, ValueError, OSError) as error:
        complain(f"simulate: {error}")
        raise typer.Exit(EXIT_INPUT) from error
    except (StuckError, CoreDefectError) as error:
        complain(f"simulate: {error}")
        raise typer.Exit(EXIT_DEFECT) from error


def _cluster(slots: int, nodes: Path | None) -> Callable[[], Cluster]:
    from simulator.cluster import Slots, read_nodes

    if bool(slots) == bool(nodes):
        raise ValueError("give either --slots N or --nodes FILE")
    return (lambda: read_nodes(nodes)) if nodes else (lambda: Slots(slots))


def _first(workload: Workload, jobs: int) -> Workload:
    from simulator.workload import workload_of_first

    return workload_of_first(workload, jobs) if jobs else workload


def _names(policies: str) -> Sequence[str]:
    from simulator.policies.registry import known

    return known(list(dict.fromkeys(name.strip() for name in policies.split(",") if name.strip())))


def _weights(given: list[str], workload: Workload) -> dict[str, float]:
    weights: dict[str, float] = {}
    for text in given:
        user, separator, number = text.rpartition("=")
        if not separator or user not in workload.users:
            raise ValueError(f"weight {text!r}: expected USER=W with a user of the trace")
        weights[user] = _weight(number)
    return weights


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError as error:
        raise ValueError(f"weight {text!r} is not a number") from error
    least, most = WEIGHTS
    if not least <= weight <= most:
        raise ValueError(f"weight {text!r}: must be above 0, from {least:f} to {most:.0f}")
    return weight


@contextmanager
def _progress(jobs: int | None) -> Iterator[Callable[[str], Watch]]:
    """A bar for each policy, counting jobs that ended."""
    columns = (TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def announce(name: str) -> Watch:
            task = progress.add_task(name, total=jobs)

            def ended(count: int) -> None:
                progress.update(task, completed=count)

            return ended

        yield announce


def _print_whole(table: Table, file: IO[str] | None = None) -> None:
    """Print a table as wide as it is: a number of which half is cut off says nothing."""
    console = Console(file=file, markup=False, emoji=False)
    needed = console.measure(table, options=console.options.update(max_width=WIDTH_AT_MOST)).maximum
    console.width = max(console.width, needed)
    console.print(table)


def _show(comparison: Comparison, shares: bool, out: Path | None, report: Path | None) -> None:
    from simulator.plots import draw
    from simulator.report import notes, share_table, tables, write_json

    console = Console(markup=False, emoji=False)
    shown = [*tables(comparison)]
    if shares:
        shown += [share_table(each.measures) for each in comparison.results]
    for table in shown:
        _print_whole(table)
    for note in notes(comparison):
        console.print(f"note: {note}")
    if out:
        write_json(comparison, out)
    if report:
        draw(comparison, report)
        write_json(comparison, report / "report.json")
        with (report / "report.txt").open("w") as text:
            for table in shown:
                _print_whole(table, text)
        console.print(f"report: {report}")
