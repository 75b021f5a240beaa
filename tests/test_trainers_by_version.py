"""What trainers do by their version, and by model, as their profiles say it."""

from __future__ import annotations

from typing import Any

import pytest

from planner import estimate
from planner.fewest import fewest_gpus
from planner.memory.sharding import deferred_gradients
from planner.running import running
from planner.setup import Setup
from planner.speed.styles import STYLES, style_of
from planner.trainers import filled, find, parse
from tools.measured_models import CONFIGS

LLAMA, EXPERTS = "meta-llama/Llama-3.1-8B", "openai/gpt-oss-20b"
PARAMS = 8_030_261_248


def _full(trainer: str, accumulation: int, **options: Any) -> dict[str, int]:
    """Bytes by part at the peak of full fine-tuning on eight GPUs by FSDP."""
    asked = {"method": "full", "gpus": 8, "sharding": "fsdp", "batch": 8 * accumulation, "seq_len": 16}
    found = running(LLAMA, {"trainer": trainer, "accumulation": accumulation, **asked, **options}).memory()
    return {str(name): size for name, size in found.peak.parts().items()}


@pytest.mark.parametrize(
    ("trainer", "width"), [("hf-trainer", 2), ("litgpt", 2), ("axolotl", 2), ("nemo-automodel", 4)]
)
def test_gradients_wait_whole_where_their_exchange_is_put_off(trainer: str, width: int) -> None:
    """PyTorch's no_sync: not sharded, in the type of the backward pass, or of the reduction under FSDP 2."""
    once, twice = (_full(trainer, accumulation)["gradients"] for accumulation in (1, 2))
    assert twice >= width * PARAMS
    assert once < width * PARAMS / 2


def test_that_gradients_wait_is_said() -> None:
    def said(accumulation: int) -> list[str]:
        options = {"method": "full", "trainer": "trl", "gpus": 2, "batch": 4, "accumulation": accumulation}
        return [notice.code for notice in running(LLAMA, options).memory().notices]

    assert said(2) == ["gradients-wait-whole"] and said(1) == []


@pytest.mark.parametrize("trainer", ["axolotl-2025", "torchtune", "torchtitan"])
def test_gradients_are_sharded_where_each_micro_step_exchanges_them(trainer: str) -> None:
    assert _full(trainer, 2)["gradients"] < PARAMS * 4 / 2


def test_no_gradients_wait_under_zero_or_on_one_gpu() -> None:
    """Where they are offloaded they wait on the GPU too (torch.distributed.fsdp, no_sync: "the gradients will not be
    offloaded to CPU when inside the context manager")."""

    def waiting(**options: Any) -> int:
        setup = running(LLAMA, {"method": "full", "deferred_gradients": "float32", **options}).setup
        return deferred_gradients(PARAMS, setup)

    assert waiting(accumulation=2, batch=2) == 0
    several = {"gpus": 2, "batch": 4, "accumulation": 2}
    assert waiting(**several, sharding="fsdp") == 4 * PARAMS
    assert waiting(**several, sharding="zero3") == 0
    assert waiting(**several, sharding="fsdp", offload="all") == 4 * PARAMS


def test_unsloth_of_2024_makes_all_logits() -> None:
    """2 bytes a logit, of which the gradient takes the place, and accelerate's float32 copy; since, of at most 8,192
    tokens at a time and without the copy."""
    options = {"method": "qlora", "rank": 8, "targets": "q_proj", "seq_len": 65536}
    now, then = (
        running(LLAMA, {**options, "trainer": name}).memory() for name in ("unsloth", "unsloth-2024")
    )
    assert then.peak.parts()["logits"] >= 6 * 65536 * 128256
    assert now.peak.parts()["logits"] < 3 * 8192 * 128256


def test_unsloth_of_2026_without_fused_attention_keeps_scores_and_does_not_checkpoint() -> None:
    """Beside TRL up to 0.21 its trainer switched off what get_peft_model switched on; scores are float32 and kept."""
    options = {"method": "qlora", "rank": 8, "targets": "q_proj", "seq_len": 2048, "batch": 1}
    found = running(LLAMA, {**options, "trainer": "unsloth-2026-06"})
    assert (found.setup.checkpointing, found.setup.attention_kernel) == ("none", "math")
    scores = 4 * 2048 * 2048 * 32 * 32  # of 32 heads and layers
    flash = running(LLAMA, {**options, "trainer": "unsloth-2026-06", "attention_kernel": "flash"})
    assert scores < found.memory().allocated_bytes - flash.memory().allocated_bytes < 1.5 * scores


def test_unsloth_has_the_experts_of_gpt_oss_in_4_bits() -> None:
    """Its own figures: fine-tuning takes 14 GB (12.8 GB since February 2026), a T4."""
    found = estimate(EXPERTS, trainer="unsloth", quantize="nf4", rank=8, layers="attention", seq_len=1024)
    assert found.memory is not None
    assert found.memory["qlora"]["setup"]["quantize_experts"]
    assert 12e9 < found.memory["qlora"]["per_gpu_bytes"] < 15e9
    assert found.memory["lora"]["per_gpu_bytes"] > 40e9
    said = {"trainer": "unsloth", "method": "qlora"}
    assert "quantize_experts" not in filled(said, "qwen3_moe")
    assert filled({**said, "quantize_experts": False}, "gpt_oss")["quantize_experts"] is False
    assert "quantize_experts" not in filled({**said, "method": "lora"}, "gpt_oss")


def test_experts_that_a_profile_quantises_need_a_source() -> None:
    raw = {"trainer": [{"name": "x", "title": "X", "experts_quantised": ["gpt_oss"]}]}
    with pytest.raises(Exception, match="quantize_experts without a source"):
        parse(raw)


def test_gradients_that_are_set_to_zero_stay() -> None:
    """BERT large in float32: 1.34 GB are held while activations are, beside 12 bytes a parameter."""
    bert = {"precision": "fp32", "method": "full", "batch": 4, "seq_len": 512, "attention_kernel": "eager"}
    found = [
        running("google-bert/bert-large-uncased", {**bert, "trainer": t})
        for t in ("hf-trainer-2022", "hf-trainer-4")
    ]
    kept, dropped = (each.memory().peak.parts() for each in found)
    assert dropped["gradients"] == 0 < kept["gradients"]
    assert kept["gradients"] == kept["weights"]


@pytest.mark.parametrize("kernel", ["foreach", "fused"])
def test_a_paged_optimizer_updates_in_place(kernel: str) -> None:
    """bitsandbytes holds two float32 states a parameter, whatever its type, in the host's memory."""
    options = {
        "targets": "q_proj",
        "optimizer": "paged-adamw",
        "adapter_dtype": "bfloat16",
        "rank": 32,
        "seq_len": 16,
    }
    found = running(LLAMA, {**options, "optimizer_kernel": kernel}).memory()
    assert found.host_bytes == 32 * 2 * 131_072 * 8
    last = found.moments[-1]
    assert last.phase == "optimizer" and last.parts()["optimizer"] == 0
    assert last.parts()["temporary"] < 20e6  # the matrix library's workspaces


def test_torchtune_updates_in_the_backward_pass_on_one_gpu() -> None:
    assert filled({"trainer": "torchtune", "method": "full"})["optimizer_in_backward"]
    assert "optimizer_in_backward" not in filled(
        {"trainer": "torchtune", "method": "full", "sharding": "fsdp"}
    )
    assert "optimizer_in_backward" not in filled({"trainer": "torchtune"})


@pytest.mark.parametrize(
    ("trainer", "alone"),
    [
        ("torchtune", "paged-adamw-8bit"),
        ("torchtune-0.2", "paged-adamw-8bit"),
        ("torchtune-0.1", "paged-adamw"),
    ],
)
def test_torchtune_pages_the_states_of_one_gpu_alone(trainer: str, alone: str) -> None:
    """Its configs for several GPUs (8B_full.yaml, 7B_full.yaml) have torch.optim.AdamW."""
    asked = {"trainer": trainer, "method": "full"}
    assert filled(asked)["optimizer"] == alone
    assert "optimizer" not in filled({**asked, "sharding": "fsdp", "gpus": 8})


def test_litgpt_holds_a_tied_embedding_twice() -> None:
    tied = "meta-llama/Llama-3.2-1B"
    options = {"rank": 8, "targets": "q_proj", "adapter_dtype": "bfloat16", "seq_len": 16}
    parts = [running(tied, {**options, "trainer": name}).memory().parts() for name in ("litgpt", "plain")]
    assert parts[0]["weights"] - parts[1]["weights"] == 128256 * 2048 * 2


def test_litgpt_before_2025_keeps_quantised_inputs_of_two_micro_steps() -> None:
    """Of this micro-step what no other operation keeps: the norm before the MLP, and the gated product that the down
    projection reads; of the one before these, the norm before attention and attention's result."""
    options = {"rank": 8, "targets": "q_proj,v_proj", "quantize": "nf4", "seq_len": 512}
    now, then = (running(LLAMA, {**options, "trainer": f"litgpt{year}"}).memory() for year in ("", "-2024"))
    values = (4096 + 14336) + (4096 + 4096 + 4096 + 14336)
    assert then.allocated_bytes - now.allocated_bytes == pytest.approx(32 * 512 * 2 * values, rel=0.01)


def test_bitsandbytes_before_0_43_2_keeps_inputs() -> None:
    options = {"method": "qlora", "rank": 8, "batch": 2, "targets": "q_proj"}
    now = running(LLAMA, options).memory()
    before = running(LLAMA, {**options, "quantised_inputs_kept": True}).memory()
    assert before.allocated_bytes > now.allocated_bytes


def test_trl_until_1_12_copies_the_unembedding_to_float32() -> None:
    """4 bytes a parameter, and 2 more that autocast makes of them, beside the logits of 256 tokens; from 1.13 none,
    but where PEFT made the unembedding float32, which autocast lowers."""
    options = {"method": "qlora", "rank": 8, "targets": "q_proj", "seq_len": 1024, "trainer": "trl-1.14"}
    unembedding, chunk = 128256 * 4096, 256 * 128256

    def logits(**more: Any) -> int:
        moments = running(LLAMA, {**options, **more}).memory().moments
        loss = next(moment for moment in moments if moment.phase == "loss")
        return loss.parts()["logits"]

    now, then = logits(), logits(trainer="trl-1.12")
    assert 14 * chunk < now < 18 * chunk
    assert 6 * unembedding < then < 6 * unembedding + 3 * chunk
    assert logits(upcast_small=True) - now == pytest.approx(2 * unembedding, rel=0.02)
    assert running(LLAMA, {**options, "method": "lora", "upcast_small": True}).setup.upcast_small is False


def test_trl_of_2025_makes_all_logits() -> None:
    """On the way back log-softmax, kept, the gradient of the chosen entries and that of the logits: three tensors of
    four bytes a logit, of 4 x 1,024 tokens by 128,256 entries. Today's TRL makes none; nothing is checkpointed before
    0.22 unless told."""
    options = {"method": "qlora", "rank": 8, "targets": "q_proj", "seq_len": 1024, "batch": 4}

    def of(trainer: str) -> tuple[Setup, int]:
        found = running(LLAMA, {**options, "trainer": trainer}).memory()
        return found.setup, max(moment.parts()["logits"] for moment in found.moments)

    setup, logits = of("trl-0.24")
    assert logits == 4 * 1024 * 128256 * 12
    assert (setup.checkpointing, setup.reentrant, setup.adapter_dtype) == ("layer", True, "bfloat16")
    assert of("trl")[1] < logits / 10
    assert of("trl-0.13")[0].checkpointing == "none"


def test_trl_of_2023_checkpoints_a_quantised_base_alone() -> None:
    options = {"trainer": "trl-0.7", "rank": 8}
    assert running(LLAMA, {**options, "method": "qlora"}).setup.checkpointing == "layer"
    assert running(LLAMA, {**options, "method": "lora"}).setup.checkpointing == "none"


def test_scripts_after_qlora_fill_no_cache() -> None:
    """StarCoder's code of then filled one though its layers were checkpointed, unless use_cache was False: with what
    one projection makes, 6,400 values a token and layer, in float32 as bitsandbytes hands on what it was given."""
    options = {"method": "qlora", "rank": 8, "layers": "attention", "batch": 4, "seq_len": 2048}
    options |= {"trainer": "qlora-2023", "attention_kernel": "flash"}
    off, on = (
        running(CONFIGS["bigcode/starcoder"], {**options, "cache_held": held}).memory()
        for held in (None, True)
    )
    assert off.setup.cache_held is False
    assert on.allocated_bytes - off.allocated_bytes == pytest.approx(4 * 2048 * 40 * 6400 * 4, rel=0.01)


def test_prime_rl_by_pieces_of_the_vocabulary() -> None:
    """On the way back five float32 tensors of all tokens by 2,048 entries, the 16-bit product, and the gradients of
    hidden states and the frozen unembedding: by hand from its code, for 16,384 tokens of Qwen3-0.6B."""
    options = {
        "trainer": "prime-rl",
        "seq_len": 16384,
        "checkpointing": "layer",
        "kernels": "compiled",
        "rank": 64,
    }
    found = running("Qwen/Qwen3-0.6B", {**options, "method": "lora"}).memory()
    assert (found.setup.sharding, found.setup.gpus) == ("fsdp", 1)
    back = next(m for m in found.moments if (m.phase, m.where) == ("backward", "unembedding"))
    tokens, hidden, vocabulary = 16384, 1024, 151936
    handed = tokens * (8 + 3 * 4)  # labels; normalisers, log-probabilities, entropies
    pieces = (2 + 5 * 4) * tokens * 2048 + 2 * hidden * (tokens + vocabulary)
    assert back.parts()["logits"] == pytest.approx(pieces + handed, rel=0.001)
    weights = found.peak.parts()["weights"]
    assert weights == pytest.approx(4 * 596_049_920, rel=0.001)  # the frozen base in float32
    elsewhere = running("Qwen/Qwen3-0.6B", {**options, "trainer": "torchtitan", "method": "lora"})
    assert elsewhere.setup.sharding == "none"  # no other profile shards on one GPU
    fewest = fewest_gpus(running("Qwen/Qwen3-0.6B", {**options, "method": "lora"}), 80 * 10**9)
    assert fewest is not None and (fewest.gpus, fewest.sharding) == (1, "fsdp")


def test_mixed_precision_of_fsdp_copies_nothing_for_an_adapter() -> None:
    """Pairs are gathered in 16 bits like the rest, so that no input of theirs is copied to float32; with a base held
    in 16 bits and a float32 adapter they are."""
    options = {
        "method": "lora",
        "gpus": 2,
        "sharding": "fsdp",
        "batch": 2,
        "seq_len": 4096,
        "trainer": "prime-rl",
    }
    wide = running(LLAMA, {**options, "precision": "bf16", "adapter_dtype": "float32"}).memory()
    mixed = running(LLAMA, options).memory()
    held = [m.peak.parts()["activations"] for m in (wide, mixed)]
    assert held[0] > 1.3 * held[1]


def test_a_model_made_outside_zero_init_keeps_what_is_gathered() -> None:
    """Its linear layers are torch's, whose way back refers to the gathered weights: 16 bits of all of them but the
    embedding, where nothing is run again."""

    def gathered(**options: Any) -> float:
        asked = {"method": "full", "trainer": "hf-trainer-2024", "sharding": "zero3", "gpus": 8, "batch": 8}
        items = running(LLAMA, {**asked, "seq_len": 2048, **options}).memory().peak.items
        return sum(item.bytes for item in items if item.name == "gathered units")

    assert gathered(placing="whole") == pytest.approx(2 * (PARAMS - 4096 * 128256), rel=1e-3)
    assert gathered(placing="whole", checkpointing="layer") == gathered(checkpointing="layer") < 3e9


def test_segments_are_expandable_where_the_allocator_reads_that_they_are() -> None:
    names = {"unsloth": True, "unsloth-2025-11": False, "unsloth-2025": True, "unsloth-2024": True}
    names["unsloth-2025-09"] = True
    for name, expands in names.items():
        setup = running(LLAMA, {"method": "qlora", "trainer": name, "lengths_vary": True}).setup
        assert setup.expandable_segments is expands, name


def test_adam_is_fused_by_itself_on_torch_2_8() -> None:
    kernels = [
        running(LLAMA, {"trainer": name}).setup.optimizer_kernel for name in ("trl-0.21", "trl-0.21-fused")
    ]
    assert kernels == ["foreach", "fused"]


@pytest.mark.parametrize(
    ("trainer", "loss", "reference"),
    [
        ("trl-0.15", "by-sequence", "base"),  # of 0.14 and 0.15, whose beta is 0.04
        ("trl-0.21", "by-sequence", "none"),
        ("ms-swift", "by-sequence", "base"),
        ("ms-swift-3.2", "by-sequence", "base"),
        ("axolotl", "by-sequence-in-place", "none"),
        ("axolotl-lora-kernels", "by-sequence-in-place", "none"),
        ("hf-trainer", "tiled", "none"),  # who names no trainer of completions gets the newest TRL's
    ],
)
def test_completions_are_scored_as_the_trainers_own_code_does(
    trainer: str, loss: str, reference: str
) -> None:
    setup = running(LLAMA, {"objective": "grpo", "method": "lora", "trainer": trainer}).setup
    assert (setup.loss, setup.reference) == (loss, reference)


def test_pairs_of_ms_swift_up_to_3_4_have_the_log_softmax_of_all_logits() -> None:
    asked = {"objective": "dpo", "method": "lora", "seq_len": 1024, "batch": 1}
    found = {n: running(LLAMA, {**asked, "trainer": n}).memory() for n in ("ms-swift-3.2", "ms-swift-3")}
    assert [m.setup.loss for m in found.values()] == ["full", "by-sequence-unlogged"]
    older, newer = (m.peak.parts()["logits"] for m in found.values())
    assert older > newer + 4 * 1024 * 128256


def test_axolotl_runs_pairs_in_functions_of_its_own() -> None:
    """By hand, of Llama 3.1 8B in bytes a token and layer: two float32 copies for norms and what these make, queries,
    keys, values, what attention makes with its float32 sums, and the MLP's gate and up; nothing of a pair's."""
    options = {
        "method": "lora",
        "rank": 16,
        "layers": "all-linear",
        "seq_len": 2048,
        "attention_kernel": "flash",
    }
    options |= {"checkpointing": "none", "loss": "chunked", "trainer": "axolotl"}
    found = running(LLAMA, options).memory()
    hidden, keys, inner = 4096, 1024, 14336
    kept = 2 * (4 + 2) * hidden + 2 * (2 * hidden + 2 * keys) + 4 * 32 + 2 * 2 * inner
    forward = next(m for m in found.moments if m.phase == "forward")
    assert found.setup.kernels == "pairs"
    assert forward.parts()["activations"] == pytest.approx(32 * 2048 * kept, rel=0.02)


@pytest.mark.parametrize(
    ("trainer", "asked", "kernels"),
    [
        ("axolotl", {}, "pairs"),
        ("axolotl", {"objective": "dpo"}, "transformers"),
        ("axolotl", {"objective": "grpo"}, "transformers"),
        ("axolotl", {"method": "full"}, "transformers"),
        ("axolotl-0.12", {"method": "qlora"}, "pairs"),
        ("axolotl-0.13", {"method": "qlora"}, "pairs"),
        ("axolotl-0.9", {}, "transformers"),
        ("axolotl-lora-kernels", {}, "unsloth"),
    ],
)
def test_when_axolotl_does(trainer: str, asked: dict[str, Any], kernels: str) -> None:
    assert running(LLAMA, {"method": "lora", "trainer": trainer, **asked}).setup.kernels == kernels


def test_with_dropout_or_in_8_bits_pairs_run_as_pefts() -> None:
    options = {
        "rank": 16,
        "layers": "all-linear",
        "seq_len": 2048,
        "checkpointing": "none",
        "trainer": "axolotl",
    }
    for asked in ({"method": "lora", "lora_dropout": 0.05}, {"method": "qlora", "quantize": "int8"}):
        held = [
            running(LLAMA, {**options, **asked, "kernels": kernels}).memory().allocated_bytes
            for kernels in ("pairs", "transformers")
        ]
        assert held[0] == held[1]
        setup = running(LLAMA, {**options, **asked}).setup
        assert setup.kernels == "pairs" and style_of(setup) == STYLES["transformers"]


def test_how_much_of_its_logits_unsloth_holds_by_version() -> None:
    """2 bytes a logit of a chunk: none, 2 GiB of float32 ones at most, all that free memory takes, and 4 GiB. Of
    September 2026 they are counted at 16 bytes: 32,768 tokens of 128,256 entries are 15.7 times 4 GiB, so that
    there are 16 chunks, the next multiple of four. Since, 512 rows of float32 logits."""
    options = {"method": "qlora", "rank": 8, "targets": "q_proj", "seq_len": 32768}
    chunks = 4 * -(-32768 * 128256 * 16 // (4 * 2**32))
    tokens = {
        "unsloth-2025": 1, "unsloth-2025-09": 4096, "unsloth-2025-11": 32768, "unsloth-2026-08": 8192,
        "unsloth-2026-09": 32768 // chunks, "unsloth": 2 * 512,
    }  # fmt: skip
    for name, rows in tokens.items():
        memory = running(LLAMA, {**options, "trainer": name}).memory()
        loss = next(m for m in memory.moments if m.phase == "loss")
        hidden = 2 * 32768 * 4096  # the gradient of the hidden states
        assert loss.parts()["logits"] == pytest.approx(2 * rows * 128256 + hidden, rel=0.04), name


def test_unsloth_makes_all_logits_of_pairs_up_to_october_2026() -> None:
    for name, loss in {
        "unsloth": "tiled",
        "unsloth-2026-09": "by-sequence-unlogged",
        "unsloth-2025": "by-sequence-unlogged",
        "unsloth-2024": "full",
    }.items():
        asked = {"method": "qlora", "objective": "dpo", "trainer": name}
        assert running(LLAMA, asked).setup.loss == loss


def test_that_trl_loads_a_named_model_in_float32_is_said() -> None:
    """create_model_from_path has dtype float32 from 0.27 on, auto in 0.26; before, transformers 4 decided."""
    told = {n: "--precision autocast" in str(find(n)) for n in ("trl", "trl-1.6", "trl-0.26", "trl-0.9")}
    assert told == {"trl": True, "trl-1.6": True, "trl-0.26": False, "trl-0.9": True}
