"""What attention's code and a layer's give names to, and types that rotations widen, seen where nothing keeps them
for a backward pass: evaluations under autocast, against the simulation, which runs the library's own code."""

from __future__ import annotations

from typing import Any

import pytest

from tools.compare_memory import analytic, simulated
from tools.memory_types import Cut, config_of

FULL: dict[str, Any] = {
    "method": "full", "precision": "autocast", "micro_batch": 2, "seq_len": 512, "packing": "full",
    "checkpointing": "layer",
}  # fmt: skip
WORKSPACES = 16.25 * 2**20


def by_phase(kind: str, **options: Any) -> tuple[dict[str, float], dict[str, int]]:
    """The highest points of every phase: estimated, and simulated."""
    point = Cut(kind, "evaluated", {**FULL, **options}, config_of(kind))
    found: dict[str, float] = {}
    for moment in analytic(point)[0].moments:
        found[moment.phase] = max(found.get(moment.phase, 0), moment.bytes - WORKSPACES)
    return found, simulated(point).moments


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "kind", ["llama", "qwen3", "gpt_neox", "phi", "persimmon", "gptj", "gemma", "bert", "ernie4_5"]
)
def test_an_evaluation_under_autocast_is_the_simulated_one(kind: str, kernel: str) -> None:
    """Cosines in float32 widen what products made, parts of a head have names until attention returns, and
    probabilities until the layer does: 3 to 22 % of these were amiss."""
    found, seen = by_phase(kind, eval_batch=16, attention_kernel=kernel)
    assert found["evaluation"] == pytest.approx(seen["evaluation"], rel=0.005)


@pytest.mark.parametrize("kind", ["gpt2", "falcon", "bloom", "gpt_neo", "granitemoe", "stablelm", "jais2"])
def test_probabilities_of_an_evaluation_go_when_their_names_do(kind: str) -> None:
    found, seen = by_phase(kind, eval_batch=16, attention_kernel="eager")
    assert found["evaluation"] == pytest.approx(seen["evaluation"], rel=0.01)


@pytest.mark.parametrize("kind", ["t5", "umt5", "plbart"])
def test_probabilities_of_the_second_attention_take_the_name_of_the_first(kind: str) -> None:
    """Which stay, dropped and in float32, while the decoder's layer runs again: 2 to 5 % of a step."""
    found, seen = by_phase(kind, attention_kernel="eager", seq_len=1024, micro_batch=4)
    assert found["backward"] == pytest.approx(seen["backward"], rel=0.005)


def test_codegen_has_no_flash_attention() -> None:
    """As GPT-J has, whose code its own is else: eager scores are kept whatever is asked for (10 %)."""
    found, seen = by_phase("codegen", attention_kernel="flash", checkpointing="none", precision="bf16")
    assert found["forward"] == pytest.approx(seen["forward"], rel=0.005)


def test_an_offloaded_input_goes_when_its_layer_has_run_again() -> None:
    """Without reentrance nothing holds it beside the gradients (3 % of an encoder whose pairs are on its MLP)."""
    options = {"method": "lora", "rank": 4, "layers": "mlp", "checkpointing": "layer-offload"}
    found, seen = by_phase("bert", **options, micro_batch=16)
    assert found["backward"] == pytest.approx(seen["backward"], rel=0.004)
    kept, there = by_phase("bert", **options, micro_batch=16, reentrant=True)
    assert kept["backward"] == pytest.approx(there["backward"], rel=0.004)


LORA: dict[str, Any] = {
    "method": "lora",
    "rank": 16,
    "layers": "all-linear",
    "autocast": True,
    "precision": "bf16",
}


@pytest.mark.parametrize(
    "kind", ["glm4_moe", "deepseek_v3", "exaone_moe", "hy_v3", "minimax_m2", "lfm2_moe", "mistral4"]
)
def test_autocast_lowers_the_logits_of_routers_that_read_float32(kind: str) -> None:
    """So that sigmoid's weights and what they weigh stay in 16 bits, unless a division by a float32 sum widens them:
    4 to 10 % of a step's peak."""
    found, seen = by_phase(kind, **LORA, micro_batch=4, seq_len=1024)
    assert found["backward"] == pytest.approx(seen["backward"], rel=0.005)


@pytest.mark.parametrize("kind", ["bert", "mbart", "bart", "plbart", "nanochat", "apertus", "bitnet"])
def test_a_norm_of_embeddings_widens_them_under_autocast(kind: str) -> None:
    """LayerNorm reads and makes float32 of 16 bits, which layers then add to; an RMSNorm does not (2 to 6 %).
    Apertus' activation and BitNet's inner norm let go of what they read."""
    seconds = {} if "bart" in kind else {"eval_batch": 16}
    found, seen = by_phase(kind, **LORA, **seconds)
    assert found["backward"] == pytest.approx(seen["backward"], rel=0.005)
    if seconds:
        assert found["evaluation"] == pytest.approx(seen["evaluation"], rel=0.005)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_what_dropout_left_for_a_pair_goes_when_it_has_been_read(kind: str) -> None:
    """In float32, of which autocast keeps a 16-bit copy: 2 to 3 % of a layer that runs whole again."""
    found, seen = by_phase(kind, **LORA, lora_dropout=0.1, reentrant=True, micro_batch=4)
    assert found["backward"] == pytest.approx(seen["backward"], rel=0.003)


@pytest.mark.parametrize("kind", ["bert", "nomic_bert", "bloom"])
def test_masks_are_as_wide_as_a_norm_has_made_embeddings(kind: str) -> None:
    """Eager scores become float32 by them, and not by a cast of their own: 16 % of an evaluation; BLOOM's are made
    before the norm."""
    options = {**LORA, "attention_kernel": "eager", "packing": "padded", "eval_batch": 8}
    found, seen = by_phase(kind, **options)
    assert found["evaluation"] == pytest.approx(seen["evaluation"], rel=0.01)
