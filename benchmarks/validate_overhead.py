"""What a run of `validate` costs beside the model's own forward, backward and optimizer: at most 5% of a step.

The forward passes of evaluations are the model's own: the bare loop runs them at the same steps.

    python benchmarks/validate_overhead.py [--model pico] [--steps 120] [--rounds 15]

In each round the harness and a bare loop with the same model, adapter and batches (made beforehand) take the same
steps, one after the other, first in one order and then in the other. Of the harness all counts that a run does: text
and batches, the record of the loss, checks, the driver's beat with its progress, norms and fingerprints at the end;
not the counted first step. Medians of the rounds' quotients, of CPU time (user and system) and of wall time.
Exit code 1 where that of CPU time is above 1.05: wall time on a machine that others use says less.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from planner.validate.batches import Batch
from planner.validate.records import RunConfig
from planner.validate.sweep import Clock, Progress
from planner.validate.train import Trainer

LIMIT = 1.05


Clocks = tuple[float, float]


def clocks(work: Callable[[], object]) -> Clocks:
    """Seconds of CPU and of wall time that work takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def forward(trainer: Trainer, batch: Batch) -> torch.Tensor:
    """The model's forward and its loss, as a script would write it."""
    logits = trainer.model(input_ids=batch.tokens, use_cache=False).logits[:, :-1]
    return cross_entropy(logits.reshape(-1, logits.shape[-1]), batch.targets.reshape(-1))


def bare(trainer: Trainer, steps: int) -> Clocks:
    """The bare loop."""
    batches = [trainer.batch(step) for step in range(steps)]
    stops = {*trainer.config.evaluate_at, steps}

    def loop() -> None:
        for number, batch in enumerate(batches, 1):
            forward(trainer, batch).backward()
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)
            if number in stops:
                trainer.model.eval()
                with torch.no_grad():
                    forward(trainer, batches[0]).item()
                trainer.model.train()

    return clocks(loop)


def harness(trainer: Trainer, steps: int) -> Clocks:
    """The run's own loop, with a driver's beat."""
    trainer.outcome.flops = 0  # the counted first step belongs to no step's cost
    evaluated = [trainer.batch(steps)]  # fresh text of the same shape as the bare loop's
    trainer.held_out = lambda: evaluated  # type: ignore[method-assign]
    clock, shown = Clock(3600.0), []

    def beat(step: int) -> None:
        if not clock.over:
            shown.append(Progress(0, 1, trainer.config.model, step, steps, 1.0))

    trainer.beat = beat
    return clocks(trainer.run)


def one_round(config: RunConfig, number: int) -> tuple[Clocks, Clocks]:
    """Both loops, the bare one first in every other round. Each has a seed of its own, so that no text of it has been
    made before."""
    loops = (bare, harness) if number % 2 else (harness, bare)
    found = {
        loop.__name__: loop(Trainer(config.but(seed=1 + 2 * number + n), "cpu"), config.steps)
        for n, loop in enumerate(loops)
    }
    return found["bare"], found["harness"]


def main() -> int:
    """Print the medians and their quotients."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="pico")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = RunConfig(model=given.model, rank=16, steps=given.steps, lr=1e-3)
    bare(Trainer(config, "cpu"), 3)
    rounds = [one_round(config, number) for number in range(given.rounds)]
    quotients = []
    for place, name in enumerate(("CPU", "wall")):
        plain, ours = ([1000 * one[loop][place] / given.steps for one in rounds] for loop in (0, 1))
        quotients.append(statistics.median(b / a for a, b in zip(plain, ours, strict=True)))
        print(
            f"{given.model}, {name}: bare {statistics.median(plain):.2f} ms a step, harness "
            f"{statistics.median(ours):.2f} ms, quotient {quotients[-1]:.3f}, median of {given.rounds} rounds"
        )
    return int(quotients[0] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
