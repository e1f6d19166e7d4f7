"""Users and gangs of the fair queue in words and tables, for the commands that show them."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table


def users_table(flows: list[dict[str, Any]], most: int | None = None) -> Table:
    """The users as the controller's API gives them, who received most first; `most` of them at most."""
    shown = sorted(flows, key=lambda one: -one["received"])[:most]
    more = f" ({len(shown)} of {len(flows)})" if len(shown) < len(flows) else ""
    table = Table("user", title=f"Users{more}", title_justify="left")
    for name in ("weight", "entitled", "held", "received", "running", "waiting"):
        table.add_column(name, justify="right")
    for flow in shown:
        shares = (flow["entitled"], flow["held"], flow["received_share"])
        counts = (str(flow["running"]), str(flow["waiting"]))
        table.add_row(escape(flow["user"]), f"{flow['weight']:g}", *map(_percent, shares), *counts)
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def start_from_now(start: dict[str, Any] | None, now_s: float) -> str:
    """Time until an expected start, and in brackets between what it lies with a probability of 80 %."""
    if start is None:
        return ""
    if start["p50_s"] is None:
        later = start["later_than_s"]
        return "later" if later is None else f"later than in {_time(later - now_s)}"
    middle = f"in {_time(start['p50_s'] - now_s)}"
    if start["p10_s"] is None:
        return middle
    if start["p90_s"] is not None and start["p90_s"] <= now_s:
        return "at any moment"
    latest = "?" if start["p90_s"] is None else _time(start["p90_s"] - now_s)
    return f"{middle} ({_time(start['p10_s'] - now_s)} to {latest})"


def gang_lines(told: dict[str, Any], name: str, now_s: float) -> list[str]:
    """The receipt of a gang as the controller's API gives it, in sentences."""
    place = f", position {told['position']}" if told["position"] else ""
    lines = [
        f"Gang {name} of {told['user']} ({len(told['pods'])} pods) is {told['state']}{place}: {told['why']}."
    ]
    start = told["expected_start"]
    if start is not None:
        futures = f"{start['futures']} " if start["futures"] else ""
        lines.append(f"Expected start {start_from_now(start, now_s)}, by {futures}{start['source']}.")
    estimate = told["estimate"]
    between = f"{_time(estimate['p10_s'])} to {_time(estimate['p90_s'])}"
    lines.append(f"It is expected to take {_time(estimate['p50_s'])} ({between}), by {estimate['source']}.")
    tag = "" if told["tag"] is None else f"; its tag is {told['tag']:.6g}"
    asks = f"It asks for {100 * told['share']:.2f} % of the queue, {told['work']:.4g} share-seconds"
    lines.append(f"{asks}{tag}.")
    if told["released_s"] is not None:
        how = " ahead of its turn, since it delayed nobody" if told["backfilled"] else ""
        waited, charged = _time(told["released_s"] - told["arrived_s"]), f"{told['charged_work']:.4g}"
        lines.append(f"It was released{how} after {waited}; so far it is charged {charged} share-seconds.")
    if placement := told.get("placement"):
        lines.append(f"At its release: {placement}.")
    lines.append(
        f"{told['user']} is entitled to {100 * told['user_entitled']:.1f} % now and has received "
        f"{told['user_received']:.4g} share-seconds."
    )
    return lines


def _time(seconds: float) -> str:
    left_s = max(0.0, seconds)
    if left_s < 120:
        return f"{left_s:.0f} s"
    return f"{left_s / 60:.0f} min" if left_s < 7200 else f"{left_s / 3600:.1f} h"
