"""What sets the decoders of Llama's kind apart, as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ...dataclass import dataclass

# Norms that stand behind the MLP: something then keeps its result.
NORMS_AFTER_MLP = ("post_feedforward_layernorm", "post_mlp_layernorm")
LLAMA_NORMS = ("input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True)
class Style:
    """What sets a family apart. A bias (and `parallel`) is a fixed choice or the name of the field that decides, with
    "!" after it where the class's default is true. `sub_norms` stand between attention or the MLP's gate and the last
    matrix behind it; `post_norms` behind both, where the field says so. `window` is the class's default width.
    `sinks`: every head has one. `scaled` names vectors that weight the stream before each sum. `gate` names a
    projection that weights what attention puts out, `per_head` the field that makes it one weight a head; `decay` one
    of the values whose result is added to the scores. Where not `causal`, every position sees all, under a masked-LM
    head, to which `head_bias` may give a bias."""

    qkv_bias: bool | str = "attention_bias"
    o_bias: bool | str = "attention_bias"
    mlp_bias: bool | str = False
    mlp: Literal["gated", "fused", "plain"] = "gated"
    mlp_names: tuple[str, ...] | None = None
    fused_qkv: str | None = None
    qk_norm: Literal["none", "head", "full", "each-head"] = "none"
    qk_norm_field: str | None = None
    qk_norm_names: tuple[str, str] = ("q_norm", "k_norm")
    norms: tuple[str, ...] = LLAMA_NORMS
    norm_bias: bool = False
    parametric_norms: bool = True
    post_norms: tuple[str, str] | None = None
    post_norms_field: str = ""
    sub_norms: bool = False
    parallel: bool | str = False
    tied: bool = False
    xielu: bool = False
    head_dim: int | None = None
    n_kv_heads: int | None = None
    mlp_dropout: tuple[str, float] | None = None
    sinks: bool = False
    causal: bool = True
    head_bias: str | None = None
    scaled: tuple[str, str] | None = None
    gate: str | None = None
    per_head: str | None = None
    decay: str | None = None
    sliding: Literal["all", "types", "qwen2", "gemma2", "gemma3", "cohere2", "cwm"] = "types"
    window: int | None = None


STYLES: dict[str, Style] = {
    "llama": Style(mlp_bias="mlp_bias"),
    "mistral": Style(qkv_bias=False, o_bias=False, sliding="all", n_kv_heads=8),
    "ministral": Style(qkv_bias=False, o_bias=False, n_kv_heads=8),
    "ministral3": Style(qkv_bias=False, o_bias=False, sliding="all", n_kv_heads=8, head_dim=128),
    "qwen2": Style(qkv_bias=True, o_bias=False, sliding="qwen2", n_kv_heads=32),
    "qwen3": Style(qk_norm="head", sliding="qwen2", n_kv_heads=32, head_dim=128),
    "gemma": Style(tied=True, n_kv_heads=16, head_dim=256),
    "gemma2": Style(
        tied=True,
        n_kv_heads=4,
        head_dim=256,
        norms=(*LLAMA_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm"),
        sliding="gemma2",
        window=4096,
    ),
    "phi3": Style(
        qkv_bias=False,
        o_bias=False,
        fused_qkv="qkv_proj",
        mlp="fused",
        mlp_dropout=("resid_pdrop", 0.0),
        sliding="all",
    ),
    "granite": Style(mlp_bias="mlp_bias"),
    "olmo": Style(parametric_norms=False),
    "olmo2": Style(qk_norm="full", norms=("post_attention_layernorm", "post_feedforward_layernorm")),
    "smollm3": Style(mlp_bias="mlp_bias", tied=True, n_kv_heads=4),
    "seed_oss": Style(
        qkv_bias="attention_bias!",
        o_bias="attention_out_bias",
        mlp_bias="mlp_bias",
        n_kv_heads=8,
        head_dim=128,
        mlp_dropout=("residual_dropout", 0.1),
    ),
    "exaone4": Style(
        n_kv_heads=32,
        qkv_bias=False,
        o_bias=False,
        qk_norm="head",
        norms=("post_attention_layernorm", "post_feedforward_layernorm"),
    ),
    "hunyuan_v1_dense": Style(qk_norm="head", qk_norm_names=("query_layernorm", "key_layernorm")),
    "glm": Style(qkv_bias="attention_bias!", o_bias=False, mlp="fused", n_kv_heads=2, head_dim=128),
    "ernie4_5": Style(
        qkv_bias="use_bias", o_bias="use_bias", mlp_bias="use_bias", tied=True, n_kv_heads=2, head_dim=128
    ),
    "arcee": Style(mlp="plain", mlp_bias="mlp_bias"),
    "apertus": Style(
        mlp="plain",
        qk_norm="head",
        norms=("attention_layernorm", "feedforward_layernorm"),
        xielu=True,
    ),
    "starcoder2": Style(
        qkv_bias="use_bias!",
        o_bias="use_bias!",
        mlp_bias="use_bias!",
        mlp="plain",
        mlp_names=("c_fc", "c_proj"),
        norm_bias=True,
        tied=True,
        n_kv_heads=2,
        mlp_dropout=("residual_dropout", 0.0),
        sliding="all",
    ),
    "cohere": Style(
        norms=("input_layernorm",), parallel=True, qk_norm="full", qk_norm_field="use_qk_norm", tied=True
    ),
    "stablelm": Style(
        n_kv_heads=32,
        parallel="use_parallel_residual",
        mlp_dropout=("hidden_dropout", 0.0),
        qkv_bias="use_qkv_bias",
        o_bias=False,
        norm_bias=True,
        qk_norm="each-head",
        qk_norm_field="qk_layernorm",
        qk_norm_names=("q_layernorm", "k_layernorm"),
    ),
    "cwm": Style(
        qkv_bias=False,
        o_bias=False,
        mlp_bias="mlp_bias",
        n_kv_heads=8,
        head_dim=128,
        sliding="cwm",
        window=8192,
    ),
    "jais2": Style(
        qkv_bias="attention_bias!",
        o_bias="attention_bias!",
        mlp="plain",
        mlp_bias="mlp_bias!",
        norm_bias=True,
    ),
    "hyperclovax": Style(
        mlp_bias="mlp_bias", post_norms=("post_norm1", "post_norm2"), post_norms_field="use_post_norm!"
    ),
    "iquestcoder": Style(mlp_bias="mlp_bias", n_kv_heads=8, head_dim=128),
    "nanochat": Style(mlp="plain", mlp_names=("fc1", "fc2"), parametric_norms=False),
    "nemotron": Style(mlp="plain", mlp_bias="mlp_bias", norm_bias=True),
    "bitnet": Style(n_kv_heads=5, sub_norms=True),
    "granite_swa": Style(mlp_bias="mlp_bias", tied=True, n_kv_heads=4, sliding="cwm", window=128, sinks=True),
    "emu3_text_model": Style(mlp_bias="mlp_bias", n_kv_heads=8, mlp_dropout=("attention_dropout", 0.1)),
    "eurobert": Style(mlp_bias="mlp_bias", causal=False, head_bias="mlp_bias"),
    "doge": Style(
        mlp_bias="mlp_bias",
        qk_norm="head",
        scaled=("input_residual", "post_attention_residual"),
        decay="dt_proj",
    ),
}
STYLES["glm4"] = replace(
    STYLES["glm"], norms=(*LLAMA_NORMS, "post_self_attn_layernorm", "post_mlp_layernorm")
)
STYLES["olmo3"] = STYLES["olmo2"]
STYLES["gemma3_text"] = replace(STYLES["gemma2"], qk_norm="head", sliding="gemma3")
STYLES["cohere2"] = replace(STYLES["cohere"], qk_norm="none", sliding="cohere2")
STYLES["vaultgemma"] = replace(STYLES["gemma2"], norms=("input_layernorm", "pre_feedforward_layernorm"))
STYLES["cohere_compass_text"] = replace(STYLES["cohere2"], sliding="types", window=4096)
