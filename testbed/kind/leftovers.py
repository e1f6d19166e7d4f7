"""What a dockerd of our own changes in the host's network, and how it is put back when it has ended.

dockerd leaves its firewall chains, a FORWARD policy of DROP, packet forwarding, a mounted network
namespace and empty cgroups behind. What was there before the first of ours started is kept in a file until
the last one has ended: the next start of the machine makes its network anew, and takes the file away.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

from testbed.kind.shell import CommandError, run

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
CGROUPS = Path("/sys/fs/cgroup")
TABLES = ("filter", "nat")
BRIDGE = re.compile(r"docker0|br-[0-9a-f]{12}")
BEFORE = Path("/run/fairlane-host.json")
CHAIN = re.compile(r"^-N (DOCKER\S*)$", re.MULTILINE)


def remember(file: Path = BEFORE) -> None:
    """Write down how the host forwards packets, before a dockerd starts; what is written already stays."""
    if file.exists():
        return
    file.write_text(json.dumps({"forwarding": FORWARDING.read_text().strip(), "policy": _forward_policy()}))


def put_back(run_folder: Path, file: Path = BEFORE) -> None:
    """Take away what our dockerd left, once the last has ended; `run_folder` is the exec-root of this one."""
    for mounted in sorted((run_folder / "netns").glob("*")):
        with contextlib.suppress(CommandError):
            run(["umount", mounted])
    if file.exists() and not _another_dockerd():
        before = json.loads(file.read_text())
        for table in TABLES:
            for command in removal(_rules(table)):
                run(["iptables", "-w", "-t", table, *command])
        run(["iptables", "-w", "-P", "FORWARD", before["policy"]])
        FORWARDING.write_text(before["forwarding"])
        _remove_cgroups()
        file.unlink()


def removal(rules: str) -> list[list[str]]:
    """The iptables commands that take Docker's rules and chains out of what `iptables -S` printed.

    Rules of other chains go where they lead to one of Docker's chains or were made for its bridges.
    """
    chains = CHAIN.findall(rules)
    lines = [line.split() for line in rules.splitlines() if line.startswith("-A ")]
    foreign = [words for words in lines if words[1] not in chains and _is_dockers(words, chains)]
    return [
        *(["-D", *words[1:]] for words in foreign),
        *(["-F", chain] for chain in chains),
        *(["-X", chain] for chain in chains),
    ]


def _is_dockers(words: list[str], chains: list[str]) -> bool:
    return any(word in chains or BRIDGE.fullmatch(word) for word in words)


def _rules(table: str) -> str:
    return run(["iptables", "-w", "-t", table, "-S"])


def _forward_policy() -> str:
    found = re.search(r"^-P FORWARD (\S+)", _rules("filter"), re.MULTILINE)
    return found[1] if found else "ACCEPT"


def is_dockerd(pid: int) -> bool:
    """True while process `pid` is a dockerd; one that has ended and waits for its parent is none."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[0].endswith(b"dockerd")


def _another_dockerd() -> bool:
    return any(is_dockerd(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _remove_cgroups() -> None:
    """The empty groups of containers that are gone; a group in use refuses."""
    for top in [CGROUPS / "docker", *CGROUPS.glob("*/docker")]:
        for folder in sorted([top, *top.rglob("*/")], reverse=True) if top.exists() else []:
            if folder.is_dir():
                with contextlib.suppress(OSError):
                    folder.rmdir()
