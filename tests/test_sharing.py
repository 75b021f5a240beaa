"""Counts of GPUs that a model goes with: heads, widths, layers and experts by hand, and who asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import planner
from planner.cli.main import cli
from planner.errors import InputError
from planner.estimator import load
from planner.running import running
from planner.setup import Setup
from planner.sharing import check_model, most_sequence

# 14 heads, 2 of keys and values, 4,864 between the products of a perceptron, 24 layers.
QWEN = "Qwen/Qwen2.5-0.5B"
# 32 heads, 4 of keys and values, 768 in each of 128 experts, 48 layers.
MIXTURE = "Qwen/Qwen3-30B-A3B"


def said(name: str, count: int, **more: Any) -> dict[str, Any]:
    return {"gpus": count, name: count, "seq_len": 840, "rank": 8, **more}


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (QWEN, said("tensor_parallel", 4), "tensor-parallel: found 4, expected a divisor of the 14 .* nearest is 2"),
        (QWEN, said("tensor_parallel", 7), "multiple or divisor of the 2 key and value heads.* nearest is 2"),
        (QWEN, said("tensor_parallel", 28), "a divisor of the 14 attention heads. The nearest is 2"),
        (QWEN, said("sequence_parallel", 4), "sequence-parallel: found 4, .*14 attention heads. .* 2 and 14"),
        (QWEN, said("sequence_parallel", 7), "sequence-parallel: found 7, .*2 key and value heads"),
        (QWEN, said("sequence_parallel", 2, seq_len=841), "a divisor of the 841 tokens of a sequence"),
        (QWEN, said("pipeline_parallel", 48), "pipeline-parallel: found 48, .*at most the 24 layers"),
        ("google-t5/t5-small", said("pipeline_parallel", 2), "found 2, expected 1 for an encoder with a decoder"),
        ("Zyphra/Zamba-7B-v1", said("pipeline_parallel", 2), "expected 1 for a model whose layers share matrices"),
        (QWEN, said("expert_parallel", 2, sharding="fsdp"), "expert-parallel: found 2, expected 1 for a model"),
        (
            MIXTURE, said("expert_parallel", 12, sharding="fsdp"),
            "expert-parallel: found 12, expected a divisor of the 128 experts. The nearest are 8 and 16",
        ),
        (MIXTURE, said("tensor_parallel", 64), "a divisor of the 32 attention heads. The nearest is 32"),
        (
            QWEN, {"objective": "grpo", "generation": "colocate", "vllm_tensor_parallel": 4, "gpus": 4, "batch": 8},
            "vllm-tensor-parallel: found 4, expected a divisor of the 14 attention heads",
        ),
    ],
)  # fmt: skip
def test_a_count_that_does_not_divide_is_one_error(model: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        planner.estimate(model, **options)
    with pytest.raises(InputError, match=says):
        running(model, options)


def test_what_is_between_a_perceptron_s_products_divides() -> None:
    """12 heads and 8,960 values between a perceptron's products, a 12th of which is none: 4 goes, 12 does not."""
    options: dict[str, Any] = {"seq_len": 512, "rank": 8}
    model = "Qwen/Qwen2.5-1.5B"
    assert planner.estimate(model, gpus=4, tensor_parallel=4, **options).memory
    with pytest.raises(InputError, match="divisor of the 8960 intermediate values of a token. .* 4"):
        planner.estimate(model, gpus=12, tensor_parallel=12, **options)


def test_heads_of_keys_and_values_may_be_fewer_than_gpus() -> None:
    """Two heads of keys and values on 14 GPUs are there seven times each; 4,864 is no multiple of 7."""
    arch = load(QWEN)[1]
    check_model(arch, Setup(gpus=14, sequence_parallel=14, seq_len=840))
    with pytest.raises(InputError, match="4864 intermediate"):
        check_model(arch, Setup(gpus=14, tensor_parallel=14))


@pytest.mark.parametrize("command", ["estimate", "compare", "plan", "report"])
def test_every_command_says_it_in_a_line(command: str, tmp_path: Path) -> None:
    asked = [command, "-m", QWEN, "--gpu", "h100", "--gpus", "4", "--tensor-parallel", "4", "--tokens", "1M"]
    asked += ["-o", str(tmp_path / "out.pdf")] if command == "report" else []
    found = CliRunner().invoke(cli, asked)
    assert isinstance(found.exception, InputError) and found.exception.exit_code == 2
    assert "14 attention heads" in str(found.exception) and "\n" not in str(found.exception)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([QWEN, MIXTURE]), st.integers(1, 64), st.sampled_from([512, 840, 1001, 2048]))
def test_the_most_that_share_a_sequence_are_accepted_and_no_more_would_be(
    model: str, gpus: int, seq_len: int
) -> None:
    arch = load(model)[1]

    def goes(count: int) -> bool:
        try:
            check_model(arch, Setup(gpus=gpus, sharding="fsdp", sequence_parallel=count, seq_len=seq_len))
        except InputError:
            return False
        return True

    assert most_sequence(arch, gpus, seq_len) == max(filter(goes, range(1, gpus + 1)))


def test_stages_of_a_pipeline_may_differ_by_a_layer() -> None:
    """RoundPipe ran Qwen3-1.7B's 28 layers on eight GPUs; the largest stage has four of them, as on seven."""
    uneven, even = (
        planner.estimate(
            "Qwen/Qwen3-1.7B", rank=8, seq_len=1024, batch=8, accumulation=8, gpus=n, pipeline_parallel=n
        )
        for n in (8, 7)
    )
    assert uneven.memory and even.memory
    assert uneven.memory["full"]["parts"]["weights"] == even.memory["full"]["parts"]["weights"] > 0
