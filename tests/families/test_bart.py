"""BART's kind, whole and as the decoder alone: random configurations, matrix by matrix and to the last FLOP."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.architecture.build import build, build_natively
from planner.architecture.families.bart import STYLES
from planner.errors import UnsupportedArchitectureError

from ..family_checks import check_flops, check_inventory
from ..strategies import examples

ALONE = {
    "bart": "BartForCausalLM", "mvp": "MvpForCausalLM", "plbart": "PLBartForCausalLM", "mbart": "MBartForCausalLM",
    "marian": "MarianForCausalLM", "pegasus": "PegasusForCausalLM", "blenderbot": "BlenderbotForCausalLM",
    "blenderbot-small": "BlenderbotSmallForCausalLM", "bigbird_pegasus": "BigBirdPegasusForCausalLM",
    "trocr": "TrOCRForCausalLM",
}  # fmt: skip
WHOLE = {
    "bart": "BartForConditionalGeneration", "mvp": "MvpForConditionalGeneration",
    "plbart": "PLBartForConditionalGeneration", "mbart": "MBartForConditionalGeneration", "marian": "MarianMTModel",
    "pegasus": "PegasusForConditionalGeneration", "blenderbot": "BlenderbotForConditionalGeneration",
    "blenderbot-small": "BlenderbotSmallForConditionalGeneration", "m2m_100": "M2M100ForConditionalGeneration",
}  # fmt: skip
EXTRA: dict[str, dict[str, list[Any]]] = {
    "trocr": {"use_learned_position_embeddings": [True, False], "layernorm_embedding": [True, False],
              "cross_attention_hidden_size": [None, 10]},
    "bigbird_pegasus": {"use_bias": [True, False]},
}  # fmt: skip
TARGETS = [
    "all-linear",
    ["q_proj", "v_proj"],
    ["fc2"],
    ["encoder_attn.k_proj", "out_proj"],
    ["k_proj", "fc1"],
]
CASES = [*ALONE.items(), *WHOLE.items()]


@st.composite
def configs(draw: st.DrawFn, model_type: str, architecture: str) -> dict[str, Any]:
    """A small config whose encoder and decoder differ."""
    encoder, decoder = draw(st.sampled_from([(1, 2), (2, 2), (2, 1)]))
    config = {
        "model_type": model_type, "architectures": [architecture], "d_model": 4 * draw(st.integers(2, 9)),
        "encoder_layers": draw(st.integers(1, 2)), "decoder_layers": draw(st.integers(1, 3)),
        "encoder_attention_heads": encoder, "decoder_attention_heads": decoder,
        "encoder_ffn_dim": draw(st.integers(9, 50)), "decoder_ffn_dim": draw(st.integers(9, 50)),
        "vocab_size": draw(st.integers(20, 90)), "max_position_embeddings": 16, "max_target_positions": 16,
        "max_source_positions": 8, "dropout": draw(st.sampled_from([0.0, 0.1])), "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0, "tie_word_embeddings": draw(st.booleans()), "decoder_start_token_id": 2,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "use_cache": False,
    }  # fmt: skip
    for name, values in EXTRA.get(model_type, {}).items():
        config[name] = draw(st.sampled_from(values))
    return config


def test_every_style_is_covered() -> None:
    assert {*ALONE, *WHOLE} == set(STYLES)


@pytest.mark.parametrize(("model_type", "architecture"), CASES)
def test_inventory(model_type: str, architecture: str) -> None:
    @settings(max_examples=4)
    @given(configs(model_type, architecture))
    def check(config: dict[str, Any]) -> None:
        check_inventory(config)

    check()


@pytest.mark.parametrize(("model_type", "architecture"), CASES)
def test_flops(model_type: str, architecture: str) -> None:
    @examples(3)
    @given(
        configs(model_type, architecture), st.integers(1, 3), st.integers(3, 9), st.sampled_from(TARGETS),
        st.booleans(),
    )  # fmt: skip
    def check(config: dict[str, Any], batch: int, seq_len: int, target: Any, checkpointing: bool) -> None:
        config.pop("num_mel_bins", None)
        check_flops(config, batch, seq_len, targets=[target], checkpointing=checkpointing)

    check()


BART = {"model_type": "bart", "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 20,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 9,
        "decoder_ffn_dim": 9}  # fmt: skip


def test_skipped_layers_leave_no_fixed_count() -> None:
    assert build(BART).flops_gap is None
    assert "layerdrop" in (build({**BART, "encoder_layerdrop": 0.1}).flops_gap or "")
    # NLLB's class skips layers unless its config says otherwise.
    assert "layerdrop" in (build({**BART, "model_type": "m2m_100"}).flops_gap or "")


@pytest.mark.parametrize(
    "config",
    [
        {**BART, "architectures": ["BartForSequenceClassification"]},
        {
            **BART,
            "model_type": "bigbird_pegasus",
            "architectures": ["BigBirdPegasusForConditionalGeneration"],
        },
        {**BART, "model_type": "marian", "decoder_vocab_size": 30},
        {**BART, "model_type": "mvp", "use_prompt": True},
    ],
)
def test_what_is_laid_out_otherwise_has_no_builder(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="no builder"):
        build_natively(config)
