"""What is in an image, as SPDX 2.3: every Python distribution and every Debian package, and nothing else.

It runs inside the image while that is built, by its Python and with nothing but
the standard library:

    python3 sbom.py SITE HASHES NAME VERSION >sbom.spdx.json

SITE is the folder with the distributions, HASHES a JSON object of their files'
sha256 by name (what pip fetched, found in the lock file). A licence that is
not stated by an SPDX identifier is quoted as it was stated, not guessed.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

UNKNOWN = "NOASSERTION"
EXPRESSION = re.compile(r"\(?[A-Za-z0-9.+-]+\)?( (AND|OR|WITH) \(?[A-Za-z0-9.+-]+\)?)*")
SPELLINGS = {
    "0BSD": "0BSD",
    "Apache 2.0": "Apache-2.0",
    "Apache-2.0": "Apache-2.0",
    "BSD-2-Clause": "BSD-2-Clause",
    "BSD 2-Clause License": "BSD-2-Clause",
    "BSD-3-Clause": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "ISC": "ISC",
    "ISC License": "ISC",
    "MIT": "MIT",
    "MIT License": "MIT",
    "MPL-2.0": "MPL-2.0",
    "PSF-2.0": "PSF-2.0",
}
"""The field `License`, as it is written -> the identifier that it means."""
CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""Those of one meaning only ("BSD License" has several)."""
QUOTED_CHARACTERS = 2000
INSTALLED = "install ok installed"


def document(site: Path, debian: Path, hashes: Mapping[str, str], name: str, version: str) -> dict[str, Any]:
    """The SPDX document about `site`, and about the Debian below the folder `debian`."""
    quoted: dict[str, str] = {}
    product = _package("Product", name, version, UNKNOWN, f"pkg:generic/{name}@{quote(version, safe='')}")
    found = [product, *distributions(site, hashes, quoted), *debian_packages(debian)]
    content = json.dumps(found, sort_keys=True)
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", product["SPDXID"])]
    relations += [(product["SPDXID"], "CONTAINS", one["SPDXID"]) for one in found[1:]]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{version}",
        "documentNamespace": uuid.uuid5(uuid.NAMESPACE_OID, content).urn,
        "creationInfo": {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "creators": [f"Tool: {name}-image"],
        },
        "packages": found,
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in relations
        ],
        "hasExtractedLicensingInfos": [
            {"licenseId": reference, "extractedText": text} for reference, text in sorted(quoted.items())
        ],
    }


def distributions(site: Path, hashes: Mapping[str, str], quoted: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A package for each distribution in `site`; licences that are only quoted are added to `quoted`."""
    found = {plain(one.metadata["Name"]): one for one in importlib.metadata.distributions(path=[str(site)])}
    for name, one in sorted(found.items()):
        licence = declared(name, one.metadata, quoted)
        package = _package("Python", name, one.version, licence, f"pkg:pypi/{name}@{quote(one.version)}")
        if name in hashes:
            package["checksums"] = [{"algorithm": "SHA256", "checksumValue": hashes[name]}]
        yield package


def debian_packages(root: Path) -> Iterator[dict[str, Any]]:
    """A package for each that dpkg has installed below `root`."""
    suite = _release(root).get("VERSION_CODENAME", "")
    for fields in sorted(_paragraphs(root / "var/lib/dpkg/status"), key=lambda fields: fields["Package"]):
        if fields["Status"] != INSTALLED:
            continue
        name, version, machine = fields["Package"], fields["Version"], fields["Architecture"]
        distro = f"&distro={suite}" if suite else ""
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?arch={machine}{distro}"
        yield _package("Debian", name, version, UNKNOWN, purl)


def plain(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(name: str, metadata: Any, quoted: dict[str, str]) -> str:
    """The licence that a distribution states, as an SPDX expression."""
    expression = str(metadata.get("License-Expression") or "")
    stated = str(metadata.get("License") or "").strip()
    kinds = [one for one in metadata.get_all("Classifier") or [] if one.startswith("License ::")]
    if EXPRESSION.fullmatch(expression):
        return expression
    if stated in SPELLINGS:
        return SPELLINGS[stated]
    if not stated and len(kinds) == 1 and kinds[0] in CLASSIFIERS:
        return CLASSIFIERS[kinds[0]]
    text = stated or "; ".join(kinds) or expression
    if not text:
        return UNKNOWN
    reference = f"LicenseRef-{name}"
    quoted[reference] = text[:QUOTED_CHARACTERS]
    return reference


def _package(kind: str, name: str, version: str, licence: str, purl: str) -> dict[str, Any]:
    return {
        "SPDXID": f"SPDXRef-{kind}-{re.sub('[^A-Za-z0-9.-]', '-', name)}",
        "name": name,
        "versionInfo": version,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": licence,
        "copyrightText": UNKNOWN,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl,
            }
        ],
    }


def _paragraphs(status: Path) -> Iterator[dict[str, str]]:
    """The fields of each package in dpkg's list, without the lines that continue one."""
    for paragraph in status.read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line[:1] not in ("", " ", "\t")]
        if lines:
            yield dict(line.split(": ", 1) for line in lines if ": " in line)


def _release(root: Path) -> dict[str, str]:
    try:
        lines = (root / "etc/os-release").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


def main() -> None:
    """As the command line above says."""
    site, hashes, name, version = sys.argv[1:]
    found = document(Path(site), Path("/"), json.loads(Path(hashes).read_text()), name, version)
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
