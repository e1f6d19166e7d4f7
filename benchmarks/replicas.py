"""Two replicas of the controller, of which the one that leads is killed (SIGKILL), and started again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.setting import ask, token_of
from testbed.cluster import Cluster, Process
from testbed.control import TestbedError

SECOND = "controller-2"
LEADS_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Takeover:
    """At which second of the benchmark the leader was killed, and how long nobody led after that."""

    at_s: float
    took_s: float
    killed: str


class Replicas:
    """The testbed's controller and a second one."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._port_file = cluster.layout.file(f"{SECOND}.port")
        first = cluster.process("controller")
        first.start()
        argv = (*first.spec.argv, "--port", "0", "--port-file", str(self._port_file))
        self._all: dict[str, Process] = {"controller": first, SECOND: cluster.run(SECOND, *argv)}

    def leader(self) -> tuple[str, dict[str, Any]] | None:
        """Which one leads, and its status; None while none does."""
        for name in self._all:
            told = self._ask(name, "/v1/status")
            if told is not None and told["leads"] and not told["unready"]:
                return name, told
        return None

    def received(self) -> dict[str, float]:
        """Share-seconds that each user has received, by the leader's ledger; empty while nobody leads."""
        found = self.leader()
        told = self._ask(found[0], "/v1/queue") if found is not None else None
        return {flow["user"]: flow["received"] for flow in (told or {"flows": []})["flows"]}

    def running(self) -> int:
        """How many gangs wait or run, by the leader; -1 while nobody leads."""
        found = self.leader()
        told = self._ask(found[0], "/v1/queue") if found is not None else None
        return -1 if told is None else int(told["running"]) + int(told["waiting"])

    async def wait_led(self) -> tuple[str, dict[str, Any]]:
        """Wait until one leads and sees the cluster.

        Raises:
            TestbedError: none does within a minute; the message has the end of both logs.
        """
        deadline_s = time.monotonic() + LEADS_S_MAX
        while (found := await asyncio.to_thread(self.leader)) is None:
            if time.monotonic() > deadline_s:
                logs = "\n".join(f"{name}:\n{one.log_tail()}" for name, one in self._all.items())
                raise TestbedError(
                    f"no replica leads after {LEADS_S_MAX:.0f} s; the ends of the logs:\n{logs}"
                )
            await asyncio.sleep(0.1)
        return found

    async def kill_leader(self, at_s: float) -> Takeover:
        """Kill the one that leads; returns when the other one does, with the killed one started again."""
        name, _ = await self.wait_led()
        process = self._all[name]
        await asyncio.to_thread(process.kill)
        killed_s = time.monotonic()
        await self.wait_led()
        took_s = time.monotonic() - killed_s
        await asyncio.to_thread(process.start, False)
        return Takeover(at_s, took_s, name)

    def _ask(self, name: str, path: str) -> dict[str, Any] | None:
        url = self._cluster.layout.url("controller")
        if name == SECOND:
            if not self._port_file.exists():
                return None
            url = f"http://127.0.0.1:{self._port_file.read_text().strip()}"
        return ask(url + path, token=token_of(self._cluster)) or None
