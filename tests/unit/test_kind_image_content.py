"""The list of what is in an image: all of it and nothing else, in valid SPDX, with hashes out of the lock."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from testbed.kind.content import python_versions, sizes
from testbed.kind.fetched import hashes_of, locked_hashes
from testbed.kind.images import LOCK
from testbed.kind.inspection import BYTES_MAX, Inspection, differences, faults, inspect
from testbed.kind.sbom import document
from testbed.kind.shell import CommandError

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10
Description: a library
 Package: not a field, but a line of the description

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 1
"""
METADATA = {
    "plain-1.2": "Name: Plain\nVersion: 1.2\nLicense-Expression: MIT OR Apache-2.0\n",
    "odd_name-3.0": "Name: odd.name\nVersion: 3.0\nLicense: three pages of text\n",
    "old-0.1": "Name: old\nVersion: 0.1\nClassifier: License :: OSI Approved :: MIT License\n",
    "silent-4": "Name: silent\nVersion: 4\n",
}
HELD = {
    "Python": {"plain": "1.2", "odd-name": "3.0", "old": "0.1", "silent": "4"},
    "Debian": {"libc6": "2.36-9+deb12u10"},
}
HASH = "ab" * 32


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, fields in METADATA.items():
        folder = tmp_path / f"opt/fairlane/site/{name}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\n{fields}")
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('NAME="Debian"\nVERSION_CODENAME=bookworm\n')
    return tmp_path / "opt/fairlane/site"


@pytest.fixture
def sbom(site: Path, tmp_path: Path) -> dict[str, Any]:
    return document(site, tmp_path, {"plain": HASH}, "fairlane", "0.1.0")


def package(sbom: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [one for one in sbom["packages"] if one["name"] == name]
    return dict(found)


def test_everything_that_is_there_is_listed_and_nothing_else(sbom: dict[str, Any], site: Path) -> None:
    assert python_versions(site) == HELD["Python"]
    assert list(differences(sbom, HELD)) == []
    assert {one["name"] for one in sbom["packages"]} == {"fairlane", *HELD["Python"], *HELD["Debian"]}


def test_what_is_missing_too_much_or_of_another_version_is_told(sbom: dict[str, Any]) -> None:
    held = {"Python": HELD["Python"] | {"plain": "1.3", "new": "1"}, "Debian": {}}
    assert list(differences(sbom, held)) == [
        "Python new: None is listed, 1 is there",
        "Python plain: 1.2 is listed, 1.3 is there",
        "Debian libc6: 2.36-9+deb12u10 is listed, None is there",
    ]


def test_the_list_keeps_what_spdx_asks_for(sbom: dict[str, Any]) -> None:
    assert list(faults(sbom)) == []


@pytest.mark.parametrize("field", ["SPDXID", "name", "versionInfo", "downloadLocation", "licenseDeclared"])
def test_a_package_without_a_field_is_told(sbom: dict[str, Any], field: str) -> None:
    broken = copy.deepcopy(sbom)
    broken["packages"][1][field] = ""
    assert list(faults(broken))


@pytest.mark.parametrize(
    "field", ["spdxVersion", "SPDXID", "name", "documentNamespace", "creationInfo", "relationships"]
)
def test_a_document_without_a_field_is_told(sbom: dict[str, Any], field: str) -> None:
    assert list(faults({name: value for name, value in sbom.items() if name != field}))


def test_licences_are_identifiers_where_they_are_stated_and_quoted_otherwise(sbom: dict[str, Any]) -> None:
    declared = {name: package(sbom, name)["licenseDeclared"] for name in HELD["Python"]}
    assert declared == {
        "plain": "MIT OR Apache-2.0",
        "odd-name": "LicenseRef-odd-name",
        "old": "MIT",
        "silent": "NOASSERTION",
    }
    quoted = [{"licenseId": "LicenseRef-odd-name", "extractedText": "three pages of text"}]
    assert sbom["hasExtractedLicensingInfos"] == quoted
    assert list(faults(sbom | {"hasExtractedLicensingInfos": []}))


def test_packages_are_named_so_that_scanners_find_them(sbom: dict[str, Any]) -> None:
    urls = {name: package(sbom, name)["externalRefs"][0]["referenceLocator"] for name in ("plain", "libc6")}
    assert urls["plain"] == "pkg:pypi/plain@1.2"
    assert urls["libc6"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=bookworm"
    assert package(sbom, "plain")["checksums"] == [{"algorithm": "SHA256", "checksumValue": HASH}]


def report(name: str, digest: str) -> dict[str, Any]:
    archive = {"archive_info": {"hashes": {"sha256": digest}}}
    return {"install": [{"metadata": {"name": name}, "download_info": archive}]}


def test_a_file_that_the_lock_does_not_have_stops_the_build() -> None:
    lock = f"odd-name==1 ; python_version < '3.12' \\\n    --hash=sha256:{HASH}\n"
    lock += f"odd-name==2 \\\n    --hash=sha256:{'cd' * 32}\n"
    assert locked_hashes(lock) == {"odd-name": {HASH, "cd" * 32}}
    assert hashes_of(report("Odd.Name", HASH), lock) == {"odd-name": HASH}
    for name, digest in (("odd.name", "ef" * 32), ("other", HASH), ("odd.name", "")):
        with pytest.raises(CommandError, match=r"not in requirements\.lock"):
            hashes_of(report(name, digest), lock)


def test_the_lock_has_hashes_of_everything_it_names() -> None:
    locked = locked_hashes(LOCK.read_text())
    assert len(locked) > 70
    assert all(locked.values())


def test_room_is_told_by_library_with_what_it_brings(tmp_path: Path) -> None:
    files = {"opt/fairlane/site/numpy/a.so": 7, "opt/fairlane/site/numpy.libs/b.so": 5, "usr/bin/python3": 3}
    files |= {"opt/fairlane/site/numpy-2.4.dist-info/METADATA": 1, "opt/fairlane/model/serve.py": 2}
    for name, size in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    assert sizes(tmp_path) == {"numpy": 13, "Debian with Python": 3, "Fairlane": 2}


class Engine:
    """Answers as an engine that has one image of `size` bytes."""

    def __init__(self, told: str, size: int) -> None:
        self.told, self.size = told, size

    def run(self, *words: str, stdin: str | None = None) -> str:
        if words[0] == "image":
            return f"{self.size}\n"
        return self.told if "def sizes" in str(stdin) else '{"extender": [2.5, 3.0], "probe": [0.2, 0.3]}'


def looked_at(sbom: dict[str, Any], size: int) -> Inspection:
    told = json.dumps({"sbom": sbom, "sizes": {"numpy": size}, **HELD})
    return inspect(Engine(told, size), "image")  # type: ignore[arg-type]


def test_an_image_that_is_too_large_is_refused_with_what_takes_the_room(sbom: dict[str, Any]) -> None:
    assert "600.0 MB in all" in looked_at(sbom, BYTES_MAX).told()
    with pytest.raises(CommandError, match=r"601 MB, at most 600: numpy 601"):
        looked_at(sbom, BYTES_MAX + 1_000_000)


def test_an_image_whose_list_is_not_true_is_refused(sbom: dict[str, Any]) -> None:
    with pytest.raises(CommandError, match=r"Debian libc6: None is listed"):
        looked_at(sbom | {"packages": sbom["packages"][:-1], "relationships": sbom["relationships"][:-1]}, 1)


def test_a_slow_start_is_pointed_out(sbom: dict[str, Any]) -> None:
    lines = looked_at(sbom, 1).told().splitlines()
    assert [line.split()[0] for line in lines if "more than 2 s" in line] == ["extender"]
