"""Data-parallel training: gradients of PARAMETERS floats are averaged over all ranks each step, by gloo.

Environment: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT as torch.distributed reads them, STEPS,
PARAMETERS. Every rank prints one JSON line, which is also its termination message; `seconds` is the
time of all steps without the start.
"""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed


def model_of(parameters: int) -> torch.nn.Module:
    """A linear model with about that many parameters: cheap to compute, heavy to average."""
    width = 256
    return torch.nn.Linear(width, max(parameters // width, 1), bias=False)


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor) -> float:
    """One step of gradient descent on a loss of its own data; answers the loss."""
    optimizer.zero_grad()
    loss = model(batch).square().mean()
    loss.backward()
    for parameter in model.parameters():
        distributed.all_reduce(parameter.grad)
        parameter.grad /= distributed.get_world_size()
    optimizer.step()
    return float(loss)


def train(steps: int, parameters: int) -> dict[str, float]:
    """Train from a fixed seed; losses of all ranks agree only if the averaging works."""
    torch.manual_seed(0)
    model = model_of(parameters)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = torch.randn(16, 256, generator=torch.Generator().manual_seed(distributed.get_rank()))
    first = step(model, optimizer, batch)
    distributed.barrier()
    times = []
    loss = first
    for _ in range(steps):
        started_s = time.monotonic()
        loss = step(model, optimizer, batch)
        times.append(time.monotonic() - started_s)
    weight = float(next(model.parameters()).abs().sum())
    return {
        "seconds": sum(times),
        "step_s": sorted(times)[len(times) // 2],
        "first": first,
        "loss": loss,
        "weight": weight,
    }


def main() -> None:
    """Join the ring, train, report."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=timedelta(seconds=120))
    result = train(int(os.environ["STEPS"]), int(os.environ["PARAMETERS"]))
    line = json.dumps({"rank": distributed.get_rank(), **{k: round(v, 5) for k, v in result.items()}})
    Path("/dev/termination-log").write_text(line)
    print(line)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
