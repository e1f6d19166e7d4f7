"""What `bench shares` found, as a table and sentences for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean, median

from rich.console import Console
from rich.table import Table

from benchmarks.shares import SLOTS, TARGET, Shares, Small, Whole

SETTING = (
    "Real: etcd, API server, kube-scheduler, two controllers. Simulated: the nodes, and how long pods run. "
    "What pods held is counted from a watch, not by the queue."
)


def show(found: Shares, console: Console) -> None:
    """Print shares beside entitlements, then a sentence on each of the other promises."""
    title = f"{found.seconds:g} s of saturation, {found.slots} slots: parts of what the three held together"
    table = Table(title=title)
    for heading in ("user", "weight", "tells of run times", "held, slot-s", "share", "entitled", "off",
                    "charged in all", "held in all"):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "user" else "right")
    for one in found.shares:
        table.add_row(
            one.user,
            f"{one.weight:g}",
            f"x{one.told:g}",
            f"{one.held_s:,.1f}",
            f"{one.share:.4f}",
            f"{one.entitled:.4f}",
            f"{one.off:+.2%}",
            f"{one.ledger_s:,.1f}",
            f"{one.held_in_all_s:,.1f}",
        )
    console.print(table)
    for sentence in sentences(found):
        console.print(sentence)
    console.print(SETTING)


def sentences(found: Shares) -> Iterator[str]:
    """What was found, one promise each, with its verdict."""
    worst = max(abs(one.off) for one in found.shares)
    yield f"Furthest from its entitlement: {worst:.2%}, target {TARGET:.0%}: {_verdict(worst <= TARGET)}."
    charged = max(abs(one.ledger_s / one.held_in_all_s - 1.0) for one in found.shares if one.held_in_all_s)
    yield f"The ledger differs from what was held by at most {charged:.2%}."
    kills = ", ".join(f"{one.took_s:.1f} s" for one in found.takeovers)
    yield f"The leader was killed {len(found.takeovers)} times; the other one led after {kills or 'none'}."
    yield f"{found.used:.1%} of the slots were held meanwhile; never more than {found.most_bound} of {SLOTS}."
    for kind in sorted({one.kind for one in found.gangs}):
        yield _of_gangs(kind, [one for one in found.gangs if one.kind == kind])
    if found.small:
        yield _of_small(found, found.small)
    bad = {name: told for name, told in found.status.items() if told and name != "troubles"}
    yield f"The controller itself says: {bad or 'no bound violated, no invariant broken'}."


def _of_gangs(kind: str, gangs: Sequence[Whole]) -> str:
    partial = sum(not one.whole for one in gangs)
    spread = max(one.spread_s for one in gangs)
    waited = max(one.waited_s for one in gangs)
    return (
        f"{kind}: {len(gangs)}, of them {partial} partial: {_verdict(not partial)}; first to last pod on a "
        f"node within {spread:.1f} s, at most {waited:.1f} s after it came."
    )


def _of_small(found: Shares, small: Sequence[Small]) -> str:
    took = [one.took_s for one in small]
    beyond = sum(one.took_s > one.allowed_s for one in small)
    return (
        f"Beside a flood of {found.flood} pods, which took {found.flood_s:.0f} s, {len(small)} small jobs "
        f"took {fmean(took):.1f} s in the mean, {median(took):.1f} s in the median, {max(took):.1f} s at "
        f"most; the bound allows {min(one.allowed_s for one in small):.1f} s; {beyond} beyond it: "
        f"{_verdict(not beyond)}."
    )


def _verdict(met: bool) -> str:
    return "met" if met else "missed"
