"""The docs are run: their commands on a real cluster, their manifests by a real API server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from admission_setup import DRY, PODS, Installed, Object, _crd, installed, pod, with_admin
from cli_examples import examples
from docs_blocks import ROOT, Block, blocks, in_sentences, pages
from docs_reader import Reader, reader_in
from test_admission import gates

from scheduler.core.admission.kinds import KNOWN, templates_of
from scheduler.core.admission.rules import GATE, STAMP
from scheduler.edge.kube import KubeClient, KubeError
from testbed import binaries
from testbed.cluster import Cluster
from testbed.progress import Progress

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
KINDS = ("jobsets", "sparkapplications", "pytorchjobs", "rayclusters")
PLURALS = {"Pod": "", "Job": "jobs", "SparkApplication": "sparkapplications"}
PLURALS |= {"PyTorchJob": "pytorchjobs", "RayCluster": "rayclusters"}
TYPED = re.compile(
    r"fairlane (status|doctor|queue|usage|support-bundle|train --examples"
    r"|testbed programs|admission manifests|simulate (?!jobs.parquet|homo_macro))"
)
"""Examples that are typed on the testbed; jobs.parquet and the published slice are not here."""
PROCESSES = ("recorder", "controller")

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def site(cluster: Cluster) -> Iterator[Installed]:
    """The shared testbed with admission for all kinds that the docs speak of, and the queue at work."""
    crds = [_crd("RayCluster", "rayclusters", "ray.io", "v1")]
    crds.append(yaml.safe_load((ROOT / "manifests" / "fairqueue-crd.yaml").read_text()))
    asyncio.run(with_admin(cluster, lambda kube: _known(kube, crds)))
    with installed(cluster, "policies", controller="fairlane-controller", kinds=list(KINDS)) as state:
        for name in PROCESSES:
            cluster.process(name).restart()
        try:
            yield state
        finally:
            for name in reversed(PROCESSES):
                cluster.process(name).stop()
            asyncio.run(with_admin(cluster, _tidied))


async def _known(kube: KubeClient, crds: list[Object]) -> None:
    for crd in crds:
        try:
            await kube.post(CRDS, crd)
        except KubeError as error:
            if error.status != 409:
                raise


async def _tidied(kube: KubeClient) -> None:
    """What the pages made is gone: other tests share the testbed."""
    for path in ("/apis/fairlane.dev/v1alpha1/fairqueues", PODS.format("default")):
        await kube.delete(path)
    with contextlib.suppress(KubeError):
        await kube.delete("/api/v1/namespaces/batch")


@pytest.fixture
def reader(site: Installed, tmp_path: Path) -> Reader:
    """A reader of one page, whose kubectl and fairlane know the testbed."""
    cluster = site.cluster
    return reader_in(tmp_path, KUBECONFIG=str(cluster.kubeconfig), FAIRLANE_CONFIG=str(cluster.settings_file))


def _with(mark: str, more: str | None = None) -> list[Path]:
    found = [
        page for page in pages() if any(one.mark == mark and more in (None, one.more) for one in blocks(page))
    ]
    return [page for page in found if page.name != "README.md"]


@pytest.mark.parametrize("page", _with("run", ""), ids=lambda page: page.name)
def test_the_commands_of(page: Path, reader: Reader) -> None:
    _run_page(page, reader, long=False)


@pytest.mark.long
@pytest.mark.parametrize("page", _with("run", "long"), ids=lambda page: page.name)
def test_all_commands_of(page: Path, reader: Reader) -> None:
    _run_page(page, reader, long=True)


@pytest.mark.long
def test_the_readme_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    """With a testbed of its own, as a newcomer; only the programs are taken from where they are."""
    cache = tmp_path / "cache"
    cache.mkdir()
    found = binaries.ensure(["etcd"], Progress(quiet=True))["etcd"].parent
    (cache / "bin").symlink_to(found)
    folder = tmp_path / "project"
    folder.mkdir()
    reader = reader_in(folder, FAIRLANE_CACHE=str(cache))
    reader.environment.pop("KUBECONFIG", None)
    try:
        _run_page(ROOT / "README.md", reader, long=True)
    finally:
        reader.run("fairlane testbed down")


@pytest.mark.long
def test_examples_of_commands_that_ask_and_simulate(reader: Reader) -> None:
    """In the order of docs/cli.md, with the testbed's settings under the name that the page gives them."""
    settings = Path(reader.environment["FAIRLANE_CONFIG"]).read_text()
    (reader.folder / "fairlane.yaml").write_text(settings)
    reader.instead = {"http://fairlane-controller:8891": yaml.safe_load(settings)["controller_url"]}
    typed = [one.text for one in examples() if TYPED.match(one.text)]
    assert len(typed) > 20
    for text in typed:
        reader.follow(text)


def _run_page(page: Path, reader: Reader, *, long: bool) -> None:
    for block in blocks(page):
        if block.mark == "save":
            reader.save(block)
        elif block.mark == "run" and (not block.more or (long and block.more == "long")):
            said = reader.run(block.text)
            print(f"--- {block}\n{said}")


@pytest.mark.parametrize(
    "page", [page for page in pages() if any(one.objects for one in blocks(page))], ids=lambda page: page.name
)
def test_the_api_server_takes_every_manifest_of(page: Path, reader: Reader) -> None:
    for block in blocks(page):
        if block.objects:
            (reader.folder / "block.yaml").write_text(block.text)
            reader.run("kubectl apply --dry-run=server --validate=strict -f block.yaml")


def test_kubectl_knows_every_command_and_option(reader: Reader) -> None:
    helps: dict[str, str] = {"": reader.run("kubectl options")}
    unknown = []
    for block in [one for page in pages() for one in (*blocks(page), *in_sentences(page))]:
        for words in [one[1:] for one in block.commands if one[0] == "kubectl"]:
            verb, given = _verb(words)
            if verb not in helps:
                helps[verb] = reader.run(f"kubectl {verb} --help")
            known = helps[verb] + helps[""]
            unknown += [
                f"{block}: {verb} {one}" for one in given if not re.search(rf"(?<!\S){one}[=, ]", known)
            ]
    assert len(helps) > 4
    assert unknown == []


def _verb(words: list[str]) -> tuple[str, list[str]]:
    """The command, with its second word where it has one, and the options given."""
    options = [word.split("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)]
    plain, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = "=" not in word and word in ("-n", "--namespace")
        else:
            plain.append(word)
    second = plain[1] if plain[0] in ("create", "rollout", "config", "fairlane") and len(plain) > 1 else ""
    return f"{plain[0]} {second}".strip(), options


MANIFESTS = [one for one in blocks(ROOT / "docs" / "opting-in.md") if one.objects]


@pytest.mark.parametrize("block", MANIFESTS, ids=lambda block: block.more)
async def test_who_follows_opting_in_is_gated_and_stamped(site: Installed, block: Block) -> None:
    assert block.mark == "save"
    for one in block.objects:
        made = await _made(site, one)
        for waiting in made:
            told = waiting["metadata"]["annotations"]
            assert (
                gates(waiting) == [GATE] or "fairlane.dev/receipt" in told
            )  # the controller may have been quick
            assert told[STAMP] == "alice"
            assert waiting["spec"]["schedulerName"] == "fairlane"
        assert made


async def _made(site: Installed, one: Object) -> list[Object]:
    """The pods that come of it when alice applies it: by real controllers, or as an operator makes them."""
    async with site.user("alice") as alice:
        if one["kind"] == "Pod":
            return [json.loads(await alice.post(PODS.format("team") + DRY, one))]
        plural = PLURALS[one["kind"]]
        path = f"/apis/{one['apiVersion']}/namespaces/team/{plural}"
        if one["kind"] == "Job":
            await alice.post(path, one)
            try:
                return await _pods_of_job(alice, one["metadata"]["name"])
            finally:
                gone = {"propagationPolicy": "Background"}
                await alice.delete(f"{path}/{one['metadata']['name']}", gone)
        whole = json.loads(await alice.post(path + DRY, one))
    kind = KNOWN[plural]
    async with site.user(kind.controllers[0]) as operator:
        made = []
        for found in templates_of(whole, kind.places):
            flat = {"schedulerName": found.template.get("schedulerName")} if found.flat else {}
            body = pod(**(flat or found.template["spec"]))
            where = found.template if found.flat else found.template["metadata"]
            body["metadata"]["annotations"] = dict(where["annotations"])
            made.append(json.loads(await operator.post(PODS.format("team") + DRY, body)))
        return made


async def _pods_of_job(kube: KubeClient, name: str) -> list[Object]:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        found = json.loads(await kube.get(PODS.format("team"), {"labelSelector": f"job-name={name}"}))[
            "items"
        ]
        if found:
            return list(found)
        await asyncio.sleep(0.1)
    raise AssertionError(f"the Job controller made no pod for {name}")


async def test_a_driver_as_spark_submit_makes_it_is_gated_and_stamped(site: Installed) -> None:
    """By the options of the page: spark-submit copies scheduler name and annotations to the driver."""
    (words,) = [
        words
        for block in blocks(ROOT / "docs" / "opting-in.md")
        for words in block.commands
        if words[0] == "spark-submit"
    ]
    conf = dict(one.split("=", 1) for option, one in pairwise(words) if option == "--conf")
    prefix = "spark.kubernetes.driver.annotation."
    body: Any = pod(schedulerName=conf["spark.kubernetes.scheduler.name"])
    body["metadata"]["annotations"] = {
        key.removeprefix(prefix): value for key, value in conf.items() if key.startswith(prefix)
    }
    body["metadata"]["labels"] = {"spark-role": "driver"}
    async with site.user("alice") as alice:
        made = json.loads(await alice.post(PODS.format(conf["spark.kubernetes.namespace"]) + DRY, body))
    assert gates(made) == [GATE]
    assert made["metadata"]["annotations"] == {"fairlane.dev/job-class": "etl", STAMP: "alice"}
