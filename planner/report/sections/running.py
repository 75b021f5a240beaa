"""Sections on running it: memory, time and cost, and the configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ...memory.interval_kinds import KIND_WORDS, MEASURED, NARROWER
from ...moments import parts_of
from ...speed.kinds import KIND_WORDS as TIMED
from ..document import Block, Code, Paragraph, Row, Section, Table, Text, para
from ..numbers import UNKNOWN, Material
from ..wording import clean
from . import choice

METHODS = (("lora", "LoRA"), ("qlora", "QLoRA"), ("full", "Full fine-tuning"))


def _ends(m: Material, section: str, style: str) -> Text:
    """The interval of a section."""
    if m.get(f"{section}/low") is None:
        return ("",)
    return (m.number(f"{section}/low", style), " to ", m.number(f"{section}/high", style))


def _grounds(m: Material, intervals: Sequence[str]) -> list[Row]:
    """What the intervals of memory rest on, and how often such intervals held sources that they had not met."""
    kinds = ((KIND_WORDS.get(m.get(f"{each}/kind"), UNKNOWN),) for each in intervals)
    held = (choice.judged(m, each) for each in intervals)
    rests = (
        (m.number(f"{each}/runs"), " figures of ", m.number(f"{each}/sources"), " sources")
        for each in intervals
    )
    rows = [Row((("interval of",), *kinds)), Row((("it holds",), *held)), Row((("it rests on",), *rests))]
    if any(m.get(f"{each}/kind") == MEASURED for each in intervals):
        rows.append(
            Row((("what a step adds, by measured peaks",), *(_corrected(m, each) for each in intervals)))
        )
    narrower = [NARROWER.get(m.get(f"{each}/kind"), "") for each in intervals]
    return [*rows, Row((("narrower by",), *((each,) for each in narrower)))] if any(narrower) else rows


def _corrected(m: Material, interval: str) -> Text:
    """How measured peaks correct memory: gradients, activations, logits and buffers are taken so many times."""
    factor = f"{interval.removesuffix('interval')}corrected/factor"
    return (m.number(factor, "times"),) if m.get(factor) is not None else ("",)


def _memory_table(m: Material) -> Table:
    methods = [(key, label) for key, label in METHODS if m.get(f"memory/{key}/per_gpu_bytes") is not None]
    parts = parts_of({"parts": m.get(f"memory/{key}/parts") or {}} for key, _ in methods)
    rows = [
        Row(((part,), *((m.number(f"memory/{key}/parts/{part}", "bytes"),) for key, _ in methods)))
        for part in parts
        if any(m.get(f"memory/{key}/parts/{part}") for key, _ in methods)
    ]
    rows.append(
        Row(
            (("together",), *((m.number(f"memory/{key}/per_gpu_bytes", "bytes"),) for key, _ in methods)),
            True,
        )
    )
    if any(m.get(f"memory/{key}/loading") is not None for key, _ in methods):
        rows.append(Row((("before the first step",), *(_before(m, key) for key, _ in methods))))
    if any(m.get(f"memory/{key}/low") is not None for key, _ in methods):
        rows.append(Row((("interval",), *(_ends(m, f"memory/{key}", "bytes") for key, _ in methods))))
        rows += _grounds(m, [f"memory/{key}/interval" for key, _ in methods])
    rows.append(Row((("fits the card",), *((m.get(f"memory/{key}/fit") or UNKNOWN,) for key, _ in methods))))
    if any(m.get(f"memory/{key}/fewest") is not None for key, _ in methods):
        rows.append(Row((("fewest GPUs, a sequence each",), *(_fewest(m, key) for key, _ in methods))))
    header = ("Bytes of one GPU", *(label for _, label in methods))
    return Table(
        "Memory at the peak",
        header,
        tuple(rows),
        "l" + "r" * len(methods),
        basis=choice.basis(m, choice.memory(m)),
    )


def _before(m: Material, key: str) -> Text:
    """What is held at the most before the first step; not known of every program."""
    if m.get(f"memory/{key}/loading") is None:
        return (UNKNOWN,)
    return (m.number(f"memory/{key}/loading/per_gpu_bytes", "bytes"),)


def _fewest(m: Material, key: str) -> Text:
    """The fewest GPUs on which a method fits, and whether it must compute layers again."""
    if m.get(f"memory/{key}/fewest") is None:
        return ("over 4,096",)
    again = m.get(f"memory/{key}/fewest/checkpointing") != "none"
    shared = m.get(f"memory/{key}/fewest/sequence_parallel") > 1
    ends = (", ", m.number(f"memory/{key}/fewest/sequence_parallel"), " a sequence") if shared else ()
    return (m.number(f"memory/{key}/fewest/gpus"), ", recomputing" if again else "", *ends)


def _serving(m: Material) -> Table | None:
    """The adapter beside its base model."""
    if m.get("serving") is None:
        return None
    rows = [
        Row((("An adapter in 16 bits",), (m.number("serving/adapter_bytes", "bytes"),))),
        Row((("To load it from the host, at least",), (m.number("serving/load_s", "duration"),))),
        Row((("The base model",), (m.number("serving/base_bytes", "bytes"),))),
        Row((("Context for which there is room, tokens",), (m.number("serving/cache_tokens"),))),
        Row((("GPUs that hold it",), (m.number("serving/gpus"),))),
        Row((("Adapters beside it",), (m.number("serving/resident"),)), True),
    ]
    return Table("Serving", ("", "Number"), tuple(rows), "lr", basis=choice.basis(m, "serving"))


def memory(root: Material) -> Section:
    """Memory, itemised."""
    m = root.within("plan")
    if m.get("memory") is None:
        words = "This plan carries no estimate of memory, so whether it fits a card is not known."
        return Section("Memory", (para(words),))
    blocks: list[Block] = []
    if root.get("card/memory_bytes") is not None:
        size = root.number("card/memory_bytes", "bytes")
        blocks.append(para("A GPU, ", clean(str(root.get("card/name"))), ", has ", size, "."))
    blocks.append(_memory_table(m))
    if moment := m.get(f"{choice.memory(m)}/moment"):
        blocks.append(Paragraph((f"This plan’s peak comes in: {clean(str(moment))}.",), "note"))
    if (served := _serving(m)) is not None:
        blocks.append(served)
    return Section("Memory", tuple(blocks))


_RUN = (
    ("A step", "time/step/seconds", "duration"),
    ("Tokens a second", "time/step/tokens_per_s", "whole"),
    ("Model FLOPs utilisation", "time/step/mfu", "percent"),
    ("Steps", "time/steps", "whole"),
    ("GPU hours", "time/gpu_hours", "whole"),
    ("Price of a GPU and hour", "cost/price/usd_per_gpu_hour", "usd"),
)


_PHASES = (
    ("Making the completions", "generation"),
    ("Handing the weights over", "handover"),
    ("Scoring", "scoring"),
    ("Training", "training"),
)
_ENGINE = (
    ("vLLM takes of a GPU", "taken_bytes", "bytes"),
    ("Its cache", "cache_bytes", "bytes"),
    ("Completions of a GPU", "wanted", "whole"),
    ("Held by the cache at a time", "sequences", "whole"),
)


def _of_grpo(m: Material) -> Table | None:
    """A step of GRPO: what is made in it, and its phases."""
    if m.get("grpo") is None:
        return None
    rows = [
        Row((("Prompts, completions of each",), (m.number("grpo/prompts"), " x ", m.number("grpo/group")))),
        Row(
            (
                ("Tokens of a prompt, and of a completion at most",),
                (m.number("grpo/prompt_tokens"), ", ", m.number("grpo/completion_tokens")),
            )
        ),
    ]
    if m.get("grpo/vllm") is not None:
        rows += [Row(((label,), (m.number(f"grpo/vllm/{key}", style),))) for label, key, style in _ENGINE]
    rows += [
        Row(((label,), (m.number(f"time/step/phases/{key}", "duration"),)))
        for label, key in _PHASES
        if m.get(f"time/step/phases/{key}") is not None
    ]
    return Table("A step of GRPO", ("", "Estimate"), tuple(rows), "lr", basis=choice.basis(m, "time"))


def time_and_cost(root: Material) -> Section:
    """Hours and dollars."""
    m = root.within("plan")
    if m.get("time") is None and m.get("cost") is None:
        words = (
            "This plan carries no estimate of time or cost: they need a GPU (--gpu) and an amount of data."
        )
        found = _of_grpo(m)
        return Section("Time and cost", (Paragraph((words,)), *([found] if found else [])))

    rows = [
        Row(
            (("The whole run",), (m.number("time/seconds", "duration"),), _ends(m, "time", "duration")), True
        ),
        Row((("Its cost",), (m.number("cost/usd", "usd"),), _ends(m, "cost", "usd")), True),
    ]
    rows += [
        Row(((label,), (m.number(path, style),), ("",)))
        for label, path, style in _RUN
        if m.get(path) is not None
    ]
    if m.get("time/interval/held") is not None:
        rows += _time_grounds(m)
    basis = choice.basis(m, "time")
    run = Table("The run", ("", "Estimate", "Interval"), tuple(rows), "lrr", basis=basis)
    found = _of_grpo(m)
    return Section("Time and cost", (run, found) if found else (run,))


def _time_grounds(m: Material) -> list[Row]:
    """Whose interval the times have, how often such intervals held sources that they had not met, and on what it
    rests."""
    within = "time/interval"
    held = choice.judged(m, within)
    rests = (m.number(f"{within}/runs"), " steps of ", m.number(f"{within}/sources"), " sources")
    kind = (TIMED.get(m.get(f"{within}/kind"), UNKNOWN),)
    return [
        Row((("Interval of",), kind, ("",))),
        Row((("It holds",), held, ("",))),
        Row((("It rests on",), rests, ("",))),
    ]


def configuration(root: Material) -> Section:
    """What a trainer loads."""
    config = root.get("peft/config")
    command = Code(str(root.get("export_command")), "shell")
    if config is None:
        reason = clean(str(root.get("peft/reason")))
        return Section(
            "Configuration", (Paragraph(("PEFT cannot train this adapter as it is counted here. ", reason)),)
        )
    shown = {key: value for key, value in config.items() if value is not None}
    words = para(
        "adapter_config.json for PEFT: LoraConfig.from_pretrained reads it, and it trains exactly the parameters "
        "counted above. Written by:"
    )
    return Section(
        "Configuration", (words, command, Code(json.dumps(shown, indent=2, ensure_ascii=False), "json"))
    )
