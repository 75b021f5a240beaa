"""Dense decoders: random configurations, matrix by matrix and to the last FLOP."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.architecture.families.dense import STYLES

from ..family_checks import check_flops, check_inventory
from ..strategies import decoder_config, examples
from .random_configs import CONFIGS

CLASSES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "ministral": "MinistralForCausalLM",
    "ministral3": "Ministral3ForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
    "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM", "granite": "GraniteForCausalLM", "olmo": "OlmoForCausalLM",
    "olmo2": "Olmo2ForCausalLM", "olmo3": "Olmo3ForCausalLM", "smollm3": "SmolLM3ForCausalLM",
    "seed_oss": "SeedOssForCausalLM", "exaone4": "Exaone4ForCausalLM",
    "hunyuan_v1_dense": "HunYuanDenseV1ForCausalLM", "glm": "GlmForCausalLM", "glm4": "Glm4ForCausalLM",
    "ernie4_5": "Ernie4_5ForCausalLM", "arcee": "ArceeForCausalLM", "apertus": "ApertusForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM", "cohere": "CohereForCausalLM", "cohere2": "Cohere2ForCausalLM",
    "stablelm": "StableLmForCausalLM", "cwm": "CwmForCausalLM", "jais2": "Jais2ForCausalLM",
    "hyperclovax": "HyperCLOVAXForCausalLM", "iquestcoder": "LlamaForCausalLM", "nanochat": "NanoChatForCausalLM",
    "nemotron": "NemotronForCausalLM", "bitnet": "BitNetForCausalLM", "vaultgemma": "VaultGemmaForCausalLM",
    "granite_swa": "GraniteSWAForCausalLM", "doge": "DogeForCausalLM",
    "cohere_compass_text": "CohereCompassForCausalLM",
}  # fmt: skip
NO_HEAD_DIM = {"phi3", "granite", "olmo", "olmo2", "olmo3", "smollm3", "apertus", "starcoder2", "cohere",
               "cohere2", "stablelm", "exaone4", "arcee", "nanochat", "bitnet", "jais2", "granite_swa", "doge",
               "cohere_compass_text"}  # fmt: skip


def configs(model_type: str) -> st.SearchStrategy[dict[str, Any]]:
    """Random small configs of a family, with its own switches."""
    style = STYLES[model_type]
    rules = (style.qkv_bias, style.o_bias, style.mlp_bias, style.parallel, style.post_norms_field)
    switches = {str(rule).rstrip("!") for rule in rules} - {"True", "False", ""}
    if style.qk_norm_field:
        switches.add(style.qk_norm_field)
    # A quarter of a small head's width is odd, which no rotation can turn.
    fixed: dict[str, Any] = {"partial_rotary_factor": 1.0} if model_type == "stablelm" else {}
    if model_type == "cohere_compass_text":
        kinds = ("full_attention", "sliding_attention")
        fixed["rope_parameters"] = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in kinds}
    return decoder_config(
        model_type,
        CLASSES[model_type],
        head_dim=model_type not in NO_HEAD_DIM,
        switches=sorted(switches),
        **fixed,
    )


def test_every_style_is_covered() -> None:
    assert {*CLASSES, *CONFIGS} >= set(STYLES) >= set(CLASSES)


@pytest.mark.parametrize("model_type", sorted(CLASSES))
def test_inventory(model_type: str) -> None:
    @given(configs(model_type))
    def check(config: dict[str, Any]) -> None:
        check_inventory(config)

    check()


@pytest.mark.parametrize("model_type", sorted(CLASSES))
def test_flops(model_type: str) -> None:
    fused = STYLES[model_type].fused_qkv
    attention = [fused] if fused else ["q_proj", "v_proj"]
    targets = ["all-linear", attention, ["o_proj"], ["lm_head"], ["embed_tokens", *attention]]

    @examples(3)
    @given(configs(model_type), st.integers(1, 3), st.integers(3, 9), st.sampled_from(targets), st.booleans())
    def check(config: dict[str, Any], batch: int, seq_len: int, target: Any, checkpointing: bool) -> None:
        check_flops(config, batch, seq_len, targets=[target], checkpointing=checkpointing)

    check()


@pytest.mark.parametrize("model_type", ["llama", "phi3", "gemma2"])
def test_dora(model_type: str) -> None:
    targets = ["all-linear", ["o_proj"], ["lm_head"], ["embed_tokens", "down_proj"]]

    @given(configs(model_type), st.sampled_from(targets), st.booleans())
    def check(config: dict[str, Any], target: Any, checkpointing: bool) -> None:
        check_flops(config, 2, 5, targets=[target], checkpointing=checkpointing, variant="dora", full=False)

    check()
