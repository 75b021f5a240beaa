"""The section of docs/memory-published.md on cases that were collected after the rules were made."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from tools.measured_outliers import why_later
from tools.published_memory_later import (
    RUN,
    Later,
    Said,
    blind,
    inside,
    later,
    right,
    said_of,
)
from tools.published_memory_loading import before_the_first_step

FAR = 0.25
TEXT = """\
{n} further cases of {sources} sources ([memory_later.csv](../data/measured/memory_later.csv): each with its source
and the command that a user would type) were collected when all rules stood, and predicted before any was changed:
"blind" are those first predictions ([as they were](../data/measured/memory_later_blind.csv)), "now" those of today.
What was changed on seeing them, each by what the trainer's code does: profiles of litgpt, of ms-swift for their
versions, and of InternEvo; packed samples have one length; what litgpt keeps (of its fused projection, of tied
embeddings, of the micro-step before); torchtune's update in the backward pass; float32 copies of the weights under
DeepSpeed in full fine-tuning; the cache of LLaMA-Recipes. No constant was fitted on them but `low` and `high`.
GLM-4's figure lies below its interval because its command has the script's cap on input and output as length: nothing
is padded there, and sequences of 480 tokens would give the figure.
"""
LAST = """\
{n} cases more, of {sources} sources that nobody had looked at before, were collected and predicted in the same way
when all that stood: rules, profiles and the interval. What was changed on seeing them: a profile `hf-loop` for a loop
without a Trainer; what CUDA's softmax makes on its way back, and that it widens float16 by itself; logits that a
loop holds are float32 where the unembedding is; Megatron's float32 gradients (`main_grads`), and a profile
`ms-swift-megatron`, whose fused loss works in a float32 copy of the logits; float32 gradients of an optimizer with
float32 masters in its step; gradients that go to the host with what is offloaded; FSDP 2, which keeps no gathered
unit on a stream of its own.
fitcheck's {fitcheck} runs are {configurations} configurations on one T4, each measured within torch (allocated and
reserved).
"""
FOURTH = """\
{n} cases more of {sources} sources that the planner's rules and its interval had never met: blog posts, tables in
papers and READMEs, pull requests, what notebooks printed, a dataset of runs. Nothing is fitted on them but the
interval, since they were compared. The commands hold what a user can read beside the figure and the trainer's
profile, and the predictions were kept before anything was looked up in a trainer's code. Two exceptions: a command of
which an option was lost (a fault of `--config`, mended) was predicted again; a row with GaLore had no prediction, as
no such optimizer was known.
What was changed on seeing them, each by the trainers' code: gradients that FSDP holds whole while micro-steps
accumulate (`deferred_gradients`), with a profile `axolotl-2025` for accelerate before that; a profile `unsloth-2024`
for its loss of all logits (the lengths of most of its notebooks are not known, so that some are now further off);
GPT-OSS's experts in 4 bits under Unsloth; float32 weights where Unsloth fine-tunes in float16; a profile
`hf-trainer-2022`, whose gradients are set to zero after a step and stay; bitsandbytes' paged AdamW, which updates in
place; `--lengths-vary` for a script that pads no samples of many lengths (OTel's with DeepSpeed).
"""
FIFTH = """\
{n} cases of {sources} sources that no rule, no constant and no interval had met, sought when all of them stood. The
commands hold what a user can read beside the figure; the predictions were kept before anything was looked up in a
trainer's code: "blind" is how far off a trainer is that nobody has looked at. No constant rests on them. What was
changed on seeing them, each by the trainers' code: attention by products where no fused kernel takes the call
(`--attention-kernel math`), which autocast leaves; a profile `unsloth-2026-06` for Unsloth of February to June
2026, which took such attention without xformers and did not checkpoint beside TRL of before 0.22; Unsloth's loss,
whose chunks have up to 8,192 tokens; TRL's SFTTrainer by its version (`trl-1.12`, whose loss copies the whole
unembedding to float32, `trl-1.14` and `trl`, with the losses `recomputed-wide`, `recomputed` and `tiled`);
`--upcast-small` for scripts that call PEFT's prepare_model_for_kbit_training; profiles `trl-0.7`, which checkpoints
a 4-bit base whatever its arguments say, and `qlora-2023` for scripts after qlora.py.
"""
INTERVAL = """\
The interval of today ([how often it holds](#how-often-the-interval-holds)) rests on these cases, the seventh and
later sets' apart, as they were predicted **first**, each judged by the others: so it says how far off a trainer is
that nobody has looked at.
"""
HEAD = (
    "| measurements | runs | blind: median error | 90th percentile | within interval | now: median error | "
    "90th percentile | within interval |"
)
Pair = tuple[Later, Said]


def _error(case: Later, said: Said) -> float:
    return abs(said.predicted / case.measured - 1)


def _ninth(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.9 * len(values)))]


def cells(pairs: Sequence[Pair]) -> str:
    """Median error, 90th percentile and share within the interval, as cells of a table."""
    errors = [_error(case, said) for case, said in pairs]
    held = sum(inside(case, said) for case, said in pairs) / len(pairs)
    return f"{100 * statistics.median(errors):.1f}% | {100 * _ninth(errors):.1f}% | {100 * held:.0f}%"


def _line(name: str, first: Sequence[Pair], now: Sequence[Pair]) -> str:
    return f"| {name} | {len(now)} | {cells(first)} | {cells(now)} |"


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
            groups.setdefault((case.source, why_later(case)), []).append((case, said))
    figures = [case for case, _ in now if case.metric not in RUN]
    far = [case for found in groups.values() for case, _ in found]
    title = (
        f"Further off than {100 * FAR:.0f}%, of all sets: {len(far)} of {len(figures)}, and "
        f"{sum(c.stated for c in far)} of the {sum(c.stated for c in figures)} whose batch, length and checkpointing "
        "are stated:"
    )
    lines = [
        title, "", "| source | rows | predicted over measured | why |",
        "|---|---|---|---|",
    ]  # fmt: skip
    for (source, reason), found in sorted(groups.items()):
        ratios = sorted(said.predicted / case.measured for case, said in found)
        shown = f"{ratios[0]:.2f}" if len(found) == 1 else f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        lines.append(f"| {source} | {', '.join(str(c.number) for c, _ in found)} | {shown} | {reason} |")
    return [*lines, ""]


Test = Callable[[Later], bool]
ROWS: tuple[tuple[str, Test], ...] = (
    ("all with a figure", lambda c: True),
    ("batch, length and checkpointing stated", lambda c: c.stated),
    ("of these, one GPU", lambda c: c.stated and "--gpus" not in c.options),
    ("of these, several GPUs", lambda c: c.stated and "--gpus" in c.options),
    ("of these, LoRA and QLoRA", lambda c: c.stated and c.method != "full"),
    ("of these, full fine-tuning", lambda c: c.stated and c.method == "full"),
    ("something not stated", lambda c: not c.stated),
)
FITCHECK = "Anassbzdd/fitcheck"


def of(found: Sequence[Pair], test: Test) -> list[Pair]:
    """Those with a figure that pass a test."""
    return [(c, s) for c, s in found if c.metric not in RUN and test(c)]


def _table(first: Sequence[Pair], now: Sequence[Pair], rows: Sequence[tuple[str, Test]]) -> list[str]:
    lines = [HEAD, "|---|" + "---|" * 7]
    for name, test in rows:
        chosen = [of(found, test) for found in (first, now)]
        if chosen[1]:
            lines.append(_line(name, *chosen))
    return lines


def sources_of(found: Sequence[Pair]) -> list[tuple[str, Test]]:
    """Sources with a figure, each with its test."""
    names = sorted({c.source for c, _ in of(found, lambda c: True)})
    return [(name, lambda c, name=name: c.source == name) for name in names]  # type: ignore[misc]


def _medians(found: Sequence[Pair]) -> float:
    """The median over sources of their median errors."""
    each = [[_error(c, s) for c, s in of(found, test)] for _, test in sources_of(found)]
    return statistics.median(statistics.median(errors) for errors in each)


def _first_set(first: Sequence[Pair], now: Sequence[Pair]) -> list[str]:
    first, now = ([(c, s) for c, s in found if c.found in ("first", "after")] for found in (first, now))
    own, own_now = ([(c, s) for c, s in found if c.found != "after"] for found in (first, now))
    counted = [c for c, _ in own]
    tests = [of(found, lambda c: c.found == "after") for found in (first, now)]
    return [
        "## Cases collected afterwards", "",
        TEXT.format(n=len(counted), sources=len({c.source for c in counted})),
        *_table(own, own_now, (*ROWS, *sources_of(own_now))),
        _line("**collected when these changes stood**: litgpt's Llama 2", *tests),
        "",
        f"Of {sum(c.metric in RUN for c, _ in now)} runs only whether they fit is known.",
        f"Blind: {_verdicts(first)}; now: {_verdicts(now)}.",
        "",
    ]  # fmt: skip


def _third_set(first: Sequence[Pair], now: Sequence[Pair]) -> list[str]:
    first, now = ([(c, s) for c, s in found if c.found == "third"] for found in (first, now))
    runs = [c for c, _ in first if c.source.startswith(FITCHECK)]
    rows = [*ROWS]
    rows.insert(2, ("of these, without fitcheck", lambda c: c.stated and not c.source.startswith(FITCHECK)))
    return [
        "## A third set, predicted blind", "",
        LAST.format(
            n=len(first), sources=len({c.source.removesuffix(", reserved") for c, _ in first}), fitcheck=len(runs),
            configurations=len({c.options + c.model for c in runs}),
        ),
        *_table(first, now, (*rows, *sources_of(now))),
        "",
        (
            f"The median over sources of their median errors: blind {100 * _medians(first):.1f}%, "
            f"now {100 * _medians(now):.1f}%. Of the run of which only that it fits is known: {_verdicts(now)}."
        ),
        "",
    ]  # fmt: skip


FOURTH_ROWS: tuple[tuple[str, Test], ...] = (
    *ROWS[:4],
    ("of these, LoRA", lambda c: c.stated and c.method == "lora"),
    ("of these, QLoRA", lambda c: c.stated and c.method == "qlora"),
    *(row for row in ROWS if row[0].endswith("full fine-tuning")),
    *(row for row in ROWS if row[0] == "something not stated"),
)


def _fourth_set(first: Sequence[Pair], now: Sequence[Pair]) -> list[str]:
    cases = [c for c, _ in first if c.found == "fourth"]
    first, now = (
        [(c, s) for c, s in found if c.found == "fourth" and not s.problem] for found in (first, now)
    )
    return [
        "## A fourth set, that no constant is fitted on", "",
        FOURTH.format(n=len(cases), sources=len({c.source.removesuffix(", reserved") for c in cases})),
        *_table(first, now, (*FOURTH_ROWS, *sources_of(now))),
        "",
        (
            f"The median over sources of their median errors: blind {100 * _medians(first):.1f}%, "
            f"now {100 * _medians(now):.1f}%. Of the run of which only that it fits is known: {_verdicts(now)}."
        ),
        "",
    ]  # fmt: skip


def _fifth_set(first: Sequence[Pair], now: Sequence[Pair]) -> list[str]:
    first, now = (
        [(c, s) for c, s in found if c.found == "fifth" and not s.problem] for found in (first, now)
    )
    if not first:
        return []
    return [
        "## A fifth set, predicted blind", "",
        FIFTH.format(n=len(first), sources=len({c.source.removesuffix(", reserved") for c, _ in first})),
        *_table(first, now, (*FOURTH_ROWS, *sources_of(now))),
        "",
        (
            f"The median over sources of their median errors: blind {100 * _medians(first):.1f}%, "
            f"now {100 * _medians(now):.1f}%. The interval of today rests on the first predictions of these too; "
            "how often one of the sets before holds them: [as time went](#as-time-went)."
        ),
        "",
    ]  # fmt: skip


def section(more: Sequence[str] = ()) -> list[str]:
    """The lines of the section, `more` after the fifth set."""
    first, now = pairs()
    return [
        *_first_set(first, now), *_third_set(first, now), *_fourth_set(first, now), *_fifth_set(first, now),
        *more, INTERVAL, *_far(now), *before_the_first_step(first, now),
    ]  # fmt: skip
