"""A built image looked at: is the list of its content true and whole, its size, its starts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.kind.docker import Docker
from testbed.kind.shell import CommandError

HERE = Path(__file__).parent
BYTES_MAX = 600_000_000
START_S_MAX = 2.0
"""Of CPU, since the clock tells of the machine; said, but no reason not to build."""
ROWS = 14
"""Lines of the table of what takes the room; the rest is summed up."""
FIELDS = ("SPDXID", "name", "versionInfo", "downloadLocation", "licenseDeclared", "licenseConcluded")
ID = re.compile(r"SPDXRef-[A-Za-z0-9.-]+")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Inspection:
    """The document itself, bytes in all and by part, and seconds of CPU and on the clock of each start."""

    sbom: dict[str, Any]
    size: int
    sizes: Mapping[str, int]
    starts: Mapping[str, tuple[float, float]]

    def told(self) -> str:
        """As a table for people."""
        lines = [f"{self.size / 1e6:7.1f} MB in all, at most {BYTES_MAX / 1e6:.0f}"]
        largest = sorted(self.sizes.items(), key=lambda one: -one[1])
        shown = [*largest[:ROWS], ("everything else", sum(size for _, size in largest[ROWS:]))]
        lines += [f"{size / 1e6:7.1f} MB {name}" for name, size in shown]
        lines.append("until the port is open   CPU s    s")
        for name, (cpu_s, all_s) in self.starts.items():
            slow = f"   more than {START_S_MAX:.0f} s" if cpu_s > START_S_MAX else ""
            lines.append(f"{name:23} {cpu_s:6.2f} {all_s:5.2f}{slow}")
        return "\n".join(lines)


def inspect(docker: Docker, image: str) -> Inspection:
    """Look at `image`. Raises CommandError when its list of content is wrong or it is too large."""
    told = json.loads(_inside(docker, image, "content.py", ()))
    if wrong := [*faults(told["sbom"]), *differences(told["sbom"], told)]:
        raise CommandError(f"the list of what is in {image} is wrong: " + "; ".join(wrong[:10]))
    size = int(docker.run("image", "inspect", "--format", "{{.Size}}", image))
    if size > BYTES_MAX:
        parts = sorted(told["sizes"].items(), key=lambda one: -one[1])[:ROWS]
        room = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in parts)
        raise CommandError(f"{image} has {size / 1e6:.0f} MB, at most {BYTES_MAX / 1e6:.0f}: {room}")
    starts = json.loads(_inside(docker, image, "starts.py", ("/usr/local/bin/fairlane",)))
    return Inspection(told["sbom"], size, told["sizes"], {name: tuple(one) for name, one in starts.items()})


def _inside(docker: Docker, image: str, script: str, words: tuple[str, ...]) -> str:
    """Standard output of one of our scripts in a container like those of a release."""
    limits = ["--rm", "-i", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
    source = (HERE / script).read_text()
    return docker.run("run", *limits, "--entrypoint", "python3", image, "-", *words, stdin=source)


def differences(sbom: Mapping[str, Any], held: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """What `held` (kind -> name -> version) has that the document lacks, and the other way round."""
    for kind in ("Python", "Debian"):
        listed = {
            one["name"]: one["versionInfo"]
            for one in sbom["packages"]
            if one["SPDXID"].startswith(f"SPDXRef-{kind}-")
        }
        for name in sorted({*listed, *held[kind]}):
            if listed.get(name) != held[kind].get(name):
                yield f"{kind} {name}: {listed.get(name)} is listed, {held[kind].get(name)} is there"


def faults(sbom: Mapping[str, Any]) -> Iterator[str]:
    """What SPDX 2.3 asks for and the document does not keep."""
    if (sbom.get("spdxVersion"), sbom.get("dataLicense")) != ("SPDX-2.3", "CC0-1.0"):
        yield "spdxVersion and dataLicense must be SPDX-2.3 and CC0-1.0"
    if sbom.get("SPDXID") != "SPDXRef-DOCUMENT" or not sbom.get("name"):
        yield "the document needs its own identifier and a name"
    if not re.match(r"[a-z]+:\S+$", sbom.get("documentNamespace", "")):
        yield "documentNamespace must be a URI"
    made = sbom.get("creationInfo", {})
    if not TIME.fullmatch(made.get("created", "")) or not made.get("creators"):
        yield "creationInfo needs a time in UTC and a creator"
    quoted = {one["licenseId"] for one in sbom.get("hasExtractedLicensingInfos", ()) if one["extractedText"]}
    for package in sbom["packages"]:
        yield from _package_faults(package, quoted)
    yield from _reference_faults(sbom)


def _package_faults(package: Mapping[str, Any], quoted: set[str]) -> Iterator[str]:
    name = package.get("name")
    if missing := [one for one in FIELDS if not package.get(one)]:
        yield f"{name} lacks {', '.join(missing)}"
    for reference in re.findall(r"LicenseRef-\S+", package.get("licenseDeclared", "")):
        if reference not in quoted:
            yield f"{name}: no text of {reference}"
    for checksum in package.get("checksums", ()):
        if checksum["algorithm"] != "SHA256" or not SHA256.fullmatch(checksum["checksumValue"]):
            yield f"{name}: its checksum is none"
    if not any(one["referenceLocator"].startswith("pkg:") for one in package.get("externalRefs", ())):
        yield f"{name} has no package URL"


def _reference_faults(sbom: Mapping[str, Any]) -> Iterator[str]:
    ids = [one.get("SPDXID", "") for one in sbom["packages"]]
    if bad := [one for one in ids if not ID.fullmatch(one)]:
        yield f"no identifiers: {', '.join(bad)}"
    if len(set(ids)) < len(ids):
        yield "an identifier is used twice"
    related = sbom.get("relationships", ())
    ends = {one[end] for one in related for end in ("spdxElementId", "relatedSpdxElement")}
    if unknown := ends - {*ids, "SPDXRef-DOCUMENT"}:
        yield f"relationships to what is not there: {', '.join(sorted(unknown))}"
    if not any(one["relationshipType"] == "DESCRIBES" for one in related):
        yield "the document describes nothing"
