"""What an estimate of GRPO adds: TRL's own values for what is not given, what is refused, and FLOPs by phase.

Values are those of trl 1.16, trainer/grpo_config.py: 8 completions of a prompt, 8 sequences on a device, completions
of up to 512 tokens, beta 0 (no reference), one pass over the completions of a step, transformers to make them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import adapter as adapters
from . import flops
from .adapter.whole import trained_whole
from .errors import InputError
from .information import Information
from .memory.engine import engine
from .objective import generation, passes, scored_of, step_of
from .plan import Plan
from .schema import Architecture, Notice, Source
from .setup import Setup
from .trainers import for_objective
from .units import parse_count

GROUP = 8  # num_generations
DEVICE_BATCH = 8  # per_device_train_batch_size
COMPLETION_TOKENS = 512  # max_completion_length
_BESIDE = "a vLLM on the same GPUs makes all completions of a step"
WHO = {
    "transformers": "transformers makes all completions of a step at once, with a cache of keys and values for each",
    "server": "a vLLM on other GPUs makes the completions, whose memory is not counted",
    "colocate": _BESIDE,
    "shared": _BESIDE,
}
SOURCE = Source(
    "TRL 1.16.0", "https://github.com/huggingface/trl/tree/v1.16.0", "trl/trainer/grpo_config.py, grpo_trainer.py",
    "2026-08-17", "documentation",
)  # fmt: skip


def length_of(seq_len: int | None, asked: Mapping[str, Any]) -> int | None:
    """Tokens of a sequence: as given, or the prompt's and as many as TRL lets a completion have."""
    if seq_len is not None or asked["objective"] != "grpo":
        return seq_len
    prompt = parse_count("prompt-tokens", asked["prompt_tokens"] or 0)
    return (prompt if prompt > 0 else 0) + COMPLETION_TOKENS


def batch_of(alone: int, asked: Mapping[str, Any]) -> int:
    """Completions of a step where nobody gives a batch: TRL's on each GPU and micro-step, of which there are `alone`,
    in whole groups."""
    return math.lcm(DEVICE_BATCH * alone, group_of(asked))


def check_given(plan: Plan, batch: int, asked: Mapping[str, Any]) -> None:
    """Raise InputError where the data are no episodes, a batch no whole number of groups, or a group is
    given for another objective."""
    if asked["objective"] != "grpo":
        if asked["group"] is not None:
            raise InputError("group", asked["group"], "objective grpo beside it")
        return
    if plan.images is not None:
        raise InputError(
            "images", plan.images["count"], "none with objective grpo", "They are not modelled in it."
        )
    check_data(plan.information)
    check_batch(batch, asked)


def one_group(asked: Mapping[str, Any], size: Any) -> Any:
    """Completions of a prompt as the run and its data say them, which is one number. Raises InputError for two."""
    group = asked["group"]
    if asked.get("objective") != "grpo" or size is None:
        return group
    if group is not None and parse_count("group", group) != parse_count("group-size", size):
        raise InputError("group-size", size, f"the {group} of group", "Both are completions of a prompt.")
    return size


def check_data(info: Information | None) -> None:
    """Raise InputError where the data are no episodes."""
    if info is not None and info.kind != "rl":
        raise InputError("objective", "grpo", "--episodes as its data", "Other data have no rewards.")


def check_model(arch: Architecture) -> None:
    """Raise InputError where a model makes no text."""
    if not any(block.stack == "decoder" for block in arch.blocks):
        raise InputError("objective", "grpo", "a model that makes text")


def check_batch(batch: int, asked: Mapping[str, Any]) -> None:
    """Raise InputError where a batch is no whole number of groups."""
    group = group_of(asked)
    if batch % group:
        near = max(1, round(batch / group)) * group
        raise InputError(
            "batch", batch, f"a multiple of the group of {group} completions", f"The nearest is {near}."
        )


def group_of(asked: Mapping[str, Any]) -> int:
    """Completions of a prompt."""
    given = GROUP if asked["group"] is None else asked["group"]
    group = parse_count("group", given)
    if group < 2:
        raise InputError("group", given, "a whole number of at least 2")
    return group


def section(plan: Plan, arch: Architecture, setup: Setup, asked: Mapping[str, Any]) -> Plan:
    """The plan with the contract's `grpo`: sizes of a step and FLOPs of its phases."""
    check_model(arch)
    pairs = adapters.adapt(arch, plan.adapter.spec)
    whole = trained_whole(arch, plan.adapter.spec, pairs)
    group, batch = group_of(asked), setup.global_batch
    step = step_of(setup, pairs)
    trained = flops.step_macs(arch, step, pairs, whole)
    base, own = passes("grpo", setup.reference, setup.generation)
    frozen = flops.step_macs(arch, flops.Step(1, setup.seq_len, scored=scored_of(setup)), ())
    found = {
        "generation": generation(arch, setup, pairs, whole).total,
        "scoring": base * frozen.total + own * trained.forward,
        "training": trained.total,
    }
    done = {
        **_course(arch, setup, group),
        "flops": {name: flops.FLOPS_PER_MAC * batch * macs for name, macs in found.items()},
    }  # fmt: skip
    return plan.with_grpo(done, _notices(setup, done), ("GRPO's defaults and course", SOURCE))


def _course(arch: Architecture, setup: Setup, group: int) -> dict[str, Any]:
    """Sizes of a step and who makes its completions."""
    vllm = engine(arch, setup)
    return {
        "group": group, "prompts": setup.global_batch // group, "prompt_tokens": setup.prompt_tokens,
        "completion_tokens": setup.seq_len - setup.prompt_tokens, "generation": setup.generation,
        "reference": setup.reference, "vllm": None if vllm is None else vllm.to_dict(),
    }  # fmt: skip


def notices(arch: Architecture, setup: Setup, asked: Mapping[str, Any]) -> tuple[Notice, ...]:
    """What to know of a step of this set-up."""
    return _notices(setup, _course(arch, setup, group_of(asked)))


def timed(plan: Plan) -> Plan:
    """The plan with the sources of its time."""
    from .speed.decode import decoding  # loaded where a time is asked for

    notes = dict(decoding().origin)
    of_steps = (("making completions", notes["memory"]), ("interval of a step of GRPO", notes["low"]))
    return replace(plan, sources=(*plan.sources, *of_steps))


def _of_engine(setup: Setup, vllm: Mapping[str, Any]) -> list[Notice]:
    """What to know of the vLLM beside the trainer."""
    base = "reads the trainer's base" if vllm["shared"] else "holds a base of its own"
    asleep = "gives back all but its graphs" if vllm["sleeps"] else "keeps all of it while the trainer steps"
    if vllm["share"] is None:
        taken = "No GPU is named: vLLM is taken to hold all completions of a step at a time, it"
    else:
        own = "" if setup.vllm_memory else ", its trainer's default,"
        taken = f"vLLM takes {vllm['share']:.0%} of the GPU{own} by definition,"
    text = f"{taken} {base} and {asleep}; what it needs beside weights and cache is assumed."
    found = [Notice("vllm", text)]
    if vllm["sequences"] < vllm["wanted"]:
        share = math.ceil(vllm["share_for_all"] * 100) / 100
        whose = "a GPU" if vllm["tensor_parallel"] == 1 else f"its {vllm['tensor_parallel']} GPUs"
        more = (
            f"--vllm-memory {share:.2f} would hold all."
            if share <= 1
            else "A larger GPU, shorter sequences or fewer of them would hold all."
        )
        text = (
            f"vLLM's cache holds {vllm['sequences']:,} of the {vllm['wanted']:,} completions of {whose} at a time; "
            f"the others wait. {more}"
        )
        found.append(Notice("vllm-cache", text))
    return found


def _notices(setup: Setup, done: Mapping[str, Any]) -> tuple[Notice, ...]:
    where = WHO[setup.generation]
    own = "generation" in for_objective("grpo", setup.trainer)
    who, whose = (f"the profile {setup.trainer}", "Its, then TRL's") if own else ("TRL 1.16", "Its")
    text = (
        f"GRPO as {who} runs it: {done['prompts']:,} prompts x {done['group']} completions a step, of up to "
        f"{done['completion_tokens']:,} tokens after prompts of {done['prompt_tokens']:,}; {where}. "
        f"{whose} defaults stand for what is not given."
    )
    if setup.generation == "transformers":
        text += " Generation's memory is compared with runs on the CPU alone."
    found = [Notice("grpo", text)]
    if done["vllm"]:
        found += _of_engine(setup, done["vllm"])
    if not setup.prompt_tokens:
        found.append(
            Notice("no-prompt", "Every token counts as completion: --prompt-tokens says how many are prompt.")
        )
    return tuple(found)
