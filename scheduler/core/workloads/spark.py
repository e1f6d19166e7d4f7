"""How many executors a Spark application starts with, and what each needs; as Spark itself works it out.

Sources: configuration as `spark-submit` hands it to the driver, and the
executor's part of a SparkApplication, put as the same configuration. What a
pod template file adds cannot be seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.core.quantities import quantity
from scheduler.core.queue.events import Shape
from scheduler.core.requests import Complain

_MIB = 2.0**20
_LEAST_OVERHEAD_MIB = 384.0
_NODE_SELECTORS = ("spark.kubernetes.node.selector.", "spark.kubernetes.executor.node.selector.")
_JAVA_SIZE = re.compile(r"(\d+)\s*(b|k|kb|m|mb|g|gb|t|tb|p|pb)?", re.IGNORECASE)
_UNIT = {"b": 1.0, "k": 2.0**10, "m": 2.0**20, "g": 2.0**30, "t": 2.0**40, "p": 2.0**50}
_ESCAPED = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROL = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_KEY = re.compile(r"((?:[^\\:=\s]|\\.)+)\s*[:=]?\s*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Executors:
    """So many of this shape are there from the start."""

    count: int
    shape: Shape


def executors_of(conf: Mapping[str, str], complain: Complain) -> Executors:
    """The executors that an application of this configuration starts with."""
    return Executors(_instances(conf, complain), _shape(conf, complain))


def read_properties(text: str) -> dict[str, str]:
    """A Java properties file."""
    found: dict[str, str] = {}
    for line in _lines(text):
        match = _KEY.fullmatch(line)
        if match is not None:
            found[_plain(match[1])] = _plain(match[2])
    return found


def application_conf(spec: Mapping[str, Any]) -> dict[str, str]:
    """A SparkApplication's specification as the configuration that it is submitted with."""
    conf = {str(key): str(value) for key, value in _mapping(spec.get("sparkConf")).items()}
    executor, dynamic = _mapping(spec.get("executor")), _mapping(spec.get("dynamicAllocation"))
    gpu = _mapping(executor.get("gpu"))
    given = {
        "spark.executor.instances": executor.get("instances"),
        "spark.executor.cores": executor.get("cores"),
        "spark.executor.memory": executor.get("memory"),
        "spark.executor.memoryOverhead": executor.get("memoryOverhead"),
        "spark.kubernetes.executor.request.cores": executor.get("coreRequest"),
        "spark.kubernetes.memoryOverheadFactor": spec.get("memoryOverheadFactor"),
        "spark.kubernetes.resource.type": {"Python": "python", "R": "r"}.get(str(spec.get("type"))),
        "spark.dynamicAllocation.enabled": "true" if dynamic.get("enabled") is True else None,
        "spark.dynamicAllocation.initialExecutors": dynamic.get("initialExecutors"),
        "spark.dynamicAllocation.minExecutors": dynamic.get("minExecutors"),
    }
    vendor, _, resource = str(gpu.get("name", "")).partition("/")
    if resource:
        given[f"spark.executor.resource.{resource}.vendor"] = vendor
        given[f"spark.executor.resource.{resource}.amount"] = gpu.get("quantity")
    for selector in (spec.get("nodeSelector"), executor.get("nodeSelector")):
        given |= {_NODE_SELECTORS[1] + str(key): value for key, value in _mapping(selector).items()}
    return conf | {key: str(value) for key, value in given.items() if value is not None}


def _instances(conf: Mapping[str, str], complain: Complain) -> int:
    fixed = _whole(conf, "spark.executor.instances", complain)
    if conf.get("spark.dynamicAllocation.enabled", "").lower() != "true":
        return 2 if fixed is None else fixed
    keys = ("spark.dynamicAllocation.initialExecutors", "spark.dynamicAllocation.minExecutors")
    return max([fixed or 0, *(_whole(conf, key, complain) or 0 for key in keys)])


def _shape(conf: Mapping[str, str], complain: Complain) -> Shape:
    requests = {"cpu": _cores(conf, complain), "memory": _memory(conf, complain), **_devices(conf, complain)}
    selector = {
        key[len(prefix) :]: value
        for prefix in _NODE_SELECTORS
        for key, value in conf.items()
        if key.startswith(prefix)
    }
    return Shape(
        tuple(sorted(item for item in requests.items() if item[1] > 0)), tuple(sorted(selector.items()))
    )


def _cores(conf: Mapping[str, str], complain: Complain) -> float:
    for key in ("spark.kubernetes.executor.request.cores", "spark.executor.cores"):
        if key in conf:
            try:
                return quantity(conf[key])
            except ValueError as error:
                complain(key, str(error))
    return 1.0


def _memory(conf: Mapping[str, str], complain: Complain) -> float:
    """Heap, overhead, off-heap and Python's part, in bytes; whole MiB as Spark counts."""
    heap = _mib(conf, "spark.executor.memory", complain, 1024.0)
    python = conf.get("spark.kubernetes.resource.type") == "python"
    beside = 0.0
    if conf.get("spark.memory.offHeap.enabled", "").lower() == "true":
        beside += _mib(conf, "spark.memory.offHeap.size", complain, 0.0, unit="b")
    if python:
        beside += _mib(conf, "spark.executor.pyspark.memory", complain, 0.0)
    least = _mib(conf, "spark.executor.minMemoryOverhead", complain, _LEAST_OVERHEAD_MIB)
    overhead = max(float(int(_overhead_factor(conf, complain) * heap)), least)
    return (heap + _mib(conf, "spark.executor.memoryOverhead", complain, overhead) + beside) * _MIB


def _overhead_factor(conf: Mapping[str, str], complain: Complain) -> float:
    """More for what is not Java, unless somebody decided."""
    for key in ("spark.executor.memoryOverheadFactor", "spark.kubernetes.memoryOverheadFactor"):
        if key in conf:
            try:
                return max(0.0, float(conf[key]))
            except ValueError:
                complain(key, f"{conf[key]!r} is no number")
    return 0.4 if conf.get("spark.kubernetes.resource.type") in ("python", "r") else 0.1


def _devices(conf: Mapping[str, str], complain: Complain) -> dict[str, float]:
    """Extended resources, such as nvidia.com/gpu."""
    found: dict[str, float] = {}
    prefix, ending = "spark.executor.resource.", ".amount"
    for key in conf:
        if key.startswith(prefix) and key.endswith(ending):
            name = key[len(prefix) : -len(ending)]
            vendor = conf.get(f"{prefix}{name}.vendor", "")
            amount = _whole(conf, key, complain)
            if vendor and amount:
                found[f"{vendor}/{name}"] = float(amount)
    return found


def _mib(conf: Mapping[str, str], key: str, complain: Complain, default: float, *, unit: str = "m") -> float:
    """A size in MiB, rounded down as Spark does; `unit` is that of a bare number."""
    if key not in conf:
        return default
    match = _JAVA_SIZE.fullmatch(conf[key].strip())
    if match is None:
        complain(key, f"{conf[key]!r} is not a size such as 4g or 512m")
        return default
    return float(int(float(match[1]) * _UNIT[(match[2] or unit)[0].lower()] / _MIB))


def _whole(conf: Mapping[str, str], key: str, complain: Complain) -> int | None:
    text = conf.get(key, "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return int(text)
    complain(key, f"{text!r} is not a whole number")
    return None


def _lines(text: str) -> Iterator[str]:
    """Logical lines: comments left out, continued ones joined."""
    held = ""
    for raw in text.splitlines():
        line = held + raw.lstrip()
        if not held and (not line or line[0] in "#!"):
            continue
        if (len(line) - len(line.rstrip("\\"))) % 2:
            held = line[:-1]
            continue
        held = ""
        yield line
    if held:
        yield held


def _plain(text: str) -> str:
    return _ESCAPED.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    what = match[1]
    return chr(int(what[1:], 16)) if len(what) == 5 else _CONTROL.get(what, what)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
