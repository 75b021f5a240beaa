"""Profiles read from newer programs: what they hold, by arithmetic on what their code says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner import estimate
from planner.adapter import AdapterSpec, adapt
from planner.errors import InputError
from planner.estimator import load
from planner.memory import estimate_memory
from planner.running import running
from planner.trainers import find

LLAMA = "meta-llama/Llama-3.1-8B"
ARCH = load(LLAMA)[1]
RUN: dict[str, Any] = {"rank": 8, "layers": "all-linear", "seq_len": 512, "checkpointing": "layer"}
PAIRS = sum(item.params for item in adapt(ARCH, AdapterSpec(8, layers=("all-linear",))))


def parts(trainer: str, method: str = "lora", **more: Any) -> dict[str, int]:
    memory = running(LLAMA, {**RUN, "trainer": trainer, "method": method, **more}).memory()
    step = next(moment for moment in memory.moments if moment.phase == "optimizer")
    return {str(part): size for part, size in step.parts().items()}


@pytest.mark.parametrize(
    ("trainer", "base", "own", "states"),
    [
        ("llama-factory-0.9.5", 2, 4, 8),  # float32 pairs beside a 16-bit base
        ("nemo-2", 2, 2, 4 + 8),  # pairs in 16 bits, with float32 masters and two states
        ("ludwig", 4, 4, 8),  # all in float32
        ("llm-foundry-hf", 4, 4, 8),
    ],
)
def test_bytes_that_lora_holds(trainer: str, base: int, own: int, states: int) -> None:
    found = parts(trainer)
    assert found["weights"] == base * ARCH.params
    assert found["adapter"] == own * PAIRS
    assert found["optimizer"] == pytest.approx(states * PAIRS, rel=1e-3)


def test_nemo_adds_gradients_up_in_a_float32_buffer_of_all_pairs() -> None:
    assert parts("nemo-2")["gradients"] == 4 * PAIRS
    assert running(LLAMA, {**RUN, "trainer": "nemo2.4"}).setup.loss == "wide"
    assert running(LLAMA, {**RUN, "trainer": "nemo-2", "method": "full"}).setup.loss == "wide-fused"


def test_what_is_not_quantised() -> None:
    """Embeddings and unembedding (not tied) stay in 16 bits in LLaMA-Factory, and are float32 in Ludwig, which calls
    PEFT's preparation; norms likewise."""
    kept = sum(m.params for m in ARCH.matrices if m.role in ("embedding", "unembedding"))
    kept += sum(v.params for v in ARCH.vectors)
    narrow, wide = parts("llama-factory-0.9.5", "qlora")["weights"], parts("ludwig", "qlora")["weights"]
    assert wide - narrow == 2 * kept


def test_evaluations_of_llama_factory() -> None:
    """use_cache is False of a model that is trained from 0.9.3 on, before where layers are computed again."""
    for trainer, checkpointing, cache in (
        ("llama-factory-0.9.5", "none", "none"), ("llama-factory-0.9.4", "none", "none"),
        ("llama-factory-0.9.4", "layer", "none"), ("llama-factory-0.9.2", "layer", "none"),
        ("llama-factory-0.9.2", "none", "kept"),
    ):  # fmt: skip
        setup = running(LLAMA, {**RUN, "trainer": trainer, "checkpointing": checkpointing}).setup
        assert setup.eval_cache == cache, (trainer, checkpointing)


def test_what_is_left_out_is_said() -> None:
    said = " ".join(
        w.message for w in estimate(LLAMA, trainer="ludwig").warnings if w.code == "trainer-noted"
    )
    assert "Probabilities of every token" in said and "not counted" in said
    found = find("llama-factory-0.9.5")
    assert found is not None and found.like == "hf-trainer"
    assert "llama-factory-0.9.5" in (find("llama-factory") or found).notes


def test_gradients_that_are_dropped_behind_the_next_forward_pass() -> None:
    """Of full fine-tuning in float32, 4 bytes a parameter more in the forward pass, the loss and an evaluation, none
    in the backward pass; with micro-steps they stand all along anyway."""
    asked: dict[str, Any] = {"method": "full", "trainer": "lightning", "seq_len": 256, "eval_batch": 1}
    late, soon = (running(LLAMA, {**asked, "gradients_late": on}).memory() for on in (None, False))
    assert late.setup.gradients_late and not soon.setup.gradients_late
    for one, other in zip(late.moments, soon.moments, strict=True):
        more = 4 * ARCH.params if one.phase in ("forward", "loss", "evaluation") else 0
        sizes = [sum(each.parts().values()) for each in (one, other)]
        assert sizes[0] - sizes[1] == pytest.approx(more, rel=1e-3), one.phase
    steps = [
        running(LLAMA, {**asked, "gradients_late": on, "batch": 2, "accumulation": 2}).memory()
        for on in (True, False)
    ]
    assert steps[0].allocated_bytes == steps[1].allocated_bytes
    sharded = {"method": "full", "trainer": "lightning", "gpus": 2, "batch": 2, "sharding": "zero2"}
    assert not running(LLAMA, sharded).setup.gradients_late  # DeepSpeed's engine drops them itself


@pytest.mark.parametrize(
    ("trainer", "base", "own"), [("llama-cookbook", 2, 4), ("lightning", 4, 4), ("accelerate-loop", 2, 4)]
)
def test_bytes_that_loops_hold(trainer: str, base: int, own: int) -> None:
    found = parts(trainer)
    assert (found["weights"], found["adapter"]) == (base * ARCH.params, own * PAIRS)


def test_accelerate_widens_what_a_model_returns() -> None:
    """A loop with a name for its output holds float32 copies of 16-bit logits to the end of the backward pass."""
    plain, wide = (
        running(LLAMA, {**RUN, "method": "lora", "autocast": True, "trainer": name}).memory()
        for name in ("hf-loop", "accelerate-loop")
    )
    logits = [each.peak.parts()["logits"] for each in (plain, wide)]
    assert logits[1] - logits[0] == pytest.approx(2 * 512 * ARCH.vocab_size, rel=0.02)


@pytest.mark.parametrize(
    ("trainer", "loss", "reference"),
    [
        ("torchtune", "full", "base"),
        ("torchtune-0.2", "full", "base"),
        ("openrlhf", "full", "base"),
        ("xtuner", "full", "base"),
        ("ms-swift-2024", "full", "base"),
        ("ms-swift-megatron", "wide-fused", "base"),
        ("llama-factory-0.9.5", "full", "base"),
        ("open-instruct", "fused", "precomputed"),
        ("open-instruct-2024", "full", "precomputed"),
    ],
)
def test_pairs_are_scored_as_the_trainers_own_code_does(trainer: str, loss: str, reference: str) -> None:
    setup = running(LLAMA, {"objective": "dpo", "method": "lora", "trainer": trainer}).setup
    assert (setup.loss, setup.reference) == (loss, reference)


def test_pairs_by_megatrons_loss_of_each_token() -> None:
    """2 bytes a logit and probabilities, 4; on the way back their gradient, 4, and its cast, 2: of two sequences."""
    asked: dict[str, Any] = {"objective": "dpo", "method": "lora", "seq_len": 512, "precision": "bf16"}
    found = running(LLAMA, {**asked, "loss": "wide-fused"}).memory()
    logits = 2 * 512 * ARCH.vocab_size
    back = next(m for m in found.moments if (m.phase, m.where) == ("backward", "unembedding"))
    assert back.parts()["logits"] == pytest.approx((4 + 4 + 2) * logits, rel=0.02)
    with pytest.raises(InputError, match="wide-fused"):
        running(LLAMA, {**asked, "objective": "grpo", "loss": "wide-fused"})


@pytest.mark.parametrize(
    ("trainer", "zero2", "zero3"),
    [
        ("trl", 1, 1),  # accelerate's plugin leaves DeepSpeed's default of half a billion values
        ("alignment-handbook", 1, 1),
        ("accelerate-loop", 1, 1),
        ("axolotl", 2, 0),  # overlap_comm, and ZeRO-3's are auto: a hidden width squared
        ("axolotl-0.4", 2, 0),
        ("llama-factory", 2, 0),
        ("llama-factory-0.9.4", 1, 0),
        ("llama-factory-0.9.5", 1, 0),
        ("xtuner", 2, 1),
        ("openrlhf-0.6", 1, 1),
        ("deepspeed-chat", 1, 1),
    ],
)
def test_buffers_of_deepspeed_by_the_configs_that_trainers_ship(trainer: str, zero2: int, zero3: int) -> None:
    for sharding, buffers in (("zero2", zero2), ("zero3", zero3)):
        asked = {**RUN, "method": "lora", "trainer": trainer, "gpus": 4, "batch": 4, "sharding": sharding}
        items = running(LLAMA, asked).memory().peak.items
        held = sum(item.bytes for item in items if item.name == "gradient buckets")
        assert held == (buffers * 2 * 500_000_000 or pytest.approx(2 * PAIRS, rel=1)), sharding


def test_axolotl_makes_what_is_not_quantised_float32_for_a_while() -> None:
    """Embeddings and unembedding of 16 bits beside their float32 copies before the first step, but not where FSDP or
    ZeRO-3 divides them (a published figure of a small run: 0.60 of it without, 0.86 with)."""
    asked = {**RUN, "method": "qlora", "seq_len": 64}
    for trainer in ("axolotl", "axolotl-0.13", "axolotl-0.4"):
        found = running(LLAMA, {**asked, "trainer": trainer}).memory()
        preparing = next(m for m in found.moments if m.phase == "preparing")
        tables = sum(m.params for m in ARCH.matrices if m.role in ("embedding", "unembedding"))
        assert preparing.parts()["temporary"] >= 2 * tables
        for sharding in ("fsdp", "zero3"):
            spread = running(
                LLAMA, {**asked, "trainer": trainer, "gpus": 2, "batch": 2, "sharding": sharding}
            )
            assert not spread.setup.prepared_wide


def test_accelerates_context_parallelism_gathers_keys_and_values() -> None:
    """On a layer's way back keys and values of all eight GPUs and this one's joined, 9, and float32 sums of the three
    gradients and those of keys and values on their way round. Without, the peak of a layer is another moment."""
    asked: dict[str, Any] = {"method": "full", "trainer": "trl", "gpus": 8, "batch": 1, "seq_len": 262144}
    asked |= {"attention_kernel": "sdpa", "sharding": "fsdp", "fsdp_units": "layers", "packing": "full"}
    own = 262144 // 8
    of_keys, of_queries = 2 * 1024 * own, 2048 * own  # eight heads of keys, 16 of queries
    held = {}
    for gathers in (True, False):
        more = {**asked, "sequence_parallel": 8, "keys_gathered": gathers}
        found = running("Qwen/Qwen3-0.6B", more).memory()
        back = [m for m in found.moments if m.phase == "backward" and m.where.startswith("decoder layer")]
        held[gathers] = max(sum(m.parts().values()) for m in back)
    added = 9 * 2 * of_keys + 4 * (of_queries + 3 * of_keys)
    assert 0.7 * added < held[True] - held[False] < added
    for trainer, sharding, gathers in (
        ("trl", "fsdp", True), ("hf-trainer-4.57", "fsdp", True), ("trl-1.6", "fsdp", True),
        ("accelerate-loop", "fsdp", True), ("trl", "zero3", False), ("axolotl", "fsdp", False),
    ):  # fmt: skip
        plain = {**RUN, "method": "lora", "trainer": trainer, "gpus": 4, "batch": 4, "sharding": sharding}
        assert running(LLAMA, plain).setup.keys_gathered == gathers, (trainer, sharding)


def test_unsloth_s_buffers_for_what_comes_back() -> None:
    """32,768 tokens of 4,096 values in 16 bits are 256 MiB: at the loss two buffers and the last layer's input, which
    stays (one buffer before May 2026); while a layer runs again it has one of the buffers."""
    options = {"method": "qlora", "rank": 8, "seq_len": 32768, "trainer": "unsloth"}
    run = running(LLAMA, options)
    for buffers, at_loss, at_layer in ((2, 3, 1), (1, 2, 0)):
        with_them = estimate_memory(run.arch, replace(run.setup, offload_buffers=buffers), run.pairs)
        without = estimate_memory(run.arch, replace(run.setup, offload_buffers=0), run.pairs)
        pairs = zip(with_them.moments, without.moments, strict=True)
        more = {a.phase: a.bytes - b.bytes for a, b in pairs if a.where == b.where}
        assert more["loss"] == at_loss * 2**28 and more["backward"] == at_layer * 2**28
    names = {"unsloth": 2, "unsloth-2026-08": 2, "unsloth-2025-09": 1, "unsloth-2025": 1, "unsloth-2024": 0}
    asked = {"method": "qlora", "rank": 8}
    assert {n: running(LLAMA, {**asked, "trainer": n}).setup.offload_buffers for n in names} == names


def test_unsloths_one_buffer_for_matrices_made_whole() -> None:
    """Llama 3.1 8B in NF4: 14,336 x 4,096 values of 2 bytes stay all along, at the loss too, and no product makes
    its own on the way there. Without it: of types that other code runs, under dropout, with other kernels, and of
    2024."""
    given = {**RUN, "method": "qlora", "quantize": "nf4", "lora_dropout": 0.0}

    def copies(trainer: str, model: str = LLAMA, **more: Any) -> dict[str, int]:
        found = running(model, {**given, "trainer": trainer, **more}).memory()
        return {
            m.phase: sum(i.bytes for i in m.items if i.name == "copies of weights") for m in found.moments
        }

    buffer = 14336 * 4096 * 2
    kept = copies("unsloth-2026-08")
    assert buffer <= kept["loss"] == kept["forward"] == kept["optimizer"] < 1.05 * buffer
    assert kept["loss"] < kept["backward"]  # what reads no buffer stands beside it
    without: list[dict[str, Any]] = [{"lora_dropout": 0.1}, {"kernels": "transformers"}]
    for more in without:
        assert copies("unsloth-2026-08", **more)["loss"] == 0
    assert copies("unsloth-2026-08", "google/gemma-3-4b-it")["loss"] == 0
    assert copies("unsloth-2024")["loss"] == 0
