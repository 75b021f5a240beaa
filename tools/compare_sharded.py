"""Run steps of small models spread over processes on the CPU, hold what each process holds and sends beside the
estimate of the same layout, and write docs/sharded.md.

    python -m tools.compare_sharded            run what the record lacks, write record and page
    python -m tools.compare_sharded --fresh    run everything again
    python -m tools.compare_sharded --page     write the page from the record

The record is data/measured/sharded.json. Processes talk by gloo; nothing leaves the machine.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .sharded_cases import Case, cases
from .sharded_expected import expected
from .sharded_stages import section, staged

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "data" / "measured" / "sharded.json"
PAGE = ROOT / "docs" / "sharded.md"
LIBRARIES = ("torch", "transformers", "peft")
STATES = ("weights", "gradients", "optimizer")
WAYS = {
    "alone": "one process", "ddp": "DDP", "zero1": "ZeRO-1 (ZeroRedundancyOptimizer)",
    "fsdp2": "FSDP 2 (fully_shard)", "ends2": "FSDP 2, both ends apart",
    "fsdp1": "FSDP 1, a layer flat", "whole1": "FSDP 1, all in one",
    "peft1": "FSDP 1, PEFT's units", "tensor": "tensor parallelism (DTensor)",
}  # fmt: skip
HEAD = """# Memory of several GPUs: estimated against steps of several processes

Written by `python -m tools.compare_sharded` from [sharded.json](../data/measured/sharded.json), which it runs
({libraries}, {date}). Each of {n} rows is a step of a small Llama or Qwen3 mixture with real weights, LoRA of rank 8
on all Linear modules or every weight, spread over 2 or 4 processes by the library's own means, which talk by gloo on
a CPU. What every process holds (torch's profiler hears the allocator) is laid beside the estimate of that layout:
base weights with the adapter, gradients and optimizer states; *held*, what stands when the backward pass begins,
gathered weights and buckets among it; *peak*, the most that both passes hold beside weights and states. *Long*: 2
sequences of 32 tokens, of which activations take most; *short*: 1 of 4, of which weights and their buffers do.
States are those of the process that holds most. But for DDP what passes hold was measured in a further run, of the
first process beside torch's fake group, since gloo's threads let go of what they have sent when they come to it: its
peaks are up to 15% higher.

{summary}

What is left, and who is right:

- **Norms** are parts of FSDP's units that the estimate neglects: up to 0.5% of a unit here, a thousandth of that in a
  model of 8 B. FSDP 1 pads its flat parameters, and keeps gradients of frozen norms.
- **A second layer on the way forward** is gathered by FSDP 1 where a GPU runs behind the CPU (`limit_all_gathers`),
  and is estimated; a CPU gathers one at a time, so that PEFT's units take up to 4% less here.
- **The embedding's gradient** under DTensor's tensor parallelism is whole on every process, though the embedding is
  divided (full fine-tuning; `RowwiseParallel` on `torch.nn.Embedding`): the table times 1 - 1/n more than is
  estimated. That is DTensor's; Megatron and transformers' own plan have a divided one.
- **The loss over a divided vocabulary** (`loss_parallel`) holds the divided logits once more than the loss that is
  estimated, which the peak of tensor parallelism shows.
- **Experts** of Qwen3 are a loop on the CPU over what the router chose, so that their temporary values follow the
  draw; bfloat16's products on a CPU take work space.
- **ZeRO-1** of torch gives each process whole tensors; DeepSpeed divides the flat sum, as is estimated.

Nothing of this is about kernels of a GPU, NCCL's buffers or the caching allocator, for which see
[published](memory-published.md). DeepSpeed, sequence and expert parallelism are not in this comparison; pipelines are
[at its end](#stages-of-a-pipeline).

| model | step | way | processes, layout | states, KB | off by | held, KB | error | peak, KB | error |
|---|---|---|---|---|---|---|---|---|---|
"""
SENT = """
## What is sent

Bytes of an optimizer step by collective, counted at torch's dispatcher (of what is gathered the whole, of what is
reduced what goes in), and as estimated. Under tensor parallelism each product of transformers' code reduces the
gradient of its input by itself (q, k, v, gate and up: five a layer), and PEFT's pairs sum narrow values; the estimate
has the two sums a layer and pass that Megatron and torchtitan need, and leaves the embedding's and the unembedding's
out, one each in a step. The bytes are a lower bound there. FSDP gathers pairs beside the weights, those that are
units of their own once more where layers are run again, and reduces gradients in every micro-step unless that is
deferred.

| model | step | way | processes, layout | collective | measured, KB | estimated, KB |
|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """A case with what its processes held, and what `one` did beside torch's fake group."""

    case: Case
    ranks: Sequence[dict[str, Any]]
    one: dict[str, Any]

    @property
    def measured(self) -> dict[str, int]:
        """Bytes: states of the process that holds most, passes beside the fake group."""
        most = {name: max(rank[name] for rank in self.ranks) for name in (*STATES, "trained")}
        most["weights"] += most.pop("trained")
        return {**most, **{name: self.one[name] for name in ("held", "top")}}

    @property
    def estimated(self) -> dict[str, Any]:
        """The estimate's."""
        found = expected(self.case)
        return {**found, "weights": found["weights"] + found["adapter"]}

    def off(self, name: str) -> float:
        """Estimated over measured, less 1."""
        return float(self.estimated[name] / self.measured[name] - 1)

    @property
    def states_off(self) -> float:
        """The largest error of a state."""
        return max((self.off(name) for name in STATES), key=abs)

    def sent(self) -> dict[str, int]:
        """Bytes by collective of the first process; a broadcast of parts is a gather."""
        total: Counter[str] = Counter()
        for kind, size, times in self.ranks[0]["sent"]:
            total["all_gather" if kind == "broadcast" else kind] += size * times
        return dict(total)


def read() -> dict[str, Any]:
    """The record; empty where there is none."""
    return dict(json.loads(RECORD.read_text(encoding="utf-8"))) if RECORD.is_file() else {"rows": {}}


def rows(record: dict[str, Any]) -> list[Row]:
    """Every case of the record."""
    done = record["rows"]
    return [
        Row(case, done[case.name]["ranks"], done[case.name]["one"]) for case in cases() if case.name in done
    ]


def run(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the cases that it lacks."""
    from .sharded_measure import measured

    for case in cases():
        if case.name not in record["rows"]:
            found = measured(case)
            # DDP has no way with a fake group, and gathers nothing.
            one = found if case.way in ("ddp", "zero1") else measured(case, fake=True)
            errors = [rank["error"] for rank in (*found, *one) if "error" in rank]
            if errors:
                raise SystemExit(f"{case.name}:\n{errors[0]}")
            record["rows"][case.name] = {"ranks": found, "one": one[0]}
            print(case.name, file=sys.stderr)
            save(record)
    return run_stages(record)


def run_stages(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the stages that it lacks."""
    from .sharded_stages import measured

    known = record.setdefault("stages", {})
    for case in staged():
        if case.name not in known:
            found = measured(case)
            errors = [rank["error"] for rank in found if "error" in rank]
            if errors:
                raise SystemExit(f"{case.name}:\n{errors[0]}")
            known[case.name] = found
            print(case.name, file=sys.stderr)
            save(record)
    return record


def save(record: dict[str, Any]) -> None:
    """Write the record."""
    record["versions"] = {name: version(name) for name in LIBRARIES}
    record["date"] = datetime.now(timezone.utc).date().isoformat()
    RECORD.write_text(
        json.dumps(record, separators=(",", ":")).replace('"],"', '"],\n"') + "\n", encoding="utf-8"
    )


def summary(found: Sequence[Row]) -> str:
    """A line for each way."""
    lines = [
        "| way | rows | states: equal, within 0.5%, largest error | held: largest | peak: median, largest |",
        "|---|---|---|---|---|",
    ]
    for way, title in WAYS.items():
        own = [row for row in found if row.case.way == way]
        states = [abs(row.states_off) for row in own]
        held, tops = [abs(row.off("held")) for row in own], [abs(row.off("top")) for row in own]
        equal, near = sum(each == 0 for each in states), sum(each <= 0.005 for each in states)
        lines.append(
            f"| {title} | {len(own)} | {equal}, {near}, {max(states):.2%} | {max(held):.2%} | "
            f"{statistics.median(tops):.2%}, {max(tops):.2%} |"
        )
    return "\n".join(lines)


def words(case: Case) -> str:
    """The first columns of a case."""
    shape = "short" if case.shape[1] == 4 else "long"
    said = ", ".join(
        f"{key.replace('_', '-')} {value}" for key, value in case.layout.items() if key != "fsdp_units"
    )
    return f"| {case.model} | {case.method}, {case.precision}, {shape} | {WAYS[case.way]} | {case.world}: {said} |"


def page(record: dict[str, Any]) -> str:
    """The page."""
    found = rows(record)
    libraries = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    text = HEAD.format(libraries=libraries, date=record["date"], n=len(found), summary=summary(found))
    for row in found:
        seen = row.measured
        states = sum(seen[name] for name in STATES)
        text += (
            f"{words(row.case)} {states / 1e3:.1f} | {row.states_off:+.2%} | {seen['held'] / 1e3:.1f} | "
            f"{row.off('held'):+.2%} | {seen['top'] / 1e3:.1f} | {row.off('top'):+.2%} |\n"
        )
    text += SENT
    for row in found:
        if row.case.precision == "fp32" and row.case.shape[1] > 4:
            sent, said = row.sent(), row.estimated["sent"]
            for kind in sorted({*sent, *said}):
                got, own = sent.get(kind, 0) / 1e3, said.get(kind, 0) / 1e3
                text += f"{words(row.case)} {kind} | {got:.1f} | {own:.1f} |\n"
    return text + section(record)


def main() -> None:
    """Run and write."""
    record = {"rows": {}} if "--fresh" in sys.argv else read()
    if "--page" not in sys.argv:
        record = run(record)
    PAGE.write_text(page(record), encoding="utf-8")


if __name__ == "__main__":
    main()
