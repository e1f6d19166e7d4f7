"""`fairlane bench shares` and `peers`: what the fair queue keeps on real pods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command_line import RESULTS, Json, Out, console, explained, tell, work
from benchmarks.machine import provenance
from testbed.progress import Progress

SHARES_S, FLOOD = 300.0, 200
PEER_LOADS, PEER_ARMS = "hetero,homo,flood", "default,fairlane"
PEER_DATA, PEER_SEED = Path("../shared/data"), 2


def shares(
    seconds: Annotated[float, typer.Option(min=10, help="Of saturation.")] = SHARES_S,
    flood: Annotated[int, typer.Option(min=1, help="Pods that one user submits at once.")] = FLOOD,
    seed: Annotated[int, typer.Option(help="Of the run times.")] = 0,
    out: Out = RESULTS,
    output: Json = "table",
) -> None:
    """The fair queue's promises on real pods, while the leader of two replicas is killed twice.

    Shares by weight although one user lies; whole gangs; small jobs beside a flood. Takes --seconds and
    two minutes. Needs a quiet machine only as far as its processes must come along.

    \b
    Examples:
      fairlane bench shares
      fairlane bench shares --seconds 40 --flood 60
    """
    with explained(), work() as (_, progress):
        _shares(seconds, flood, seed, out, output, progress)


def peers(
    scenarios: Annotated[str, typer.Option(help="Which, comma separated.")] = PEER_LOADS,
    arms: Annotated[str, typer.Option(help="Comma separated: default,fairlane,oracle.")] = PEER_ARMS,
    first: Annotated[int, typer.Option(min=0, help="Only the first so many Jobs of each; 0: all.")] = 0,
    earlier: Annotated[
        int, typer.Option(min=0, max=20, help="Runs of each class that ended before the arm fairlane.")
    ] = 3,
    seed: Annotated[int, typer.Option(help="Of the flood, and of the earlier runs.")] = PEER_SEED,
    data: Annotated[
        Path, typer.Option(envvar="FAIRLANE_DATA", help="Folder that holds uwfq_google_macro/.")
    ] = PEER_DATA,
    out: Out = RESULTS,
    output: Json = "table",
) -> None:
    """Published slices and a flood as real Jobs, under the default scheduler and the fair queue.

    Response, lateness and shares on 32 slots, beside what the simulator says of the same Jobs. A slice takes
    two and a quarter minutes for each arm, the flood one; earlier runs take up to one.

    \b
    Examples:
      fairlane bench peers
      fairlane bench peers --scenarios homo --arms default,fairlane,oracle
      fairlane bench peers --scenarios flood --first 20
    """
    with explained(), work() as (_, progress):
        _peers(scenarios, arms, (first, earlier, seed), data, out, output, progress)


def _peers(
    scenarios: str,
    arms: str,
    plan: tuple[int, int, int],
    data: Path,
    out: Path,
    output: str,
    progress: Progress,
) -> None:
    from benchmarks import peer_loads, peers, peers_report

    first, earlier, seed = plan
    wanted = peers.arms_of(arms)
    loads, absent = peer_loads.loads_of(scenarios, data, first, seed)
    for sentence in absent:
        progress.say(sentence)
    with peers.cluster(progress) as at:
        for load in loads:
            about = {**provenance(at.programs()), "first": first, "seed": seed, "left_out": absent}
            found = peers.measure(at, load, wanted, earlier, seed, whole=not first)
            tell({"benchmark": "peers", **about, **found.to_json()}, out / f"peers-{load.name}", output)
            peers_report.plot(found, out / f"peers-{load.name}.png")
            if output != "json":
                peers_report.show(found, console())


def _shares(seconds: float, flood: int, seed: int, out: Path, output: str, progress: Progress) -> None:
    from benchmarks import shares, shares_report

    about = provenance()
    found = shares.measure(seconds, flood, seed, progress)
    tell({"benchmark": "shares", **about, "seed": seed, **found.to_json()}, out / "shares", output)
    if output != "json":
        shares_report.show(found, console())
