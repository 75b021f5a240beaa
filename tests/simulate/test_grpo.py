"""GRPO: TRL's own loss on the CPU beside its simulation and estimate, and FLOPs beside torch's counter."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from planner import adapter, estimate, flops
from planner.architecture.build import build
from planner.choices import Loss, Precision
from planner.errors import InputError
from planner.memory import estimate_memory
from planner.objective import generation, step_of
from planner.running import running
from planner.setup import Setup
from planner.simulate.core import simulate_step
from tests.simulate.test_preferences import folding
from tools.measured_memory import LORA, STEP, allocated, checkpointed, real, simulated
from tools.tiny_models import CONFIGS

LLAMA = CONFIGS["llama"]
GRPO = replace(
    STEP, objective="grpo", loss="tiled", reference="none", seq_len=96, prompt_tokens=32, micro_batch=4
)
__all__ = ["folding"]


def trainer(model: Any) -> Any:
    """What TRL's loss asks of its trainer, with its defaults (beta 0, loss dapo)."""
    from trl import GRPOConfig, GRPOTrainer

    found = SimpleNamespace(
        model=model, args=GRPOConfig(output_dir="out", bf16=False, report_to=[]),
        aux_loss_enabled=False, beta=0.0, top_entropy_quantile=1.0,
        importance_sampling_level="token", epsilon_low=0.2, epsilon_high=0.2, loss_type="dapo", use_vllm=False,
        off_policy_mask_threshold=None, vllm_importance_sampling_correction=False, tools=None,
        _entropy_bonus_enabled=False,
        current_gradient_accumulation_steps=1, model_wrapped=model, _metrics={"train": defaultdict(list)},
        accelerator=SimpleNamespace(
            device=torch.device("cpu"), gather=lambda x: x, reduce=lambda x, **_: x, num_processes=1,
            is_main_process=False,
            autocast=lambda: torch.autocast("cpu", enabled=False),
        ),
    )  # fmt: skip
    found._get_per_token_logps_and_entropies = lambda *args, **kwargs: (
        GRPOTrainer._get_per_token_logps_and_entropies(found, *args, **kwargs)
    )
    found.get_off_policy_mask = GRPOTrainer.get_off_policy_mask
    return found


def measured(setup: Setup, utils: Any) -> tuple[int, int]:
    """Bytes that TRL's GRPO leaves for the backward pass, and the most that a step holds beyond its inputs."""
    from trl import GRPOTrainer

    made = real(LLAMA, LORA, setup)
    model = made.model.train()
    utils.add_fused_lm_head(
        model.get_base_model() if setup.method != "full" else model, outputs=("log_probs", "entropy")
    )
    sizes = {"prompt": setup.prompt_tokens, "completion": setup.seq_len - setup.prompt_tokens}
    batch: dict[str, Any] = {"num_items_in_batch": torch.tensor(1.0)}
    for name, size in sizes.items():
        batch[f"{name}_ids"] = torch.ones(setup.micro_batch, size, dtype=torch.long)
        batch[f"{name}_mask"] = torch.ones(setup.micro_batch, size, dtype=torch.long)
    batch["advantages"] = torch.zeros(setup.micro_batch)
    checkpointed(made, setup)
    own, losses = trainer(model), []
    forward, held = allocated(lambda: losses.append(GRPOTrainer._compute_loss(own, model, batch)))
    backward, _ = allocated(lambda: losses.pop().backward())
    return held, max(forward, held + backward)


SETUPS = {
    "lora": GRPO,
    "checkpointed": replace(GRPO, checkpointing="layer"),
    "full": replace(GRPO, method="full"),
    "short-prompt": replace(GRPO, prompt_tokens=8),
}


@pytest.mark.parametrize("name", sorted(SETUPS))
def test_trls_own_loss_takes_what_was_simulated(name: str, folding: Any) -> None:
    held, top = measured(SETUPS[name], folding)
    like_held, like_top = simulated(LLAMA, SETUPS[name])
    assert like_held == pytest.approx(held, rel=0.01)
    assert like_top == pytest.approx(top, rel=0.01)


@pytest.mark.parametrize("name", sorted(SETUPS))
def test_an_estimate_says_what_a_simulation_says(name: str) -> None:
    setup = replace(SETUPS[name], precision="bf16", attention_kernel="sdpa", generation="server")
    pairs = None if setup.method == "full" else adapter.adapt(build(LLAMA), LORA)
    found = estimate_memory(build(LLAMA), setup, pairs)
    ran = simulate_step(LLAMA, None if pairs is None else LORA, setup, block_bytes=1)
    fixed = 3 * 8 * setup.tokens + 2 * 8_519_680
    assert "generation" not in {moment.phase for moment in found.moments}
    assert found.allocated_bytes - fixed == pytest.approx(ran.peak.bytes, rel=0.01)


def measured_of_all(setup: Setup) -> tuple[int, int]:
    """The same of what TRL did before 1.15: all logits of completions, held by the model's output and divided by the
    temperature, folded by TRL's own functions as they still run where no kernel of its can."""
    utils = pytest.importorskip("trl.trainer.utils")
    made = real(LLAMA, LORA, setup)
    model, scored = made.model.train(), setup.seq_len - setup.prompt_tokens
    checkpointed(made, setup)
    ids, losses = torch.ones(setup.micro_batch, setup.seq_len, dtype=torch.long), []

    def forward() -> Any:
        outputs = model(input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=scored + 1)
        logits = outputs.logits[:, :-1, :][:, -scored:, :] / 0.9
        found = utils.selective_log_softmax(logits, ids[:, -scored:])
        with torch.no_grad():
            utils.entropy_from_logits(logits)
        return found.sum()

    before, held = allocated(lambda: losses.append(forward()))
    backward, _ = allocated(lambda: losses.pop().backward())
    return held, max(before, held + backward)


OF_ALL = {
    "lora": replace(GRPO, loss="by-sequence"),
    "one sequence": replace(GRPO, loss="by-sequence", micro_batch=1, seq_len=300, prompt_tokens=12),
    "checkpointed": replace(GRPO, loss="by-sequence", checkpointing="layer"),
    "full": replace(GRPO, loss="by-sequence", method="full"),
}


@pytest.mark.parametrize("name", sorted(OF_ALL))
def test_all_logits_take_what_trls_functions_take_of_them(name: str) -> None:
    """Estimated, simulated and measured, in float32 on the CPU."""
    setup = OF_ALL[name]
    held, top = measured_of_all(setup)
    assert simulated(LLAMA, setup) == (pytest.approx(held, rel=0.01), pytest.approx(top, rel=0.01))
    pairs = None if setup.method == "full" else adapter.adapt(build(LLAMA), LORA)
    found = estimate_memory(build(LLAMA), replace(setup, generation="server"), pairs)
    ran = simulate_step(LLAMA, None if pairs is None else LORA, setup, block_bytes=1)
    assert found.allocated_bytes - 3 * 8 * setup.tokens - 2 * 8_519_680 == pytest.approx(
        ran.peak.bytes, rel=0.01
    )
    assert flops_of(setup) == ran.total_flops


def flops_of(setup: Setup) -> int:
    """FLOPs of the training step by the formulas."""
    pairs = None if setup.method == "full" else adapter.adapt(build(LLAMA), LORA)
    step = step_of(setup, pairs, setup.micro_batch)
    return flops.FLOPS_PER_MAC * flops.step_macs(build(LLAMA), step, pairs).total


@pytest.mark.parametrize("loss", ["by-sequence", "fused"])
@pytest.mark.parametrize("precision", ["bf16", "autocast"])
def test_all_logits_in_16_bits_and_under_autocast(loss: Loss, precision: Precision) -> None:
    setup = replace(GRPO, loss=loss, precision=precision, generation="server", attention_kernel="sdpa")
    found = estimate_memory(build(LLAMA), setup, adapter.adapt(build(LLAMA), LORA))
    ran = simulate_step(LLAMA, LORA, setup, block_bytes=1)
    assert found.allocated_bytes - 3 * 8 * setup.tokens - 2 * 8_519_680 == pytest.approx(
        ran.peak.bytes, rel=0.01
    )


def test_a_version_of_trl_brings_its_loss() -> None:
    for name, loss in (
        ("trl-0.21", "by-sequence"),
        ("trl-1.6", "by-sequence-in-place"),
        ("trl-1.14", "fused"),
        ("trl", "tiled"),
    ):
        made = running(LLAMA, {"objective": "grpo", "trainer": name, "batch": 4, "seq_len": 96})
        assert made.setup.loss == loss, name
    said = running(
        LLAMA, {"objective": "grpo", "trainer": "trl-1.6", "loss": "tiled", "batch": 4, "seq_len": 96}
    )
    assert said.setup.loss == "tiled"


def test_an_estimate_counts_every_pass_of_a_step() -> None:
    """Against the simulation, to the last FLOP: each tile of logits is made twice."""
    options: dict[str, Any] = {
        "layers": "all-linear", "rank": 8, "experts": "none", "seq_len": 96, "batch": 4, "prompt_tokens": 32,
        "group": 2, "objective": "grpo",
    }  # fmt: skip
    alone, compared = estimate(LLAMA, **options), estimate(LLAMA, **options, reference="base")
    served = estimate(LLAMA, **options, generation="server")
    assert alone.flops and compared.flops and served.flops and alone.grpo and compared.grpo and served.grpo
    ran = simulate_step(LLAMA, LORA, replace(GRPO, precision="bf16"), block_bytes=1)
    assert alone.grpo["flops"]["training"] == ran.total_flops
    for plan in (alone, compared):
        assert plan.flops is not None and plan.grpo is not None
        assert plan.flops.counted_lora == sum(plan.grpo["flops"].values())
    assert alone.grpo["flops"]["scoring"] == 0
    assert compared.grpo["flops"]["scoring"] < served.grpo["flops"]["scoring"]
    assert served.flops.counted_lora == served.grpo["flops"]["training"] + served.grpo["flops"]["scoring"]


def test_generation_holds_the_cache_of_all_completions() -> None:
    """Two layers of two heads of 16 for keys and values, in 16 bits; accumulation makes more completions at once."""
    setup = replace(GRPO, precision="bf16", accumulation=3)
    pairs = adapter.adapt(build(LLAMA), LORA)
    found = {each.phase: each for each in estimate_memory(build(LLAMA), setup, pairs).moments}["generation"]
    held = sum(item.bytes for item in found.items if "cache" in item.name)
    heads, layers = LLAMA["num_key_value_heads"], LLAMA["num_hidden_layers"]
    size = LLAMA.get("head_dim", LLAMA["hidden_size"] // LLAMA["num_attention_heads"])
    assert held == 3 * 4 * 96 * 2 * layers * heads * size * 2


@pytest.mark.parametrize(("number", "prompt", "made", "within"), [(4, 32, 64, 0.05), (8, 64, 20, 0.1)])
def test_generation_takes_what_is_estimated(number: int, prompt: int, made: int, within: float) -> None:
    """Of transformers' generate on the CPU: the cache, what attention copies of it, and the last token's logits;
    or, where completions are short, a layer over the prompts."""
    setup = replace(GRPO, micro_batch=number, seq_len=prompt + made, prompt_tokens=prompt)
    model = real(LLAMA, LORA, setup).model.eval()
    model.config.use_cache = True
    ids = torch.ones(number, prompt, dtype=torch.long)

    def once() -> None:
        with torch.no_grad():
            model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=made, min_new_tokens=made,
                do_sample=True, top_k=0, use_cache=True,
            )  # fmt: skip

    top, _ = allocated(once)
    moments = estimate_memory(build(LLAMA), setup, adapter.adapt(build(LLAMA), LORA)).moments
    found = next(moment for moment in moments if moment.phase == "generation")
    held = ("base weights", "adapter", "optimizer states", "tokens and workspaces")
    assert sum(item.bytes for item in found.items if item.name not in held) == pytest.approx(top, rel=within)


@pytest.mark.parametrize("prompt", [1, 20])
def test_generation_is_counted_as_torch_counts_it(prompt: int) -> None:
    """Of transformers' generate with PEFT's adapter; decoding counts what attention reads, a prompt every pair."""
    setup = replace(STEP, micro_batch=2)
    model = real(LLAMA, LORA, setup).model.eval()
    model.config.use_cache = True
    made = 9
    ids = torch.ones(2, prompt, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=made, min_new_tokens=made,
            do_sample=False, use_cache=True,
        )  # fmt: skip
    arch = build(LLAMA)
    pairs = adapter.adapt(arch, LORA)
    sized = Setup(
        objective="grpo", loss="tiled", reference="none", seq_len=prompt + made, prompt_tokens=prompt
    )
    assert 2 * flops.FLOPS_PER_MAC * generation(arch, sized, pairs).total == counter.get_total_flops()


EXCLUDED: tuple[tuple[dict[str, Any], str], ...] = (
    (
        {"objective": "grpo", "loss": "shifted"},
        "by-sequence, by-sequence-in-place, scaled-fused, scaled-in-place-fused, widened-fused or sliced-fused with",
    ),
    ({"objective": "grpo", "loss": "tiled", "reference": "precomputed"}, "none or base"),
    ({"objective": "grpo", "loss": "tiled", "prompt_tokens": 2048}, "fewer than the 2048 tokens"),
    ({"objective": "grpo", "loss": "tiled", "packing": "packed"}, "full or padded"),
    ({"prompt_tokens": 5}, "it is for grpo"),
    ({"generation": "server"}, "grpo beside it"),
)


def test_what_grpo_excludes_is_refused() -> None:
    for fields, said in EXCLUDED:
        with pytest.raises(InputError, match=said):
            Setup(**fields)
    options: dict[str, Any] = {"objective": "grpo", "prompt_tokens": 32, "seq_len": 96}
    others: tuple[tuple[dict[str, Any], str], ...] = (
        ({"batch": 12}, "nearest is 16"),
        ({"tokens": 9999}, "--episodes as its data"),
    )
    for more, said in others:
        with pytest.raises(InputError, match=said):
            estimate(LLAMA, **options, **more)
