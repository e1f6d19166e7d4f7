"""Data-parallel training with PyTorch's DistributedDataParallel over gloo, as one writes it for GPUs.

Environment: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT as torch.distributed reads them, STEPS. Without RANK
it is the index in an Indexed Job, counted from FIRST_RANK. The model learns a fixed function from data
that differ by rank. Every rank prints one JSON line, which is also its termination message; all ranks end
with the same weights only if their gradients were averaged.
"""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

WIDTH = 256
BATCH = 32


def network() -> torch.nn.Module:
    """Two layers, about 130,000 parameters."""
    return torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, WIDTH))


def train(steps: int) -> dict[str, float]:
    """Train from a fixed start; the first and last loss, and a fingerprint of the weights."""
    torch.manual_seed(0)
    model = DistributedDataParallel(network())
    target = torch.randn(WIDTH, WIDTH) / WIDTH**0.5
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(distributed.get_rank())
    losses = []
    started_s = time.monotonic()
    for _ in range(steps):
        batch = torch.randn(BATCH, WIDTH, generator=rng)
        loss = torch.nn.functional.mse_loss(model(batch), batch @ target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    weight = float(sum(parameter.detach().abs().sum() for parameter in model.parameters()))
    return {
        "seconds": time.monotonic() - started_s,
        "first": losses[0],
        "last": losses[-1],
        "weight": weight,
    }


def main() -> None:
    """Join the others, train, report."""
    torch.set_num_threads(1)
    if "RANK" not in os.environ:
        index, first = int(os.environ["JOB_COMPLETION_INDEX"]), int(os.environ.get("FIRST_RANK", "0"))
        os.environ["RANK"] = str(first + index)
    distributed.init_process_group("gloo", timeout=timedelta(seconds=120))
    result = train(int(os.environ["STEPS"]))
    rank = distributed.get_rank()
    line = json.dumps({"rank": rank, **{key: round(value, 4) for key, value in result.items()}})
    Path("/dev/termination-log").write_text(line)
    print(line)
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
