"""Which metrics our processes export, read from the source; which metrics a PromQL expression names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from scheduler.edge.probe_metrics import ProbeCollector, ProbeState

EDGE = Path(__file__).parents[1] / "scheduler" / "edge"
COUNTERS = {"counter", "counters", "CounterMetricFamily"}
HISTOGRAMS = {"histogram", "HistogramMetricFamily"}
OF_EVERY_PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total"}
"""What metrics.Scrape adds by the client library."""
KEYWORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


def exported() -> set[str]:
    """Names as Prometheus stores them."""
    found = set(OF_EVERY_PROCESS)
    for path in sorted(EDGE.glob("*.py")):
        if "prometheus_client" in (text := path.read_text()):
            module = ast.parse(text)
            found |= set(_of_source(module)) - _prefixes(module)
    state = ProbeState("n", {}, 0.0, 0, 0, 0, {}, {}, 0, 0, 0)
    for family in ProbeCollector(lambda: state).collect():
        found.add(family.name + ("_total" if family.type == "counter" else ""))
    return found


def _of_source(module: ast.Module) -> Iterator[str]:
    constants = _strings(module.body, {})
    for function in [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]:
        known = _strings(function.body, constants)
        kinds = {id(node): call for node, call in _first_arguments(function)}
        for node in ast.walk(function):
            name = _text(node, known)
            if name and re.fullmatch(r"fairlane_[a-z0-9_]*[a-z0-9]", name):
                yield from _stored(name, kinds.get(id(node), ""))


def _prefixes(module: ast.Module) -> set[str]:
    """Strings that are only the beginning of names: assigned to a variable for that."""
    assigned = [node for node in ast.walk(module) if isinstance(node, ast.Assign)]
    return {
        text for one in assigned for name, text in _assigned(one.targets[0], one.value) if name in "NAME name"
    }


def _first_arguments(function: ast.FunctionDef) -> Iterator[tuple[ast.expr, str]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            yield node.args[0], node.func.id


def _stored(name: str, made_by: str) -> Iterator[str]:
    if made_by in COUNTERS:
        yield f"{name}_total"
    elif made_by in HISTOGRAMS:
        yield from (f"{name}_{end}" for end in ("bucket", "sum", "count"))
    else:
        yield name


def _strings(body: list[ast.stmt], known: dict[str, str]) -> dict[str, str]:
    """Names that are assigned a string, also in assignments of several at once."""
    found = dict(known)
    for statement in body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                found.update(_assigned(target, statement.value))
    return found


def _assigned(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, str]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, other in zip(target.elts, value.elts, strict=True):
            yield from _assigned(one, other)
    elif isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield target.id, value.value


def _text(node: ast.AST, known: dict[str, str]) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if not isinstance(node, ast.JoinedStr):
        return ""
    parts = []
    for part in node.values:
        inner = part.value if isinstance(part, ast.FormattedValue) else part
        parts.append(known.get(inner.id, "?") if isinstance(inner, ast.Name) else _text(inner, known))
    return "".join(parts)


def named(expression: str) -> set[str]:
    """Metrics that a PromQL expression asks for."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}", "", bare)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    words = re.findall(r"[A-Za-z_:][A-Za-z0-9_:]*(?!\s*\(|[A-Za-z0-9_:])", bare)
    return {word for word in words if word not in KEYWORDS and not re.search(rf"\d{word}\b", bare)}
