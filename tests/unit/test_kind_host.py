"""The host under a kind cluster: what keeps a container engine from being had, what dockerd leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.kind import leftovers
from testbed.kind.leftovers import removal
from testbed.kind.runtime import missing_capabilities, no_cgroups

FILTER = """\
-P INPUT ACCEPT
-P FORWARD DROP
-N DOCKER
-N DOCKER-USER
-N web
-A FORWARD -j DOCKER-USER
-A FORWARD -o br-515d2fbb774d -j DOCKER
-A FORWARD -i br-515d2fbb774d -j ACCEPT
-A FORWARD -i eth1 -j ACCEPT
-A FORWARD -o br-lan -j ACCEPT
-A web -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -j RETURN
"""


def status(effective: int) -> str:
    return f"Name:\tpython\nCapPrm:\t{effective:016x}\nCapEff:\t{effective:016x}\n"


def test_root_with_all_rights_lacks_none() -> None:
    assert missing_capabilities(status((1 << 41) - 1)) == ""


def test_root_in_a_plain_container_is_told_which_rights_it_lacks() -> None:
    plain = 0xA80425FB  # what Docker gives a container by default
    assert missing_capabilities(status(plain)).startswith("root lacks CAP_NET_ADMIN and CAP_SYS_ADMIN:")


def test_one_missing_right_is_enough_to_be_told() -> None:
    assert "CAP_NET_ADMIN:" in missing_capabilities(status(((1 << 41) - 1) & ~(1 << 12)))


def test_a_writable_cgroup_file_system_will_do() -> None:
    assert no_cgroups("cgroup /sys/fs/cgroup cgroup2 rw,nosuid 0 0\nproc /proc proc ro 0 0\n") == ""


def test_read_only_and_absent_cgroups_are_told_apart() -> None:
    assert "read-only" in no_cgroups("cgroup /sys/fs/cgroup cgroup2 ro,nosuid 0 0\n")
    assert "not mounted" in no_cgroups("proc /proc proc rw 0 0\n")


def test_dockers_rules_go_before_its_chains_and_its_chains_are_emptied_first() -> None:
    assert removal(FILTER) == [
        ["-D", "FORWARD", "-j", "DOCKER-USER"],
        ["-D", "FORWARD", "-o", "br-515d2fbb774d", "-j", "DOCKER"],
        ["-D", "FORWARD", "-i", "br-515d2fbb774d", "-j", "ACCEPT"],
        ["-F", "DOCKER"],
        ["-F", "DOCKER-USER"],
        ["-X", "DOCKER"],
        ["-X", "DOCKER-USER"],
    ]


def test_other_peoples_rules_stay() -> None:
    touched = [word for command in removal(FILTER) for word in command]
    assert not {"eth1", "br-lan", "web"} & set(touched)


def test_where_docker_was_never_started_nothing_is_removed() -> None:
    assert removal("-P INPUT ACCEPT\n-P FORWARD ACCEPT\n") == []


def test_what_was_before_the_first_dockerd_is_kept_until_the_last_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one that starts meanwhile sees the policy of the first; taken for the host's it would stay."""
    policy, others, done, file = ["ACCEPT"], [True], list[list[str]](), tmp_path / "host.json"
    monkeypatch.setattr(leftovers, "FORWARDING", tmp_path / "ip_forward")
    monkeypatch.setattr(leftovers, "CGROUPS", tmp_path)
    monkeypatch.setattr(leftovers, "_another_dockerd", lambda: others[0])
    monkeypatch.setattr(leftovers, "_rules", lambda _table: f"-P FORWARD {policy[0]}\n")
    monkeypatch.setattr(leftovers, "run", done.append)
    leftovers.FORWARDING.write_text("0\n")
    leftovers.remember(file)
    policy[0] = "DROP"
    leftovers.FORWARDING.write_text("1\n")
    leftovers.remember(file)
    leftovers.put_back(tmp_path / "run", file)  # the first ends, the second still runs
    assert not done
    others[0] = False
    leftovers.put_back(tmp_path / "run", file)
    assert ["iptables", "-w", "-P", "FORWARD", "ACCEPT"] in done
    assert leftovers.FORWARDING.read_text() == "0"
    assert not file.exists()
