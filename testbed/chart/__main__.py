"""Writes what is made from code: parts of the chart, the manifests rendered from it, the reference of values.

python -m testbed.chart           write
python -m testbed.chart --check   tell what differs, exit code 1
"""

from __future__ import annotations

import sys

from testbed.binaries import BinaryError
from testbed.chart.files import ROOT, differing, made_files
from testbed.chart.helm import HelmError
from testbed.progress import Progress


def main() -> int:
    """The exit code."""
    check = "--check" in sys.argv[1:]
    try:
        changed = differing(made_files(Progress()), write=not check)
    except (BinaryError, HelmError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in changed:
        print(f"{'differs' if check else 'written'}: {path.relative_to(ROOT)}")
    return int(check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
