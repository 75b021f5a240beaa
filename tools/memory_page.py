"""docs/memory.md: the analytic peak of memory beside the simulated one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from .memory_rows import Compared, Row

PAGE = Path(__file__).resolve().parent.parent / "docs" / "memory.md"
BEGIN, END = "<!-- simulated: begin -->", "<!-- simulated: end -->"
TITLE = "# Memory: how far the estimates are right\n"
GIB = 2**30
MEDIAN, MOST = 0.02, 0.06  # what is aimed at: median and 95th percentile of the peak's error
HEAD = """## Analytic against simulated

Written by `python -m tools.compare_memory`, which runs what the record
([memory_simulated.json](../data/measured/memory_simulated.json)) lacks; `--page` computes the estimates anew beside
the record, in seconds. Each of {n} points is one training step of a model on one GPU: simulated, by running the
code of transformers and PEFT on tensors without values (`lora-plan simulate`), and analytic, by closed forms
(`lora-plan estimate`). Points were drawn from the product of {models} models, method (LoRA, QLoRA, full
fine-tuning, DoRA on either base), precision, optimizer, checkpointing, attention kernel, batch and length, packing,
loss, accumulation, quantised format, dropout, the adapter's type, rank, adapted matrices and convention of experts,
by a fixed seed (`tools/memory_grid.py`).

No constant is fitted, but this is no blind test. Rows were looked at, and after that the rules of either side, the
stand-ins for CUDA's kernels, some models of the grid and what a draw may combine were changed, each time for all
points alike. The simulation is held against real steps of small models ([memory-measured.md](memory-measured.md));
its stand-ins for
kernels (flash attention, quantised products, scans, fused losses) are held against their sources' text alone.

State-space and linear-attention layers are taken as their kernels for the scan and the convolution run them, one by
one. The fused kernels that take the projections in as well (mamba_inner_fn, mamba_split_conv1d_scan_combined) are
left out on both sides; they keep less.

The error is that of the peak that torch allocates, |analytic / simulated - 1|. Of what comes on top of weights,
adapter, gradients and optimizer states (activations, logits, temporary buffers) it is shown too: `beyond states`, the
same difference over the simulated bytes of those parts. Every model type, at a size where a layer makes the peak:
[memory-types.md](memory-types.md).
"""


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1)]


def _numbers(found: Sequence[Compared]) -> str:
    errors = [abs(c.error) for c in found]
    beyond = [abs(c.transient_error) for c in found]
    return (
        f"{len(found)} | {statistics.median(errors):.2%} | {quantile(errors, 0.95):.2%} | {max(errors):.1%} | "
        f"{statistics.median(beyond):.2%} | {quantile(beyond, 0.95):.1%}"
    )


def summary(found: Sequence[Compared]) -> str:
    """One line."""
    errors = [abs(c.error) for c in found]
    if not errors:
        return "no points"
    return (
        f"{len(errors)} points: median error {statistics.median(errors):.2%}, 95th percentile "
        f"{quantile(errors, 0.95):.2%}, most {max(errors):.1%}"
    )


def _table(name: str, found: Sequence[Compared], group: Callable[[Compared], str]) -> Iterator[str]:
    yield f"| {name} | points | median error | 95th percentile | most | beyond states: median | 95th |"
    yield "|---|---|---|---|---|---|---|"
    for value in dict.fromkeys(sorted(map(group, found))):
        yield f"| {value} | {_numbers([c for c in found if group(c) == value])} |"
    yield f"| **all** | {_numbers(found)} |"
    yield ""


def described(each: Compared) -> str:
    """A point's choices in words."""
    given = each.row.point.options
    words = [
        each.row.point.method, given["precision"], "autocast" if given["autocast"] else "",
        given["quantize"] if given["quantize"] != "none" else "", "upcast" if given["upcast_small"] else "",
        given["optimizer"], given["optimizer_kernel"] if given["optimizer_kernel"] != "fused" else "",
        "in backward" if given.get("optimizer_in_backward") else "",
        f"checkpointing {given['checkpointing']}" if given["checkpointing"] != "none" else "",
        given["attention_kernel"], given["packing"], f"loss {given['loss']}",
        f"{given['micro_batch']} x {given['seq_len']:,}", f"accumulation {given['accumulation']}",
    ]  # fmt: skip
    if given["method"] != "full":
        words += [
            f"rank {given['rank']}", given.get("layers") or given.get("targets", ""), f"experts {given['experts']}",
            f"dropout {given['lora_dropout']}", f"adapter {given['adapter_dtype'] or 'as weights'}",
        ]  # fmt: skip
    return ", ".join(filter(None, words))


def worst(found: Iterable[Compared], number: int) -> Iterator[str]:
    """The rows with the largest errors."""
    for each in sorted(found, key=lambda c: -abs(c.error))[:number]:
        peak = each.row.simulated_bytes or 0
        yield (
            f"{each.error:+7.1%} {each.transient_error:+7.1%} {each.row.point.model}: {described(each)}: "
            f"simulated {each.row.moment} {peak / GIB:.3f}, analytic {each.estimate.peak.name} "
            f"{each.analytic_bytes / GIB:.3f} GiB"
        )


def page(found: Sequence[Compared], rows: Sequence[Row]) -> str:
    """The section of the page."""
    models = len({c.row.point.model for c in found})
    lines = [HEAD.format(n=len(found), models=models)]
    lines += _table("family", found, lambda c: c.row.point.family)
    for name in (
        "method",
        "precision",
        "checkpointing",
        "attention_kernel",
        "loss",
        "quantize",
        "optimizer",
        "packing",
    ):
        lines += _table(name.replace("_", " "), found, partial(_choice, name))
    lines += [
        "The twelve largest errors:",
        "",
        "| error | model | set-up | simulated | analytic |",
        "|---|---|---|---|---|",
    ]
    for each in sorted(found, key=lambda c: -abs(c.error))[:12]:
        peak = each.row.simulated_bytes or 0
        lines.append(
            f"| {each.error:+.1%} | {each.row.point.model} | {described(each)} | {peak / GIB:.2f} GiB, "
            f"{each.row.moment} | {each.analytic_bytes / GIB:.2f} GiB, {each.estimate.peak.name} |"
        )
    refused = [row for row in rows if row.simulated_bytes is None]
    if refused:
        lines += ["", "Points that transformers and PEFT cannot run:", ""]
        lines += [f"- {row.point.model}, {row.point.method}: {row.reason}" for row in refused]
    return "\n".join(lines).rstrip() + "\n"


def _choice(name: str, each: Compared) -> str:
    return each.row.point.method if name == "method" else str(each.row.point.options[name])


def write_page(found: Sequence[Compared], rows: Sequence[Row]) -> None:
    """Write the section between its marks; the rest of the page is others'."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else f"{TITLE}\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{page(found, rows)}{END}{rest.partition(END)[2]}", encoding="utf-8")
