"""BERT's kind: random configurations, matrix by matrix and to the last FLOP."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.architecture.build import build, build_natively
from planner.architecture.families.bert import STYLES
from planner.errors import ConfigError, UnsupportedArchitectureError

from ..family_checks import check_flops, check_inventory
from ..strategies import examples

CLASSES = {
    "bert": ("BertForMaskedLM", "BertLMHeadModel", "BertModel", "BertForSequenceClassification"),
    "roberta": ("RobertaForMaskedLM", "RobertaForCausalLM", "RobertaModel", "RobertaForSequenceClassification"),
    "xlm-roberta": (
        "XLMRobertaForMaskedLM", "XLMRobertaForCausalLM", "XLMRobertaModel", "XLMRobertaForSequenceClassification"
    ),
    "camembert": (
        "CamembertForMaskedLM", "CamembertForCausalLM", "CamembertModel", "CamembertForSequenceClassification"
    ),
    "data2vec-text": ("Data2VecTextForMaskedLM", "Data2VecTextForCausalLM", "Data2VecTextModel"),
    "ernie": ("ErnieForMaskedLM", "ErnieForCausalLM", "ErnieModel"),
    "layoutlm": ("LayoutLMForMaskedLM", "LayoutLMModel"),
    "roc_bert": ("RoCBertForMaskedLM", "RoCBertForCausalLM", "RoCBertModel"),
    "roberta-prelayernorm": (
        "RobertaPreLayerNormForMaskedLM", "RobertaPreLayerNormForCausalLM", "RobertaPreLayerNormModel"
    ),
    "xlm-roberta-xl": ("XLMRobertaXLForMaskedLM", "XLMRobertaXLForCausalLM", "XLMRobertaXLModel"),
    "megatron-bert": ("MegatronBertForMaskedLM", "MegatronBertForCausalLM", "MegatronBertModel"),
    "bert-generation": ("BertGenerationDecoder",),
    "electra": ("ElectraForMaskedLM", "ElectraForCausalLM", "ElectraForSequenceClassification"),
    "rembert": ("RemBertForMaskedLM", "RemBertForCausalLM", "RemBertModel"),
    "mpnet": ("MPNetForMaskedLM", "MPNetModel"),
    "distilbert": ("DistilBertForMaskedLM", "DistilBertForSequenceClassification"),
    "roformer": ("RoFormerForMaskedLM", "RoFormerForCausalLM"),
}  # fmt: skip
SPELLING = {"distilbert": ("dim", "n_layers", "n_heads", "hidden_dim", "dropout")}
OFTEN = ("bert", "roberta", "xlm-roberta")
HEADED = ("ForMaskedLM", "ForCausalLM", "LMHeadModel", "Decoder", "ForSequenceClassification")
LOSS = [(t, name) for t, names in CLASSES.items() for name in names if name.endswith(HEADED)]
# Classes that cannot recompute activations.
NO_CHECKPOINTS = {"mpnet"}


def test_every_style_is_covered() -> None:
    assert set(CLASSES) == set(STYLES)


@st.composite
def configs(draw: st.DrawFn, model_type: str, architecture: str) -> dict[str, Any]:
    """A small model of the type."""
    n_heads = draw(st.integers(1, 3))
    hidden, layers, heads, inner, dropout = SPELLING.get(
        model_type,
        (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "hidden_dropout_prob",
        ),
    )
    width = n_heads * (2 * draw(st.integers(2, 5)) if model_type == "roformer" else draw(st.integers(4, 9)))
    config = {
        "model_type": model_type, "architectures": [architecture], hidden: width, inner: draw(st.integers(9, 70)),
        layers: draw(st.integers(1, 3)), heads: n_heads, "vocab_size": draw(st.integers(20, 90)),
        "max_position_embeddings": 40, "type_vocab_size": draw(st.integers(1, 2)),
        dropout: draw(st.sampled_from([0.0, 0.1])), "tie_word_embeddings": draw(st.booleans()), "pad_token_id": 0,
    }  # fmt: skip
    if architecture.endswith(("ForCausalLM", "LMHeadModel", "Decoder")):
        config["is_decoder"] = draw(st.booleans())
    if model_type == "roformer":
        config["rotary_value"] = draw(st.booleans())
    if model_type == "ernie":
        config["use_task_id"] = draw(st.booleans())
    if model_type == "layoutlm":
        config["max_2d_position_embeddings"] = draw(st.integers(1, 30))
    if model_type == "roc_bert":
        names = ("pronunciation_embed_dim", "pronunciation_vocab_size", "shape_embed_dim", "shape_vocab_size")
        config |= {name: draw(st.integers(3, 20)) for name in names}
        switches = ("enable_pronunciation", "enable_shape", "concat_input")
        config |= {name: draw(st.booleans()) for name in switches}
    if model_type == "rembert":
        config |= {"input_embedding_size": draw(st.integers(3, 9)), "output_embedding_size": 7}
    if model_type in ("electra", "roformer"):
        config["embedding_size"] = draw(st.sampled_from([width, 6]))
    return config


def targets(model_type: str) -> list[Any]:
    """Target lists to adapt."""
    q, k, v, out = (name.rsplit(".", 1)[-1] for name in STYLES[model_type].qkv)
    decoder = STYLES[model_type].head.decoder.rsplit(".", 1)[-1]
    first, last = (name.rsplit(".", 1)[-1] for name in STYLES[model_type].mlp)
    return ["all-linear", [q, v], [k], [out], [last, first], [decoder], ["word_embeddings", q]]


@pytest.mark.parametrize(
    ("model_type", "architecture"), [(t, name) for t, s in CLASSES.items() for name in s]
)
def test_inventory(model_type: str, architecture: str) -> None:
    @settings(max_examples=6 if model_type in OFTEN else 3)
    @given(configs(model_type, architecture))
    def check(config: dict[str, Any]) -> None:
        check_inventory(config)
        assert (build(config).flops_gap is None) == ((model_type, architecture) in LOSS)

    check()


@pytest.mark.parametrize(("model_type", "architecture"), LOSS)
def test_flops(model_type: str, architecture: str) -> None:
    @examples(4 if model_type in OFTEN else 3)
    @given(
        configs(model_type, architecture), st.integers(1, 3), st.integers(3, 9),
        st.sampled_from(targets(model_type)), st.booleans(),
    )  # fmt: skip
    def check(config: dict[str, Any], batch: int, seq_len: int, target: Any, checkpointing: bool) -> None:
        checkpointing = checkpointing and model_type not in NO_CHECKPOINTS
        decoder = STYLES[model_type].head.decoder.rsplit(".", 1)[-1]
        if architecture.endswith("ForSequenceClassification") and target == [decoder]:
            return  # no unembedding is there to adapt
        check_flops(config, batch, seq_len, targets=[target], checkpointing=checkpointing)

    check()


def test_heads_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigError, match="num_attention_heads"):
        build({"model_type": "bert", "hidden_size": 10, "num_attention_heads": 4})


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert", "architectures": ["BertForTokenClassification"]},
        {"model_type": "mpnet", "architectures": ["MPNetForSequenceClassification"]},
        {"model_type": "electra", "architectures": ["ElectraModel"]},
        {"model_type": "bert", "is_decoder": True, "add_cross_attention": True},
    ],
)
def test_another_head_has_no_builder(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="no builder"):
        build_natively(config)
