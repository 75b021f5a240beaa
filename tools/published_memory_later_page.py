"""The section of docs/memory-published.md on cases that were collected after the rules were made."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from tools.published_memory_later import RUN, Later, Said, as_case, blind, inside, later, right, said_of

FAR = 0.25
TEXT = """\
{n} further cases of {sources} sources ([memory_later.csv](../data/measured/memory_later.csv): each with its source
and the command that a user would type) were collected when all rules stood, and predicted before any was changed:
"blind" are those first predictions ([as they were](../data/measured/memory_later_blind.csv)), "now" those of today.
What was changed on seeing them, each by what the trainer's code does: profiles of litgpt and of ms-swift for their
versions; packed samples have one length; what litgpt keeps (of its fused projection, of tied embeddings, of the
micro-step before); torchtune's update in the backward pass; float32 copies of the weights under DeepSpeed in full
fine-tuning. No constant was fitted on them but `low` and `high`, which half of those with everything stated
(by the hash that halves all others) have widened: blind, the interval held far fewer than it should.
"""
HEAD = (
    "| measurements | runs | blind: median error | 90th percentile | within interval | now: median error | "
    "90th percentile | within interval |"
)
# What is known of those further off than a quarter: a source and the start of a model's name, and the reason.
WHY = (
    (
        "Lightning-AI", "meta-llama/Llama-3.2", "full",
        "no states of Adam are in what was measured, though the recipe has AdamW",
    ),
    (
        "Lightning-AI", "microsoft/Phi-3", "full",
        "no states of Adam are in what was measured, though the recipe has AdamW (which would not fit the card)",
    ),
    ("InternLM", "", "", "its optimizer holds about 27 bytes a parameter, float32 gradients among them; no profile"),
    ("axolotl", "stabilityai", "", "recipes of 2024; what else was held is not known"),
    ("axolotl", "Qwen/Qwen3.5", "", "what the linear-attention kernels and the loader hold was not found"),
    ("axolotl", "tencent", "", "an order of a few GB for half a billion parameters: not explained"),
    ("axolotl", "meta-llama", "", "what was run and measured is not stated in full"),
    ("axolotl", "", "", "READMEs quote active bytes or reserved ones; active ones lie within 10%"),
    ("modelscope", "", "", "the longest sample is not known"),
    ("pytorch/torchtune", "", "qlora", "the peak is that of loading and quantising the base, before any step"),
    ("meta-llama/llama-cookbook", "", "", "batch and recipe of 2023 are not stated"),
    ("THUDM", "", "", "batch or lengths are not stated"),
)  # fmt: skip
Pair = tuple[Later, Said]


def _error(case: Later, said: Said) -> float:
    return abs(said.predicted / case.measured - 1)


def _ninth(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.9 * len(values)))]


def _cells(pairs: Sequence[Pair]) -> str:
    errors = [_error(case, said) for case, said in pairs]
    held = sum(inside(case, said) for case, said in pairs) / len(pairs)
    return f"{100 * statistics.median(errors):.1f}% | {100 * _ninth(errors):.1f}% | {100 * held:.0f}%"


def _line(name: str, first: Sequence[Pair], now: Sequence[Pair]) -> str:
    return f"| {name} | {len(now)} | {_cells(first)} | {_cells(now)} |"


def _why(case: Later) -> str:
    for source, model, method, reason in WHY:
        if source in case.source and case.model.startswith(model) and method in ("", case.method):
            return reason
    return "not explained"


def pairs() -> tuple[list[Pair], list[Pair]]:
    """Every case with its first prediction and with that of now; those that cannot be predicted are left out."""
    first = blind()
    cases = later()
    now = [(case, said_of(case)) for case in cases]
    return [(c, first[c.number]) for c in cases], [(c, s) for c, s in now if not s.problem]


def _verdicts(pairs: Sequence[Pair]) -> str:
    run = [(case, said) for case, said in pairs if case.metric in RUN]
    good, certain = sum(right(c, s) for c, s in run), sum(inside(c, s) for c, s in run)
    return f"{good} of {len(run)} right; {certain} allowed by the interval"


def _far(now: Sequence[Pair]) -> list[str]:
    groups: dict[tuple[str, str], list[Pair]] = {}
    for case, said in now:
        if case.metric not in RUN and _error(case, said) > FAR:
            groups.setdefault((case.source, _why(case)), []).append((case, said))
    lines = [
        f"Further off than {100 * FAR:.0f}%:", "", "| source | rows | predicted over measured | why |",
        "|---|---|---|---|",
    ]  # fmt: skip
    for (source, reason), found in sorted(groups.items()):
        ratios = sorted(said.predicted / case.measured for case, said in found)
        shown = f"{ratios[0]:.2f}" if len(found) == 1 else f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        lines.append(f"| {source} | {', '.join(str(c.number) for c, _ in found)} | {shown} | {reason} |")
    return [*lines, ""]


def section() -> list[str]:
    """The lines of the section."""
    first, now = pairs()
    every = [[(c, s) for c, s in found if c.metric not in RUN] for found in (first, now)]
    figures = [[(c, s) for c, s in found if not c.second] for found in every]
    rows: list[tuple[str, Callable[[Later], bool]]] = [
        ("all with a figure", lambda c: True),
        ("batch, length and checkpointing stated", lambda c: c.stated),
        ("of these, one GPU", lambda c: c.stated and "--gpus" not in c.options),
        ("of these, several GPUs", lambda c: c.stated and "--gpus" in c.options),
        ("of these, LoRA and QLoRA", lambda c: c.stated and c.method != "full"),
        ("of these, full fine-tuning", lambda c: c.stated and c.method == "full"),
        ("stated, not seen by the interval", lambda c: c.stated and not as_case(c).fitted),
        ("something not stated", lambda c: not c.stated),
    ]
    rows += [
        (source, lambda c, source=source: c.source == source)  # type: ignore[misc]
        for source in sorted({c.source for c, _ in figures[1]})
    ]
    counted = [c for c, _ in first if not c.second]
    lines = ["## Cases collected afterwards", ""]
    lines += [
        TEXT.format(n=len(counted), sources=len({c.source for c in counted})),
        HEAD,
        "|---|" + "---|" * 7,
    ]
    for name, test in rows:
        chosen = [[(c, s) for c, s in found if test(c)] for found in figures]
        if chosen[1]:
            lines.append(_line(name, *chosen))
    tests = [[(c, s) for c, s in found if c.second] for found in every]
    lines.append(_line("**collected when these changes stood**: litgpt's Llama 2", *tests))
    lines += [
        "",
        f"Of {sum(c.metric in RUN for c, _ in now)} runs only whether they fit is known.",
        f"Blind: {_verdicts(first)}; now: {_verdicts(now)}.",
        "",
    ]
    return [*lines, *_far(now)]
