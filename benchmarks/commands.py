"""`fairlane bench`: benchmarks with stored results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command_line import RESULTS, Json, Out, console, explained, tell, work
from benchmarks.fairness_commands import (
    peers,
    shares,
)
from benchmarks.machine import provenance
from testbed.progress import Progress

NODES, RATE_NODES = "100,500,5000", 500
ETA_LOADS, ETA_ESTIMATES = "mixed:28", "0.5,0,history"
WORLDS = 16
USERS, WAITING, QUEUE_NODES, ENDS = "100,1000,10000", 100_000, 200, 1000

app = typer.Typer(rich_markup_mode=None)
app.command()(shares)
app.command()(peers)

Registry = Annotated[
    Path | None, typer.Option(help="Serve the newest model of this registry instead of training one.")
]
Calls = Annotated[int, typer.Option(min=20, help="Calls per way of looking at them.")]
Pods = Annotated[int, typer.Option(min=20, help="Pods of one burst.")]
Rounds = Annotated[int, typer.Option(min=1, help="Bursts of each scheduler, alternating.")]


@app.callback(invoke_without_command=True)
def bench(context: typer.Context) -> None:
    """Measure on a local cluster (real control plane, simulated nodes, generated telemetry, a real model).

    Without a sub-command all benchmarks run with their defaults, one after the other, for more than an hour.
    Nothing else should run on the machine.

    \b
    Examples:
      fairlane bench
      fairlane bench extender --nodes 100,500
      fairlane bench rate --nodes 500 --pods 1000 --rounds 6
      fairlane bench queue
      fairlane bench release
      fairlane bench controller
      fairlane bench idle
      fairlane bench eta
      fairlane bench worlds
      fairlane bench shares
      fairlane bench peers
    """
    if context.invoked_subcommand is None:
        for name, command in context.command.commands.items():  # type: ignore[attr-defined]
            typer.echo(f"fairlane bench {name}")
            with command.make_context(name, [], parent=context) as defaults:
                command.invoke(defaults)


@app.command()
def extender(
    nodes: Annotated[str, typer.Option(help="Cluster sizes, comma separated.")] = NODES,
    calls: Calls = 1000,
    out: Out = RESULTS,
    registry: Registry = None,
    output: Json = "table",
) -> None:
    """Latency of a call: inside the extender, at a client, and at kube-scheduler. Needs root, to listen.

    \b
    Examples:
      fairlane bench extender
      fairlane bench extender --nodes 500 --calls 2000 -o json
    """
    from benchmarks.listening import require_ears
    from benchmarks.setting import model

    with explained():
        require_ears()
        with work() as (folder, progress), model(registry, folder, progress) as served:
            _extender(nodes, calls, out, served, output, progress)


@app.command()
def rate(
    nodes: Annotated[int, typer.Option(min=2, help="Simulated nodes.")] = RATE_NODES,
    pods: Pods = 1000,
    rounds: Rounds = 6,
    arms: Annotated[
        str,
        typer.Option(
            help="Comma separated: plain,all-nodes,silent,naming,fairlane,prioritize,hint,hint-running,"
            "hint-preferred,hint-binding."
        ),
    ] = "",
    out: Out = RESULTS,
    registry: Registry = None,
    output: Json = "table",
) -> None:
    """Pods scheduled per second: plain kube-scheduler and ours with the extender, alternating.

    \b
    Examples:
      fairlane bench rate
      fairlane bench rate --nodes 5000 --rounds 4 --arms plain,fairlane
    """
    from benchmarks.setting import model

    with explained(), work() as (folder, progress), model(registry, folder, progress) as served:
        _rate(nodes, pods, rounds, arms, out, served, output, progress)


@app.command()
def queue(
    users: Annotated[str, typer.Option(help="Numbers of users, comma separated.")] = USERS,
    waiting: Annotated[int, typer.Option(min=1, help="Gangs that wait.")] = WAITING,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes, all of them full.")] = QUEUE_NODES,
    ends: Annotated[int, typer.Option(min=20, help="Gangs that end at each size.")] = ENDS,
    alone: Annotated[bool, typer.Option("--alone", help="Without the walk that remembers nothing.")] = False,
    out: Out = RESULTS,
    output: Json = "table",
) -> None:
    """CPU time of the fair queue's core per event, beside a walk that remembers nothing. Needs no cluster.

    \b
    Examples:
      fairlane bench queue
      fairlane bench queue --users 100 --waiting 2000
      fairlane bench queue --users 10000 --alone
    """
    with explained(), work() as (_, progress):
        _queue(users, waiting, nodes, ends, alone, out, output, progress)


@app.command()
def release(
    pods: Annotated[int, typer.Option(min=100, help="Pods that wait.")] = 15_000,
    users: Annotated[int, typer.Option(min=1, help="Users that they belong to.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Releases of all pods by each way, alternating.")] = 2,
    out: Out = RESULTS,
    output: Json = "table",
) -> None:
    """Gates opened per second on a real API server, kube-scheduler stopped; beside it a bare loop of patches.

    \b
    Examples:
      fairlane bench release
      fairlane bench release --pods 5000 --rounds 4
    """
    from benchmarks import controller, report

    with explained(), work() as (_, progress):
        about = provenance()
        found = controller.measure_release(pods, users, rounds, progress)
        tell({"benchmark": "release", **about, **found.to_json()}, out / f"release-{pods}", output)
        if output != "json":
            report.show_release(found, console())


@app.command()
def controller(
    pods: Annotated[int, typer.Option(min=100, help="Pods that wait.")] = 100_000,
    users: Annotated[int, typer.Option(min=1, help="Users that they belong to.")] = 1000,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes of 110 places, all free at first.")] = 10,
    out: Out = RESULTS,
    output: Json = "table",
) -> None:
    """Memory of a controller with many waiting pods, and its cold start with them, on a real API server.

    \b
    Examples:
      fairlane bench controller
      fairlane bench controller --pods 10000
    """
    from benchmarks import controller as measured
    from benchmarks import report

    with explained(), work() as (_, progress):
        about = provenance()
        found = measured.measure_cold_start(pods, users, nodes, progress)
        tell({"benchmark": "controller", **about, **found.to_json()}, out / f"controller-{pods}", output)
        if output != "json":
            report.show_cold_start(found, console())


@app.command()
def idle(
    nodes: Annotated[int, typer.Option(min=2, help="Simulated nodes.")] = 100,
    waiting: Annotated[int, typer.Option(min=1, help="Gangs that wait in the last phase.")] = 1000,
    samples: Annotated[int, typer.Option(min=1, help="Of each phase.")] = 6,
    sample_s: Annotated[float, typer.Option(min=0.1, help="Length of one; 15 s is one epoch.")] = 15.0,
    out: Out = RESULTS,
    registry: Registry = None,
    output: Json = "table",
) -> None:
    """CPU and memory of each of Fairlane's processes where nothing happens, and with many waiting gangs.

    \b
    Examples:
      fairlane bench idle
      fairlane bench idle --nodes 10 --waiting 50 --samples 2 --sample-s 5
    """
    from benchmarks import idle as measured
    from benchmarks.setting import model

    with explained(), work() as (folder, progress), model(registry, folder, progress) as served:
        about = provenance()
        found = measured.measure(nodes, waiting, samples, sample_s, served, progress)
        tell({"benchmark": "idle", **about, **found.to_json()}, out / f"idle-{nodes}", output)
        if output != "json":
            measured.show(found, console())


@app.command()
def eta(
    loads: Annotated[
        str, typer.Option(help="Scenarios of the generator or trace files, with slots, comma separated.")
    ] = ETA_LOADS,
    estimates: Annotated[
        str, typer.Option(help="Sigmas of the error that estimates have, and history: none, only past runs.")
    ] = ETA_ESTIMATES,
    first: Annotated[int, typer.Option(min=0, help="Only the first so many jobs of each; 0: all.")] = 0,
    photographs: Annotated[int, typer.Option(min=1, help="Instants at which starts are told.")] = 30,
    futures: Annotated[int, typer.Option(min=2, help="Futures run of each, with and without arrivals.")] = 12,
    gangs: Annotated[int, typer.Option(min=1, help="Waiting gangs told of, the next first.")] = 60,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    out: Out = RESULTS,
    output: Json = "table",
) -> None:
    """Expected starts on replayed traces: how many true starts lie inside p10 to p90. Needs no cluster.

    \b
    Examples:
      fairlane bench eta
      fairlane bench eta --loads flood:16,jobs.swf.gz:128 --estimates 0.5,history --first 500
    """
    with explained(), work() as (_, progress):
        _eta(loads, estimates, first, (photographs, futures, gangs), seed, out, output, progress)


@app.command()
def worlds(
    worlds: Annotated[int, typer.Option(min=1, help="How many, of seeds from --seed on.")] = WORLDS,
    seed: Annotated[int, typer.Option(help="Of the first world.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Of 25 judged placements in each world.")] = 3,
    collect_s: Annotated[float, typer.Option(min=60, help="Simulated time that runs are collected.")] = 250.0,
    out: Out = RESULTS,
    output: Json = "table",
) -> None:
    """The demo on a simulated clock in many worlds: regret beyond the luck of one seed. Needs no cluster.

    \b
    Examples:
      fairlane bench worlds
      fairlane bench worlds --worlds 3 --seed 100
    """
    with explained(), work() as (_, progress):
        _worlds(worlds, seed, rounds, collect_s, out, output, progress)


def _worlds(
    count: int, seed: int, rounds: int, collect_s: float, out: Path, output: str, progress: Progress
) -> None:
    from benchmarks import worlds
    from testbed.demo.stages import Plan
    from testbed.layout import Options

    found = []
    for number in range(seed, seed + count):
        plan = Plan(seed=number, collect_s=collect_s, rounds=rounds)
        found.append(worlds.measure(plan, Options()))
        regret = found[-1].judgements[0].regret.mean
        progress.say(f"world {number}: trained on {found[-1].examples} runs, regret {regret:.1%}")
    asked = {"first_seed": seed, "rounds": rounds, "collect_s": collect_s}
    tell({"benchmark": "worlds", **provenance(), **asked, **worlds.to_json(found)}, out / "worlds", output)
    if output != "json":
        worlds.show(found, console())


def _eta(
    loads: str,
    estimates: str,
    first: int,
    plan: tuple[int, int, int],
    seed: int,
    out: Path,
    output: str,
    progress: Progress,
) -> None:
    from benchmarks import eta
    from simulator.expected_starts import Plan

    found: list[eta.Measured] = []
    cpu_s = 0.0
    wanted, absent = eta.loads_of([text.strip() for text in loads.split(",")], first, seed)
    for sentence in absent:
        progress.say(sentence)
    for load in wanted:
        for kind in estimates.split(","):
            measured, took_s = eta.measure(load, kind.strip(), Plan(*plan), seed, progress.say)
            found, cpu_s = found + measured, cpu_s + took_s
    asked = {"photographs": plan[0], "futures": plan[1], "gangs": plan[2], "seed": seed, "first": first}
    content = {"benchmark": "eta", **provenance(), **asked, "cpu_s": cpu_s, "left_out": absent}
    stem = f"eta-{'-'.join(f'{load.name.split(chr(46))[0]}-{load.slots}' for load in wanted) or 'nothing'}"
    tell({**content, "measured": [one.to_json() for one in found]}, out / stem, output)
    if output != "json":
        eta.show(found, console())


def _extender(nodes: str, calls: int, out: Path, registry: Path, output: str, progress: Progress) -> None:
    from benchmarks import latency, report
    from benchmarks.setting import setting

    found: list[latency.Latencies] = []
    about: dict[str, Any] = {}
    for size in _sizes(nodes):
        with setting(size, registry, progress) as at:
            about = about or provenance(at.programs())
            found.append(latency.measure(at, calls))
            progress.say(f"{size:,} nodes are measured")
    stem = f"extender-{'-'.join(str(one.nodes) for one in found)}"
    content = {"benchmark": "extender", **about, "sizes": [one.to_json() for one in found]}
    tell(content, out / stem, output)
    report.plot_latencies(found, out / f"{stem}.png")
    if output != "json":
        report.show_latencies(found, console())


def _rate(
    nodes: int, pods: int, rounds: int, arms: str, out: Path, registry: Path, output: str, progress: Progress
) -> None:
    from benchmarks import rate, report
    from benchmarks.setting import setting

    names = rate.arm_names(arms)
    with setting(nodes, registry, progress) as at:
        about = provenance(at.programs())
        found = rate.measure(at, pods, rounds, names)
    content = {"benchmark": "rate", **about, **found.to_json()}
    stem = f"rate-{nodes}"
    tell(content, out / stem, output)
    report.plot_rate(found, out / f"{stem}.png")
    if output != "json":
        report.show_rate(found, console())


def _queue(
    users: str,
    waiting: int,
    nodes: int,
    ends: int,
    alone: bool,
    out: Path,
    output: str,
    progress: Progress,
) -> None:
    from benchmarks import queue, report

    about = provenance()
    found = queue.measure(_sizes(users, "--users"), waiting, nodes, ends, progress.say, alone=alone)
    stem = f"queue-{waiting}" if "," in users else f"queue-{waiting}-{users}"
    tell({"benchmark": "queue", **about, **found.to_json()}, out / stem, output)
    report.plot_queue(found, out / f"{stem}.png")
    if output != "json":
        report.show_queue(found, console())


def _sizes(text: str, option: str = "--nodes") -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 2:
        raise typer.BadParameter(
            f"{text!r} is not a list of numbers above 1 such as 100,500", param_hint=option
        )
    return sizes
