"""No option is passed over in silence: what goes with nothing is refused, two that say one thing agree."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from click.testing import CliRunner

from planner import compare, estimate, plan
from planner.cli.main import cli
from planner.errors import InputError
from planner.exports import export
from planner.fewest import fewest_gpus
from planner.measuring import calibrate
from planner.running import running
from planner.schema import Notice

SMALL, MIXED = "Qwen/Qwen2.5-0.5B", "Qwen/Qwen2-57B-A14B"
GRPO: dict[str, Any] = {"objective": "grpo", "episodes": 1000, "prompt_tokens": 100, "success_rate": 0.3}
GIB = 2**30


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"reference": "none"}, "reference"),
        ({"reference": "precomputed"}, "reference"),
        ({"reference": "precomputed", "objective": "orpo"}, "reference"),
        ({"expert_parallel": 2, "gpus": 4}, "expert-parallel"),
        ({"adapter_dtype": "float8"}, "adapter-dtype"),
    ],
)
def test_what_goes_with_nothing_is_refused(options: dict[str, Any], field: str) -> None:
    for command in (estimate, compare):
        with pytest.raises(InputError, match=f"^{field}: found"):
            command(SMALL, gpu="h100", **options)


def test_experts_divide_over_their_gpus() -> None:
    """Qwen2 57B has 64 experts (its model card): three GPUs cannot share them evenly, four can."""
    with pytest.raises(InputError, match="expert-parallel: found 3, expected a divisor of the 64 experts"):
        estimate(MIXED, gpu="h100", gpus=6, sharding="fsdp", expert_parallel=3)
    assert estimate(MIXED, gpu="h100", gpus=8, sharding="fsdp", expert_parallel=4).memory


def test_all_linear_may_be_a_target_as_in_peft() -> None:
    """PEFT's LoraConfig takes target_modules="all-linear"."""
    by_targets, by_layers = estimate(SMALL, targets="all-linear"), estimate(SMALL, layers="all-linear")
    assert by_targets.adapter.params == by_layers.adapter.params
    with pytest.raises(InputError, match="nothing beside layers"):
        estimate(SMALL, targets="all-linear", layers="mlp")


def test_a_group_is_one_number() -> None:
    found = estimate(SMALL, **GRPO, group_size=16)
    assert found.grpo is not None and found.information is not None and found.information.groups is not None
    assert found.grpo["group"] == found.information.groups.size == 16
    for command in (estimate, plan):
        with pytest.raises(InputError, match="group-size: found 16, expected the 4 of group"):
            command(SMALL, **{**GRPO, "gpu": "h100"}, group=4, group_size=16)


@pytest.mark.parametrize(("gpus", "group", "batch"), [(1, 4, 8), (1, 16, 16), (2, 12, 48), (4, 8, 32)])
def test_a_batch_that_nobody_gave_is_of_whole_groups(gpus: int, group: int, batch: int) -> None:
    """TRL's 8 completions of a device, or the least more of which groups can be made."""
    assert estimate(SMALL, **GRPO, group=group, gpu="h100", gpus=gpus).workload.batch == batch


def test_a_command_that_plan_prints_is_one_of_export_too() -> None:
    """`plan` says that its command with `export` for `estimate` writes the file: evaluation's batch included."""
    found = plan(SMALL, tokens=10**6, gpu="l4", gpus="1", ranks="8", layers="mlp", eval_batch=16, seq_len=512)
    line = shlex.split(found.command().replace("estimate", "export trl-sft"))[1:]
    done = CliRunner().invoke(cli, [*line, "--json"])
    assert done.exit_code == 0, done.output
    assert "no-evaluation" in {each["code"] for each in json.loads(done.stdout)["warnings"]}
    assert not [n for n in export("trl-sft", SMALL, layers="mlp").notices if n.code == "no-evaluation"]


def test_the_fewest_gpus_are_no_more_than_those_on_which_it_fits() -> None:
    """ZeRO with states in the host's memory, which the search for fewer GPUs does not try."""
    options = {
        "gpu": "t4", "gpus": 2, "trainer": "deepspeed-chat", "offload": "optimizer", "seq_len": 1024, "batch": 32,
        "accumulation": 4, "checkpointing": "layer", "method": "full",
    }  # fmt: skip
    run = running("EleutherAI/gpt-j-6b", options)
    memory = run.memory()
    assert run.machine is not None
    room = run.machine.accelerator.memory_bytes
    assert room is not None and memory.fits(room)
    found = fewest_gpus(run, room, memory)
    assert found is not None and found.gpus <= 2 and found.per_gpu_bytes <= room


def test_a_peak_that_the_gpu_cannot_have_held() -> None:
    found = calibrate(SMALL, peak=20 * GIB, peak_of="device", gpu="t4")
    assert [each.code for each in found.notices] == ["peak-over-gpu"]
    other = calibrate("FacebookAI/roberta-base", peak=20 * GIB, peak_of="allocated", gpu="l40s")
    assert other.peak is not None and other.peak.low_bytes >= 0
    assert "outside of 0 B to" in next(each.message for each in other.notices if each.code == "peak-outside")


@pytest.mark.parametrize(
    "command",
    [
        lambda: estimate(SMALL, seq_len=40_000).warnings,
        lambda: compare(SMALL, seq_len=40_000).warnings,
        lambda: calibrate(SMALL, seq_len=40_000, gpu="h100", step_time=9.0).notices,
        lambda: calibrate(SMALL, seq_len=40_000, peak="300GiB", peak_of="allocated").notices,
        lambda: export("trl-sft", SMALL, seq_len=40_000, layers="mlp", tokens=10**6).notices,
        lambda: (
            plan(SMALL, seq_len=40_000, tokens=10**6, gpu="b200", gpus="1", ranks="8", layers="mlp").warnings
        ),
    ],
    ids=["estimate", "compare", "calibrate", "calibrate-peak", "export", "plan"],
)
def test_longer_than_the_model_allows_is_said_by_every_command(
    command: Callable[[], Sequence[Notice]],
) -> None:
    """Qwen2.5 0.5B has 32,768 positions (its config.json)."""
    said = [each.message for each in command() if each.code == "beyond-context"]
    assert said == ["Sequences of 40,000 tokens exceed the model's 32,768 positions."]


def test_machines_without_gpus_are_refused_where_no_gpu_is_named() -> None:
    for command in (estimate, compare):
        with pytest.raises(InputError, match="gpus-per-node: found 0"):
            command(SMALL, gpus_per_node=0)


def test_flops_of_a_step_of_grpo_have_a_unit() -> None:
    done = CliRunner().invoke(cli, ["estimate", "--model", SMALL, "--objective", "grpo"])
    said = [line for line in done.stdout.splitlines() if line.startswith("FLOPs, training")]
    assert len(said) == 1 and said[0].split()[-1] == "TFLOP", said
