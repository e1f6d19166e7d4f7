"""Takes out of the image what training never loads: Debian's PyTorch drags in video, maps and widgets.

Trains a little, then removes every large library that came with PyTorch (trim.py LIST: what was there
before) and is not mapped into this process, and every Python package that was not imported.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import torch
from torch import distributed

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
LARGE_BYTES = 300_000
PACKAGES = Path("/usr/lib/python3/dist-packages")
UNUSED_FOLDERS = (
    "/usr/lib/libtorch-test",
    "/usr/share/proj",
    "/usr/share/locale",
    "/usr/share/icons",
)


def train_a_little() -> None:
    """Load what the real training loads."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    distributed.init_process_group("gloo", rank=0, world_size=1)
    model = torch.nn.Linear(256, 64, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(16, 256)).square().mean().backward()
    for parameter in model.parameters():
        distributed.all_reduce(parameter.grad)
    optimizer.step()
    distributed.destroy_process_group()


def mapped() -> set[Path]:
    """Files that this process has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {Path(line.split()[-1]).resolve() for line in lines if "/" in line}


def unused(before: set[str]) -> list[Path]:
    """Large libraries that came later than those of `before` and that training did not load."""
    needed = mapped()
    files = [file for file in LIBRARIES.rglob("*.so*") if file.is_file() and not file.is_symlink()]
    later = [file for file in files if str(file) not in before and file.stat().st_size > LARGE_BYTES]
    return [file for file in later if file.resolve() not in needed]


def not_imported() -> list[Path]:
    """Folders of Python packages of which training imported nothing."""
    imported = {name.partition(".")[0] for name in sys.modules}
    return [folder for folder in PACKAGES.iterdir() if folder.is_dir() and folder.name not in imported]


def main() -> None:
    """Train, then remove."""
    train_a_little()
    for file in unused(set(Path(sys.argv[1]).read_text().split())):
        file.unlink()
    for folder in [*map(Path, UNUSED_FOLDERS), *not_imported()]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
