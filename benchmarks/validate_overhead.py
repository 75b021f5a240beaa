"""What a run of `validate` costs beside the model's own forward, backward and optimizer: at most 5% of a step.

The forward passes of evaluations are the model's own: the bare loop runs them at the same steps.

    python benchmarks/validate_overhead.py [--model pico] [--steps 120] [--rounds 5]

In each round the harness and a bare loop with the same model, adapter and batches (made beforehand) take the same
steps, in turn; CPU time of the process, the median of rounds. Exit code 1 above 5%.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch

from planner.validate.batches import loss_of
from planner.validate.records import RunConfig
from planner.validate.train import Trainer

LIMIT = 1.05


def bare(trainer: Trainer, steps: int) -> float:
    """Seconds of CPU time of the bare loop."""
    batches = [trainer.batch(step) for step in range(steps)]
    stops = {*trainer.config.evaluate_at, steps}
    started = time.process_time()
    for number, batch in enumerate(batches, 1):
        loss_of(trainer.model, batch).backward()
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)
        if number in stops:
            trainer.model.eval()
            with torch.no_grad():
                loss_of(trainer.model, batches[0], "sum").item()
            trainer.model.train()
    return time.process_time() - started


def harness(trainer: Trainer, steps: int) -> float:
    """Seconds of CPU time of the run's own loop, batches, records of the loss and checks included."""
    trainer.outcome.flops = 0  # the counted first step belongs to no step's cost
    trainer.held_out = lambda: trainer_batches  # type: ignore[method-assign]
    trainer_batches = [trainer.batch(0)]
    trainer.finish = lambda times: None  # type: ignore[method-assign]
    started = time.process_time()
    trainer.run()
    return time.process_time() - started


def main() -> int:
    """Print both medians and their quotient."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="pico")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = RunConfig(model=given.model, rank=16, steps=given.steps, lr=1e-3)
    bare(Trainer(config, "cpu"), 3)
    # Each run of the harness has a seed of its own, so that no text of it has been made before.
    pairs = [
        (
            bare(Trainer(config, "cpu"), given.steps),
            harness(Trainer(config.but(seed=1 + round_), "cpu"), given.steps),
        )
        for round_ in range(given.rounds)
    ]
    plain, ours = (statistics.median(column) / given.steps for column in zip(*pairs, strict=True))
    quotient = statistics.median(b / a for a, b in pairs)
    print(
        f"{given.model}: bare {1000 * plain:.1f} ms a step, harness {1000 * ours:.1f} ms, quotient {quotient:.3f}"
    )
    return int(quotient > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
