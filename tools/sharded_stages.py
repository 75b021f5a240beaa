"""Stages of a pipeline as torch's own schedule runs them (torch.distributed.pipelining, 1F1B), one process each, held
against the estimate of the first and the last.

A stage is transformers' own model with its part of the layers; processes talk by gloo.
"""

from __future__ import annotations

import json
import os
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from planner.memory.peak import estimate_stages

from .measured_memory import LORA, allocated, real
from .sharded_cases import CONFIGS, LONG, METHODS, SHORT, Case
from .sharded_expected import top
from .sharded_layouts import inner, trained
from .sharded_measure import Calls, Record, ids, nbytes, states_of, storages

MICRO_STEPS = 8
STATES = ("weights", "gradients", "optimizer")


def staged() -> Iterator[Case]:
    """Steps of two and of four stages, in float32."""
    for method, precision in METHODS[:2]:
        for world in (2, 4):
            for shape in (LONG, SHORT):
                layout = {"pipeline_parallel": world, "accumulation": MICRO_STEPS}
                yield Case("llama", method, precision, "pipeline", world, layout, shape)


class Part(torch.nn.Module):  # type: ignore[misc]
    """A model cut down to one of `world` stages: the first has the embedding, the last the norm and unembedding."""

    def __init__(self, model: Any, rank: int, world: int) -> None:
        super().__init__()
        self.model, self.first = model, rank == 0
        body = inner(model)
        each = len(body.layers) // world
        body.layers = body.layers[rank * each : (rank + 1) * each]
        if not self.first:
            body.embed_tokens = None
        if rank < world - 1:
            body.norm = torch.nn.Identity()
            whole = model.get_base_model() if hasattr(model, "get_base_model") else model
            whole.lm_head = torch.nn.Identity()

    def forward(self, given: torch.Tensor) -> Any:
        """Hidden states for the next stage, or logits."""
        named = {"input_ids": given} if self.first else {"inputs_embeds": given}
        return self.model(**named, use_cache=False).logits


def _loss(logits: torch.Tensor, target: torch.Tensor) -> Any:
    from transformers.loss.loss_utils import ForCausalLMLoss

    return ForCausalLMLoss(logits, target, logits.shape[-1])


def _measure(case: Case, rank: int) -> Record:
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B

    torch.manual_seed(0)
    model = real(CONFIGS[case.model], LORA, case.alone().setup).model.train()
    stage = PipelineStage(Part(model, rank, case.world), rank, case.world, torch.device("cpu"))
    schedule = Schedule1F1B(stage, n_microbatches=case.micro_steps, loss_fn=_loss, scale_grads=False)
    batch, last = ids(case).repeat(case.micro_steps, 1), rank == case.world - 1
    optimizer = torch.optim.AdamW(trained(model), lr=1e-4, foreach=False)

    def step() -> None:
        given = (batch.clone(),) if rank == 0 else ()
        schedule.step(*given, target=batch.clone() if last else None, return_outputs=False)

    step()
    optimizer.step()
    optimizer.zero_grad()
    calls = Calls()
    with calls:
        step()
    optimizer.step()
    own = trained(model)
    found: Record = {
        "weights": nbytes(model.parameters()), "optimizer": states_of(optimizer),
        "gradients": storages(p.grad for p in own if p.grad is not None),
        "sent": sum(size * times for (kind, size), times in calls.found.items() if kind == "send"),
    }  # fmt: skip
    optimizer.zero_grad()
    return {**found, "top": allocated(step)[0]}


def _process(rank: int, case: Case, store: str, out: str) -> None:
    torch.set_num_threads(1)
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the profiler's own lines
        dist.init_process_group("gloo", rank=rank, world_size=case.world, init_method=f"file://{store}")
        found = _measure(case, rank)
    except BaseException:
        found = {"error": traceback.format_exc()}
    Path(out, f"{rank}.json").write_text(json.dumps(found))
    os._exit(0)


def measured(case: Case) -> list[Record]:
    """The figures of every stage."""
    import peft  # noqa: F401
    import transformers  # noqa: F401

    context = get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder, "store"))
        processes = [
            context.Process(target=_process, args=(rank, case, store, folder)) for rank in range(case.world)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(180)
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(case.world)]


@dataclass(frozen=True)
class Ends:
    """A step's first and last stage: what they held, and what is estimated of them."""

    case: Case
    ranks: Sequence[Record]

    def pairs(self) -> Iterator[tuple[str, Record, Record]]:
        """Which stage, measured and estimated."""
        run = self.case.run()
        found = estimate_stages(run.arch, run.setup, run.pairs, run.whole)
        for name, seen, said in (("first", self.ranks[0], found[0]), ("last", self.ranks[-1], found[-1])):
            parts = next(moment for moment in said.moments if moment.phase == "optimizer").parts()
            own = {part: parts[part] for part in ("gradients", "optimizer")}
            yield (
                name,
                dict(seen),
                {**own, "weights": parts["weights"] + parts["adapter"], "top": top(said)},
            )


def section(record: dict[str, Any]) -> str:
    """The page's part about them."""
    text = HEAD
    for case in staged():
        for name, seen, said in Ends(case, record["stages"][case.name]).pairs():
            shape = "short" if case.shape == SHORT else "long"
            states, own = (sum(each[part] for part in STATES) for each in (seen, said))
            text += (
                f"| {case.method}, {shape} | {case.world} | {name} | {states / 1e3:.1f} | {own / states - 1:+.2%} | "
                f"{seen['top'] / 1e3:.1f} | {said['top'] / seen['top'] - 1:+.2%} |\n"
            )
    return text


HEAD = f"""
## Stages of a pipeline

The small Llama in float32 over two and four stages, {MICRO_STEPS} micro-batches, as torch runs 1F1B
(`torch.distributed.pipelining`), each stage transformers' own model with its part of the layers. *Peak* is of a whole
step, gradients among it. What differs: torch holds the result of each
micro-batch in flight up to its backward pass, hidden states or logits (`fwd_cache`), which is not estimated:
Megatron lets go of it (`deallocate_pipeline_outputs`).

| step | stages | stage | states, KB | off by | peak, KB | error |
|---|---|---|---|---|---|---|
"""
