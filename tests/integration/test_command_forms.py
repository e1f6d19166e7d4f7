"""The command as people call it: completed by a real bash, and as a plugin of a real kubectl."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from real_prometheus import binary

pytestmark = pytest.mark.timeout(600)
FORMS = {
    "fairlane": "scheduler.cli.main:main",
    "kubectl-fairlane": "scheduler.cli.plugin:main",
    "kubectl_complete-fairlane": "scheduler.cli.plugin:complete",
}
COMPLETED = """
eval "$(_FAIRLANE_COMPLETE=source_bash fairlane)"
complete -p fairlane
COMP_WORDS=(fairlane %s) COMP_CWORD=%d
_fairlane_completion fairlane
echo "${COMPREPLY[@]}"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """PATH with the console scripts, as an installation has them."""
    for name, target in FORMS.items():
        module, function = target.split(":")
        script = tmp_path / name
        script.write_text(
            f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        )
        script.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_the_scripts_are_those_of_the_package() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for name, target in FORMS.items():
        assert f'{name} = "{target}"' in project


@pytest.mark.parametrize(("words", "offered"), [("sup", {"support-bundle"}), ("queue --us", {"--user"})])
def test_bash_completes_commands_and_options(
    words: str, offered: set[str], environment: dict[str, str]
) -> None:
    script = COMPLETED % (words, len(words.split()))
    told = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    bound, completions = told.stdout.strip().splitlines()
    assert "_fairlane_completion" in bound
    assert set(completions.split()) == offered


def test_kubectl_finds_the_plugin_and_completes_it(environment: dict[str, str]) -> None:
    kubectl = binary("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl: `make programs` gets one, then this test runs")
    told = subprocess.run(
        [kubectl, "fairlane", "queue", "--help"], env=environment, capture_output=True, text=True, check=True
    )
    assert "kubectl fairlane queue [OPTIONS]" in told.stdout
    offered = subprocess.run(
        [kubectl, "__complete", "fairlane", "sup"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert offered.stdout.splitlines()[:2] == ["support-bundle", ":4"]
