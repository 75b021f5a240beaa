"""Encoder-decoders and pairs: random configurations, matrix by matrix and to the last FLOP."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.architecture.build import build
from planner.errors import ConfigError
from planner.flops import Step, step_macs

from ..family_checks import check_flops, check_inventory
from ..strategies import examples

CLASSES = {
    "t5": ("T5ForConditionalGeneration", "T5EncoderModel"),
    "mt5": ("MT5ForConditionalGeneration", "MT5Model"),
    "whisper": ("WhisperForConditionalGeneration", "WhisperModel"),
}
TARGETS: dict[str, list[Any]] = {
    "t5": [
        "all-linear",
        ["q", "v"],
        ["o"],
        ["wo"],
        ["EncDecAttention.k"],
        ["EncDecAttention.q"],
        ["lm_head"],
    ],
    "mt5": ["all-linear", ["SelfAttention.q"], ["decoder.block.0.layer.1.EncDecAttention.v"], ["wi_0"]],
    "whisper": [
        "all-linear",
        ["q_proj", "v_proj"],
        ["encoder_attn.k_proj"],
        ["fc2"],
        ["decoder.layers.0.fc1"],
    ],
}
DROPOUT = st.sampled_from([0.0, 0.1])


@st.composite
def t5s(draw: st.DrawFn, model_type: str, architecture: str) -> dict[str, Any]:
    """A small T5, symmetric or not, whose heads need not add up to its width."""
    config = {
        "model_type": model_type, "architectures": [architecture], "d_model": draw(st.integers(9, 40)),
        "d_kv": draw(st.integers(3, 9)), "d_ff": draw(st.integers(9, 70)), "num_heads": draw(st.integers(1, 3)),
        "num_layers": draw(st.integers(1, 3)), "vocab_size": draw(st.integers(20, 90)),
        "feed_forward_proj": draw(st.sampled_from(["relu", "gated-gelu", "gated-silu"])),
        "relative_attention_num_buckets": draw(st.integers(8, 12)), "dropout_rate": draw(DROPOUT),
        "decoder_start_token_id": 0, "pad_token_id": 0, "tie_word_embeddings": draw(st.booleans()),
    }  # fmt: skip
    if draw(st.booleans()):
        config["num_decoder_layers"] = draw(st.integers(1, 3))
    return config


@st.composite
def whispers(draw: st.DrawFn, model_type: str, architecture: str) -> dict[str, Any]:
    """A small Whisper with different encoder and decoder."""
    encoder, decoder = draw(st.sampled_from([(1, 2), (2, 2), (2, 1)]))
    return {
        "model_type": model_type, "architectures": [architecture], "d_model": 4 * draw(st.integers(2, 9)),
        "encoder_layers": draw(st.integers(1, 2)), "decoder_layers": draw(st.integers(1, 3)),
        "encoder_attention_heads": encoder, "decoder_attention_heads": decoder,
        "encoder_ffn_dim": draw(st.integers(9, 50)), "decoder_ffn_dim": draw(st.integers(9, 50)),
        "vocab_size": draw(st.integers(20, 90)), "num_mel_bins": draw(st.integers(3, 9)),
        "max_source_positions": draw(st.integers(5, 12)), "max_target_positions": 16, "dropout": draw(DROPOUT),
        "tie_word_embeddings": draw(st.booleans()), "decoder_start_token_id": 1, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "suppress_tokens": None, "begin_suppress_tokens": None,
    }  # fmt: skip


def configs(model_type: str, which: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    """Random small configs of the type, with its head (0) or under its other class (1)."""
    strategy = {"t5": t5s, "mt5": t5s, "whisper": whispers}
    return strategy[model_type](model_type, CLASSES[model_type][which])


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("model_type", sorted(CLASSES))
def test_inventory(model_type: str, which: int) -> None:
    @given(configs(model_type, which))
    def check(config: dict[str, Any]) -> None:
        check_inventory(config)
        assert (build(config).flops_gap is None) == (which == 0)

    check()


@pytest.mark.parametrize("model_type", sorted(CLASSES))
def test_flops(model_type: str) -> None:
    @examples(4)
    @given(
        configs(model_type), st.integers(1, 3), st.integers(3, 9), st.sampled_from(TARGETS[model_type]),
        st.booleans(),
    )  # fmt: skip
    def check(config: dict[str, Any], batch: int, seq_len: int, target: Any, checkpointing: bool) -> None:
        check_flops(config, batch, seq_len, targets=[target], checkpointing=checkpointing)

    check()


@st.composite
def clips(draw: st.DrawFn) -> dict[str, Any]:
    """A small CLIP; some fields of its towers left to the class."""
    towers = [
        {"hidden_size": 4 * draw(st.integers(1, 9)), "intermediate_size": draw(st.integers(9, 50)),
         "num_hidden_layers": draw(st.integers(1, 3)), "num_attention_heads": draw(st.sampled_from([1, 2, 4]))}
        for _ in range(2)
    ]  # fmt: skip
    towers[0]["vocab_size"] = draw(st.integers(20, 90))
    towers[1].update(image_size=draw(st.integers(8, 20)), patch_size=draw(st.integers(2, 5)))
    return {
        "model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": draw(st.integers(3, 9)),
        "text_config": towers[0], "vision_config": towers[1],
    }  # fmt: skip


@given(clips())
def test_clip_is_an_inventory_without_a_step(config: dict[str, Any]) -> None:
    check_inventory(config)
    assert "contrastive" in (build(config).flops_gap or "")


T5 = {
    "model_type": "t5",
    "d_model": 8,
    "d_kv": 4,
    "d_ff": 9,
    "num_heads": 2,
    "num_layers": 1,
    "vocab_size": 20,
}


def test_t5_with_a_head_of_its_own_is_counted_as_transformers_ties_it() -> None:
    tied, untied = build(T5), build({**T5, "tie_word_embeddings": False})
    assert tied.params == untied.params
    assert tied.notes == ()
    assert f"{8 * 20} parameters" in untied.notes[0]


def test_the_memory_of_a_decoder_is_as_long_as_its_encoder() -> None:
    arch = build({
        "model_type": "whisper", "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 20,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 9, "decoder_ffn_dim": 9,
        "num_mel_bins": 3, "max_source_positions": 7,
    })  # fmt: skip
    longer, short = (step_macs(arch, Step(1, n), None).total for n in (6, 5))
    cross = 2 * 7 * 8 * 3  # scores and values over 7 frames, forward and twice backward
    own = 2 * (36 - 25) * 8 * 3
    position = 3 * (4 * 64 + 2 * 64 + 2 * 8 * 9 + 8 * 20)
    assert longer - short == cross + own + position


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({**T5, "feed_forward_proj": "gated-gelu-new"}, "feed_forward_proj"),
        ({**T5, "d_kv": None}, "d_kv"),
    ],
)
def test_a_config_that_no_class_could_run_is_refused(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        build(config)
