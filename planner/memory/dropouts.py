"""Which dropouts of a model type have a rate above 0, by the fields of its config."""

from __future__ import annotations

from ..schema import Architecture

# Which rate of the config stands for which dropout, with what the library takes where the config names none.
ONE_RATE = ("dropout_rate", 0.1)
RATES: dict[str, dict[str, tuple[str, float]]] = {
    "t5": dict.fromkeys(("dropout", "dropped", "dropped_inner", "dropped_stem", "dropped_end"), ONE_RATE),
    "bart": {
        "dropout": ("dropout", 0.1), "dropped_stem": ("dropout", 0.1), "dropped": ("attention_dropout", 0.0),
        "dropped_inner": ("activation_dropout", 0.0),
    },
    "whisper": {
        "dropout": ("dropout", 0.0), "dropped_stem": ("dropout", 0.0), "dropped": ("attention_dropout", 0.0),
        "dropped_inner": ("activation_dropout", 0.0),
    },
    "gpt2": {"dropout": ("resid_pdrop", 0.1), "dropped": ("attn_pdrop", 0.1), "dropped_stem": ("embd_pdrop", 0.1)},
    "opt": {"dropout": ("dropout", 0.1), "dropped": ("attention_dropout", 0.0)},
    "gptj": {"dropout": ("resid_pdrop", 0.0), "dropped": ("attn_pdrop", 0.0), "dropped_stem": ("embd_pdrop", 0.0)},
    "gpt_neox": {"dropout": ("hidden_dropout", 0.0), "dropped": ("attention_dropout", 0.0)},
    "phi": {
        "dropout": ("resid_pdrop", 0.0), "dropped": ("attention_dropout", 0.0), "dropped_stem": ("embd_pdrop", 0.0),
    },
    "starcoder2": {"dropout": ("residual_dropout", 0.0), "dropped": ("attention_dropout", 0.0)},
    "seed_oss": {"dropout": ("residual_dropout", 0.1), "dropped": ("attention_dropout", 0.1)},
    "bert": {
        "dropout": ("hidden_dropout_prob", 0.1), "dropped_stem": ("hidden_dropout_prob", 0.1),
        "dropped": ("attention_probs_dropout_prob", 0.1),
    },
    "distilbert": {
        "dropout": ("dropout", 0.1), "dropped_stem": ("dropout", 0.1), "dropped": ("attention_dropout", 0.1),
    },
    "albert": {
        "dropout": ("hidden_dropout_prob", 0.0), "dropped_stem": ("hidden_dropout_prob", 0.0),
        "dropped": ("attention_probs_dropout_prob", 0.0),
    },
    "biogpt": {
        "dropout": ("hidden_dropout_prob", 0.1), "dropped_stem": ("hidden_dropout_prob", 0.1),
        "dropped": ("attention_probs_dropout_prob", 0.1), "dropped_inner": ("activation_dropout", 0.0),
    },
    "gpt_neo": {
        "dropout": ("resid_dropout", 0.0), "dropped": ("attention_dropout", 0.0),
        "dropped_stem": ("embed_dropout", 0.0),
    },
    "xglm": {
        "dropout": ("dropout", 0.1), "dropped_stem": ("dropout", 0.1), "dropped": ("attention_dropout", 0.1),
        "dropped_inner": ("activation_dropout", 0.0),
    },
    "mpt": {"dropped": ("attn_pdrop", 0.0)},  # of its attn_config: no published one has a rate
    "gpt_neox_japanese": {"dropout": ("hidden_dropout", 0.0), "dropped": ("attention_dropout", 0.1)},
    "modernbert": {
        "dropout": ("attention_dropout", 0.0), "dropped": ("attention_dropout", 0.0),
        "dropped_stem": ("embedding_dropout", 0.0),
    },
    "emu3_text_model": dict.fromkeys(("dropout", "dropped"), ("attention_dropout", 0.1)),
    "llama": {"dropped": ("attention_dropout", 0.0)},
}  # fmt: skip
RATES_ALIKE = {
    "umt5": "t5",
    "mbart": "bart",
    "mvp": "bart",
    "gpt_bigcode": "gpt2",
    "openai-gpt": "gpt2",
    "falcon": "gpt_neox",
    "bloom": "gpt_neox",
    "phi3": "phi",
    "roformer": "bert",
    "megatron-bert": "bert",
    "roberta-prelayernorm": "bert",
    "xlm-roberta-xl": "bert",
    "mpnet": "bert",
    "rembert": "bert",
    "nomic_bert": "bert",
    "layoutlm": "bert",
}


def switched_on(arch: Architecture, kind: str) -> dict[str, bool]:
    """The traits of dropout that a model of this kind has: whether the rate that its config gives, or else its
    library, is above 0."""
    given = dict(arch.dropouts)
    names = RATES.get(RATES_ALIKE.get(kind, kind), RATES["llama"])
    return {trait: given.get(name, usual) > 0 for trait, (name, usual) in names.items()}
