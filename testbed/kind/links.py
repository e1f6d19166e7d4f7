"""The links of a kind cluster: rates, competing traffic and delay per node, changed over time.

Only traffic between pods of different nodes is touched; the API server, the
kubelets and image loading keep the full speed. Per node:

- rates by tc, htb on eth0 for what leaves and on an ifb device for what arrives,
  with a short buffer, so that a full link queues as a real one does;
- competing traffic by real TCP readers (testbed/jobs/transfer/traffic.py);
- delay by the relay on a TUN device (testbed/go/node/cmd/relay), added to what arrives:
  the kernels this has to run on need no netem.

The state follows a seeded schedule and stays until the next `apply`: that is
what "under the same link state" means for the ground truth.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from testbed.kind.cluster import POD_SUBNET, KindCluster

BUFFER_S = 0.05
"""Time a full link takes to send what its queue holds."""
BUFFER_BYTES_MIN = 128 * 1024
"""Two of the largest segments that the kernel hands down at once."""
RUN = "/run/fairlane"
"""Folder on a node with the files that steer relay and competing traffic."""

RATES_MBIT = (20, 30, 45, 70, 100)
READERS = (0, 0, 1, 2)
DELAYS_MS = (0, 2, 8, 20)
KEEP = 0.4
"""Probability that a property of a link stays as it was in the step before."""


@dataclass(frozen=True, slots=True)
class Link:
    """One node's link: rates in both directions, readers that compete on it, delay of what arrives."""

    receive_mbit: int
    transmit_mbit: int
    readers: int = 0
    delay_ms: int = 0


State = Mapping[str, Link]
"""The links of all shaped nodes at one step."""


def schedule(seed: int, nodes: Sequence[str]) -> Iterator[State]:
    """Endless states, the same for the same seed and nodes; each differs from the one before."""
    rng = random.Random(seed)
    links = {node: _draw(rng, None) for node in nodes}
    while True:
        yield dict(links)
        before = links
        while links == before:
            links = {node: _draw(rng, link) for node, link in before.items()}


def _draw(rng: random.Random, before: Link | None) -> Link:
    fresh = Link(rng.choice(RATES_MBIT), rng.choice(RATES_MBIT), rng.choice(READERS), rng.choice(DELAYS_MS))
    if before is None:
        return fresh
    kept = asdict(before)
    return Link(
        **{name: kept[name] if rng.random() < KEEP else value for name, value in asdict(fresh).items()}
    )


class Links:
    """Shapes the links of a cluster's workers."""

    def __init__(self, cluster: KindCluster) -> None:
        self._cluster = cluster

    def install(self) -> None:
        """Set up queues and relays, without any limit yet; may be called again."""
        self._everywhere(self._install)

    def apply(self, state: State) -> None:
        """Make the links as `state` says, at once; they stay so until the next call."""
        self._everywhere(lambda node: self._cluster.on_node(node, _shape(state[node])), sorted(state))

    def remove(self) -> None:
        """Leave the links as they were before `install`."""
        self._everywhere(lambda node: self._cluster.on_node(node, REMOVE))

    def _install(self, node: str) -> None:
        self._cluster.on_node(node, f"mkdir -p {RUN} && rm -f {RUN}/relay.new")
        relay = self._cluster.binaries / "relay"
        self._cluster.docker.run("cp", str(relay), f"{node}:/usr/local/bin/relay.new")
        own = self._cluster.kubectl("get", "node", node, "-o", "jsonpath={.spec.podCIDR}").strip()
        self._cluster.on_node(node, REMOVE + INSTALL)
        start = f"exec relay -pods {POD_SUBNET} -own {own} -delays {RUN}/delays >{RUN}/relay.log 2>&1"
        self._cluster.docker.run("exec", "-d", node, "sh", "-c", f"echo $$ >{RUN}/relay.pid; {start}")
        self._cluster.on_node(node, WAIT_FOR_RELAY)

    def _everywhere(self, act: object, nodes: Sequence[str] | None = None) -> None:
        assert callable(act)
        with ThreadPoolExecutor(max_workers=4) as pool:
            for _ in pool.map(act, nodes or self._cluster.workers):
                pass


def _shape(state: Link) -> str:
    rates = [("eth0", state.transmit_mbit), ("ifb0", state.receive_mbit)]
    lines = [_rate(device, mbit) for device, mbit in rates]
    lines.append(f"echo {state.readers} >{RUN}/readers")
    lines.append(f"echo {POD_SUBNET} {state.delay_ms}ms >{RUN}/delays")
    lines.append(f"kill -HUP $(cat {RUN}/relay.pid)")
    return "\n".join(lines)


def _rate(device: str, mbit: int) -> str:
    buffer_bytes = max(int(mbit * 1e6 / 8 * BUFFER_S), BUFFER_BYTES_MIN)
    shape = f"htb rate {mbit}mbit ceil {mbit}mbit burst 16k cburst 16k quantum 60000"
    return (
        f"tc class replace dev {device} parent 1: classid 1:10 {shape}\n"
        f"tc qdisc replace dev {device} parent 1:10 handle 10: bfifo limit {buffer_bytes}"
    )


REMOVE = f"""
[ ! -e {RUN}/relay.pid ] || kill $(cat {RUN}/relay.pid) 2>/dev/null || true
rm -f {RUN}/relay.pid {RUN}/readers
tc qdisc del dev eth0 root 2>/dev/null || true
tc qdisc del dev eth0 ingress 2>/dev/null || true
ip link del ifb0 2>/dev/null || true
"""

INSTALL = f"""
mv -f /usr/local/bin/relay.new /usr/local/bin/relay
echo {POD_SUBNET} 0ms >{RUN}/delays
ip link add ifb0 type ifb
ip link set ifb0 up
for device in eth0 ifb0; do
  tc qdisc add dev $device root handle 1: htb default 1
  tc class add dev $device parent 1: classid 1:1 htb rate 10gbit quantum 60000
  tc class add dev $device parent 1: classid 1:10 htb rate 10gbit quantum 60000
  tc filter add dev $device parent 1: protocol ip prio 1 u32 \\
    match ip src {POD_SUBNET} match ip dst {POD_SUBNET} flowid 1:10
done
tc qdisc add dev eth0 handle ffff: ingress
tc filter add dev eth0 parent ffff: protocol ip prio 1 u32 \\
  match ip src {POD_SUBNET} match ip dst {POD_SUBNET} action mirred egress redirect dev ifb0
"""

WAIT_FOR_RELAY = f"""
for i in $(seq 50); do
  if ip rule show | grep -q '^100:'; then exit 0; fi
  sleep 0.1
done
cat {RUN}/relay.log >&2
exit 1
"""
