"""What each model type's elementwise code is, where the inventory does not say: a table by structure.

A trait names a rule of `elementwise` or `attention`, never a number fitted to a model. Types that are not in the
table take the default, Llama's; `tools/compare_memory.py` compares every entry with simulation.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

from ..dataclass import dataclass
from ..schema import Architecture
from .alike import ALIKE
from .dropouts import switched_on


@dataclass(frozen=True)
class Traits:
    """Rules of one model type.

    Norms: `norm` and `qk_norm` name rules of norms; parts of a layer are normed on their way in (`before`), out
    (`after`), or their sum is (`post`).
    `two_norms`: attention and MLP beside each other have one each. `routed_norms`: router and experts have one each,
        and what MLP and experts add is normed apart and together. `inner_norms`: what attention and the MLP make is
        normed before their last product. `norms_turned`: queries and keys are normed when they are turned. `v_norm`:
        values are normed like keys, without a weight. `stem_norm`: embeddings are normed; `stem_module`: they are
        looked up, added and normed in a module of their own, of which only the result has a name.

    Attention: `rotary` names the rotation, `rotary_share` the part of a head that it turns.
    `eager`: transformers has no SDPA path for it; `no_flash`: no path for flash attention.
    `mask_given`: SDPA is given a mask even where all tokens are seen; `mask_shared`: one in the hidden states' type,
        made once and added to scores. `ungrouped`: keys of a single head, which no fused kernel takes. `narrow`: the
        eager softmax runs in the values' type, and what autocast makes of it is `lowered` before it is dropped.
    `wide_scores`: queries meet keys in float32; `wide_bias`: scores become float32 by a bias that is. `capped_scores`
        pass through tanh. `floored`: masked ones are raised to their type's least number, and a float16 softmax
        widens. `biased`: each head adds a bias for every pair of positions.
    `biases_apart`: each layer makes these anew.
    `windows_inside`: layers cut windows themselves, and are given the one mask; `truth_masks`: of truth values.
    `sinks`: a score for each head stands beside the others, and experts' gates are interleaved and clamped (gpt-oss);
        `sink_scales`: it weights what attention puts out. `lessened`: scores are made less their maximum, and those
        of windows have such a sink beside them.
    `handed`: layers hand on eager attention's probabilities; `named`: scores keep a name until these are made,
        `scores_named`: until attention is done, and where they are `named` too the former as well; `scores_stay`:
        until its last product is.
    `caches`: the decoder fills a cache of keys and values while it is trained; `cached_before`: until transformers
        4.50 though layers were checkpointed.

    MLP and experts: `activation` where the config names none. `late_gate`: a gate is made behind what it gates, and
        multiplied by a number. `fused` says how a fused projection is taken apart:
    "slice" (each piece's gradient is laid into zeros) or "split" (they are joined once).
    `router`: "softmax" or "sigmoid" scores of all experts, or a softmax over the "chosen" alone; `wide_router`: their
        weights stay in float32, and so do the results that they weight. `float_router`: it reads the stream in
        float32. `jitter`: what experts and router read is
        multiplied by noise. `every_expert`: all experts run on all tokens.

    Names: what attention adds has one until the layer ends (`attention_named`, "made" or "dropped": with its
        dropout), and so has the normed stream that it read (`norm_named`). `mlp_inline`: an MLP is no module, whose
        result takes the name of what it read. `inner_named`: what an MLP's last matrix reads has a name until then.
    `nested`: a part of a layer is checkpointed once more inside of it, by a call that holds what the layer's matrix
        of the name NESTED made for it.
    The stream: `scaled_embedding`, `scaled_residual`: multipliers on it; `scaled_outside`: the first is none of the
        embedding module's, whose result a hook makes a leaf. `wide_residual`: its sums are in float32.
        `weighed_stream`: they weigh it by a trained vector. `multiplied`: roles whose matrices read the normed
        stream times a number, each role anew (and what scans read of these by a buffer). `flat`: an
        MLP reads positions as rows of a matrix.
    Dropout with a rate above 0: `dropout` of what a layer's parts add (`dropped_by_mlp`: of the MLP
        alone, `dropped_by_attention`: of attention), `dropped`
        of attention's probabilities, `dropped_inner` of an MLP's inner values, `dropped_stem` of embeddings,
        `dropped_end` of a stack's result.

    Logits: `logits`, what happens to them before the loss ("capped": tanh; "scaled"; "biased": by a fixed bias).
    `wide_logits`: the model's code makes them float32.
    `narrow_loss`: they meet the loss in their own type; `narrow_before`: they did before transformers 4.50.

    Towers of images: `pieced`: attention runs apart for each image or window, from pieces of queries, keys and
    values, and joins what comes out. `narrow_stem`: layers read what a convolution makes, in 16 bits under autocast;
    `wide_stem`: what a projection makes of pixels in float32, unless its weights are of a floating type.
    `layer_scale`: what a layer's parts add is weighed by a trained vector. `clipped`: what goes into matrices and
        comes out is clamped. `windows_masked` (of the text): layers with windows are given a mask for each sequence.
    """

    norm: str = "rms"
    before: bool = True
    after: bool = False
    two_norms: bool = False
    routed_norms: bool = False
    qk_norm: str = "rms"
    rotary: str = "half"
    rotary_share: float = 1.0
    activation: str = "silu"
    late_gate: bool = False
    fused: Literal["slice", "split"] = "split"
    dropout: bool = False
    dropped: bool = False
    dropped_inner: bool = False
    dropped_stem: bool = False
    dropped_end: bool = False
    dropped_by_mlp: bool = False
    dropped_by_attention: bool = False
    post: bool = False
    wide_residual: bool = False
    wide_logits: bool = False
    stem_norm: bool = False
    stem_module: bool = False
    wide_scores: bool = False
    wide_bias: bool = False
    v_norm: bool = False
    narrow_loss: bool = False
    narrow_before: bool = False
    cached_before: bool = False
    biased: bool = False
    biases_apart: bool = False
    scaled_embedding: bool = False
    scaled_residual: bool = False
    logits: Literal["plain", "capped", "scaled", "biased"] = "plain"
    capped_scores: bool = False
    floored: bool = False
    sinks: bool = False
    sink_scales: bool = False
    lessened: bool = False
    handed: bool = False
    named: bool = False
    scores_named: bool = False
    scores_stay: bool = False
    eager: bool = False
    no_flash: bool = False
    mask_given: bool = False
    mask_shared: bool = False
    ungrouped: bool = False
    narrow: bool = False
    lowered: bool = False
    router: Literal["softmax", "sigmoid", "chosen"] = "softmax"
    wide_router: bool = False
    float_router: bool = False
    jitter: bool = False
    every_expert: bool = False
    caches: bool = False
    pieced: bool = False
    narrow_stem: bool = False
    wide_stem: bool = False
    layer_scale: bool = False
    clipped: bool = False
    windows_masked: bool = False
    windows_inside: bool = False
    truth_masks: bool = False
    weighed_stream: bool = False
    norms_turned: bool = False
    inner_norms: bool = False
    attention_named: Literal["", "made", "dropped"] = ""
    norm_named: bool = False
    mlp_inline: bool = False
    inner_named: bool = False
    scaled_outside: bool = False
    flat: bool = False
    nested: bool = False
    multiplied: tuple[str, ...] = ()


NESTED = "linear"
LLAMA = Traits()
GRANITE = Traits(scaled_embedding=True, scaled_outside=True, scaled_residual=True, logits="scaled")
GEMMA = Traits(norm="gemma", qk_norm="gemma", activation="gelu_pytorch_tanh", scaled_embedding=True)
LEGACY = Traits(norm="layer", qk_norm="layer", rotary="none", activation="gelu")
PRENORMED_BERT = replace(LEGACY, narrow_loss=True, narrow=True, stem_module=True, inner_named=True)
BERT = replace(PRENORMED_BERT, before=False, post=True, stem_norm=True)
GEMMA4 = replace(GEMMA, after=True, v_norm=True, rotary="axial", wide_stem=True)
T5 = replace(LLAMA, norm="t5", rotary="none", activation="relu", narrow_loss=True, biased=True, no_flash=True)
T5 = replace(T5, narrow=True, caches=True)
HANDING = replace(LEGACY, handed=True)
SIGLIP = replace(LEGACY, activation="gelu_pytorch_tanh")
BART = replace(LEGACY, narrow_loss=True, narrow=True, logits="biased", scaled_embedding=True, mlp_inline=True)

BARE = replace(LLAMA, norm="rms-bare", qk_norm="rms-bare", norms_turned=True, stem_norm=True)
GLM4_MOE = replace(
    LLAMA, rotary="partial", rotary_share=0.5, router="sigmoid", float_router=True, wide_router=True
)
TRAITS: dict[str, Traits] = {
    "gemma": GEMMA,
    "gemma2": replace(GEMMA, after=True, logits="capped", capped_scores=True, eager=True),
    "vaultgemma": replace(GEMMA, logits="capped", capped_scores=True, eager=True),
    "gemma3_text": replace(GEMMA, after=True),
    "gemma4_text": replace(GEMMA, after=True, logits="capped", v_norm=True, routed_norms=True),
    "phi3": replace(LLAMA, rotary="partial", fused="slice"),
    "granite": GRANITE,
    "minicpm3": replace(LLAMA, scaled_embedding=True, scaled_residual=True),
    "olmo": replace(LLAMA, norm="layer32", rotary="half32-cos"),
    "olmo2": replace(
        LLAMA, norm="rms-late", qk_norm="rms-late", before=False, after=True, rotary="half32-cos"
    ),
    "exaone4": replace(LLAMA, before=False, after=True),
    "glm": replace(LLAMA, rotary="partial", rotary_share=0.5),
    "glm4": replace(LLAMA, after=True, rotary="partial", rotary_share=0.5),
    "ernie4_5": replace(LLAMA, rotary="half32-each"),
    "arcee": replace(LLAMA, activation="relu2"),
    "apertus": replace(LLAMA, activation="xielu"),
    "starcoder2": replace(LEGACY, rotary="half", activation="gelu_pytorch_tanh"),
    "cohere": replace(LLAMA, norm="python-layer", qk_norm="python-layer", rotary="half32", logits="scaled"),
    "stablelm": replace(
        LEGACY,
        rotary="partial-named",
        rotary_share=0.25,
        activation="silu",
        attention_named="made",
        norm_named=True,
    ),
    "gpt2": replace(
        LEGACY,
        narrow_before=True,
        activation="gelu_new",
        narrow=True,
        attention_named="dropped",
        lowered=True,
    ),
    "openai-gpt": replace(
        LEGACY, before=False, post=True, activation="gelu_new", narrow=True, eager=True, no_flash=True
    ),
    "t5": T5,
    "umt5": replace(T5, biases_apart=True),
    "bart": replace(BART, before=False, post=True),
    "mbart": BART,
    "mvp": replace(BART, before=False, post=True, eager=True, no_flash=True),
    "whisper": replace(BART, logits="plain", scaled_embedding=False),
    "gptj": replace(
        HANDING, rotary="partial-own", rotary_share=0.25, activation="gelu_new", eager=True, wide_scores=True
    ),
    "gpt_neox": replace(LEGACY, narrow_before=True, rotary="partial", rotary_share=0.25, two_norms=True),
    "opt": replace(LEGACY, narrow_before=True, activation="relu", flat=True, mlp_inline=True),
    "bloom": replace(
        HANDING,
        stem_norm=True,
        narrow_before=True,
        activation="bloom",
        eager=True,
        no_flash=True,
        named=True,
        scores_named=True,
    ),
    "falcon": replace(
        HANDING, narrow_before=True, rotary="half", narrow=True, mask_given=True, ungrouped=True, named=True
    ),
    "mpt": replace(
        HANDING,
        narrow_before=True,
        eager=True,
        no_flash=True,
        wide_bias=True,
        truth_masks=True,
        scores_named=True,
    ),
    "gpt_neo": replace(
        HANDING, activation="gelu_new", eager=True, no_flash=True, wide_scores=True, windows_inside=True
    ),
    "gpt_neox_japanese": replace(
        LEGACY,
        rotary="partial",
        eager=True,
        no_flash=True,
        narrow=True,
        named=True,
        scores_named=True,
        lowered=True,
    ),
    "persimmon": replace(LEGACY, rotary="partial-named", rotary_share=0.5, activation="relu2"),
    "jais2": replace(LEGACY, rotary="half", activation="relu2"),
    "biogpt": replace(LEGACY, scaled_embedding=True, narrow=True, mlp_inline=True),
    "xglm": replace(
        LEGACY, scaled_embedding=True, eager=True, no_flash=True, narrow=True, floored=True, mlp_inline=True
    ),
    "hyperclovax": replace(GRANITE, after=True),
    "megatron-bert": replace(PRENORMED_BERT, eager=True, no_flash=True, handed=True, scores_named=True),
    "roberta-prelayernorm": replace(PRENORMED_BERT, mlp_inline=True, stem_norm=True),
    "xlm-roberta-xl": replace(PRENORMED_BERT, mlp_inline=True, dropped_by_attention=True),
    "gpt_bigcode": replace(
        LEGACY,
        narrow_before=True,
        cached_before=True,
        activation="gelu_pytorch_tanh",
        attention_named="dropped",
    ),
    "phi": replace(LEGACY, rotary="partial-named", rotary_share=0.5, activation="gelu_new"),
    "mamba": replace(LLAMA, wide_residual=True, wide_logits=True),
    "phimoe": replace(LLAMA, norm="layer", jitter=True),
    "mixtral": replace(LLAMA, wide_router=True),
    "dbrx": replace(LEGACY, rotary="half", activation="silu"),
    "gpt_oss": replace(LLAMA, norm="rms-late", sinks=True, eager=True, narrow=True, router="chosen"),
    "granitemoe": GRANITE,
    "glm4_moe": GLM4_MOE,
    "minimax_m2": replace(LLAMA, rotary="partial", rotary_share=0.5, router="sigmoid", wide_router=True),
    "deepseek_v2": replace(LLAMA, rotary="complex", float_router=True, wide_router=True),
    "ernie4_5_moe": replace(LLAMA, float_router=True),
    "mimo_v2_flash": replace(GLM4_MOE, rotary_share=0.334, eager=True, narrow=True, lessened=True),
    "deepseek_v3": replace(LLAMA, router="sigmoid", float_router=True, wide_router=True),
    "laguna": replace(LLAMA, router="sigmoid"),
    "mistral4": LLAMA,
    "deepseek_v4": replace(LLAMA, eager=True, no_flash=True),
    "deepseek_v32": replace(
        LLAMA, router="sigmoid", float_router=True, wide_router=True, no_flash=True, mask_given=True
    ),
    "qwen3_next": replace(LLAMA, norm="gemma", qk_norm="gemma", rotary="partial", rotary_share=0.25),
    "bert": BERT,
    "nanochat": replace(BARE, activation="relu2", logits="capped"),
    "bitnet": replace(LLAMA, activation="relu2", inner_norms=True),
    "albert": replace(BERT, activation="gelu_new"),
    "layoutlm": replace(BERT, narrow=False, no_flash=True),
    "mpnet": replace(BERT, eager=True, no_flash=True, handed=True, scores_stay=True),
    "rembert": replace(BERT, eager=True, no_flash=True, handed=True, scores_named=True),
    "roformer": replace(BERT, eager=True, no_flash=True, handed=True, scores_named=True, rotary="half"),
    "distilbert": replace(BERT, dropped_by_mlp=True, inner_named=False),
    "nomic_bert": replace(BERT, rotary="half", activation="silu", attention_named="made"),
    "modernbert": replace(
        LEGACY, rotary="half32-each-first", stem_norm=True, attention_named="made", dropped_by_attention=True
    ),
    "mllama": replace(LLAMA, no_flash=True),
    "helium": replace(LLAMA, norm="rms-late"),
    "falcon_h1": replace(
        LLAMA,
        multiplied=("attention", "state_space"),
        scaled_residual=True,
        attention_named="dropped",
        scaled_embedding=True,
        scaled_outside=True,
        late_gate=True,
    ),
    "nemotron": replace(LEGACY, rotary="partial", rotary_share=0.5, activation="relu2"),
    "nemotron_h": replace(LLAMA, norm="rms-late"),
    "granite_swa": replace(GRANITE, eager=True, sink_scales=True),
    "doge": replace(LLAMA, no_flash=True, weighed_stream=True),
    "zamba": replace(LLAMA, rotary="none", activation="gelu", nested=True),
    "afmoe": replace(
        LLAMA, norm="rms-late", qk_norm="rms-late", after=True, router="sigmoid", wide_router=True
    ),
    "llama4_text": replace(
        LLAMA, no_flash=True, narrow=True, rotary="complex", router="sigmoid", every_expert=True
    ),
    "gemma3_vision": SIGLIP,
    "idefics3_vision": SIGLIP,
    "clip_vision": replace(SIGLIP, activation="quick_gelu"),
    "internvl_vision": replace(SIGLIP, activation="gelu", layer_scale=True, narrow=True),
    "qwen2_vl_vision": replace(
        LEGACY, rotary="half32", activation="quick_gelu", pieced=True, narrow_stem=True
    ),
    "qwen3_vl_vision": replace(LEGACY, rotary="half32", activation="gelu_pytorch_tanh", pieced=True),
    "gemma4_vision": GEMMA4,
    "gemma4_vision_padded": replace(GEMMA4, mask_given=True),
    "gemma4_vision_clipped": replace(GEMMA4, clipped=True),
    "gemma4_vision_clipped_padded": replace(GEMMA4, clipped=True, mask_given=True),
    "pixtral_vision": replace(LLAMA, mask_given=True, mask_shared=True),
    "qwen2_5_vl_vision": replace(LLAMA, rotary="half32", pieced=True, narrow_stem=True),
}
# Types whose layers hold what no rule covers, with what that is.
UNRULED = {
    "bigbird_pegasus": "block-sparse attention",
    "trocr": "a decoder of BART's kind alone",
    "ctrl": "attention of its own",
}

# Dropout that trainers of preferences switch off is what is a module. Kinds whose attention asks one for its rate,
# and kinds that drop what their layers add by a function, which stays.
ATTENTION_BY_MODULE = frozenset(
    "bert distilbert roberta-prelayernorm xlm-roberta-xl megatron-bert mpnet rembert roformer gpt2 gptj gpt_neo "
    "bloom falcon gpt_neox_japanese".split()
)
BY_FUNCTION = frozenset("opt biogpt xglm bloom falcon seed_oss starcoder2 gpt_neox_japanese".split())


def without_dropout(traits: Traits) -> Traits:
    """Of an evaluation."""
    return replace(
        traits, dropout=False, dropped=False, dropped_inner=False, dropped_stem=False, dropped_end=False
    )


def undropped(traits: Traits, arch: Architecture) -> Traits:
    """Without the dropouts that are modules of their own (trl 1.16, trainer/utils.py, disable_dropout_in_model)."""
    kind = kind_of(arch)
    found = replace(traits, dropped=False) if kind in ATTENTION_BY_MODULE else traits
    if kind in BY_FUNCTION:
        return found
    return replace(without_dropout(found), dropped=found.dropped)


def in_scans(traits: Traits, arch: Architecture) -> Traits:
    """The traits of layers that scan instead of attending: OLMo Hybrid norms what goes into these."""
    return replace(traits, before=True, after=False) if arch.model_type == "olmo_hybrid" else traits


def kind_of(arch: Architecture) -> str:
    """The model type, of those alike, that has an entry of its own."""
    return ALIKE.get(arch.model_type, arch.model_type)


@lru_cache(maxsize=64)
def traits_of(arch: Architecture) -> Traits:
    """The traits of an architecture's model type, with the dropouts that its config switches on."""
    kind = kind_of(arch)
    found = replace(TRAITS.get(kind, LLAMA), **dict[str, Any](switched_on(arch, kind)))
    if found.norm == "layer" and found.narrow_loss and _is_causal(arch):
        found = replace(found, narrow_loss=False)
    if found.logits == "capped" and "final_logit_softcapping" in arch.uncapped:
        found = replace(found, logits="plain")
    if found.capped_scores and "attn_logit_softcapping" in arch.uncapped:
        found = replace(found, capped_scores=False)
    if (seen := arch.images) is not None:
        found = replace(found, mask_given=seen.masked or found.mask_given, windows_masked=seen.masked_windows)
    if arch.model_type == "codegen":  # GPT-J has flash attention
        found = replace(found, no_flash=True)
    if kind == "falcon" and any("ln_mlp" in vector.name for vector in arch.vectors):  # from 40B on
        found = replace(found, two_norms=True)
    if kind == "hyperclovax" and not any("post_norm" in vector.name for vector in arch.vectors):
        found = replace(found, after=False)
    return found


def _is_causal(arch: Architecture) -> bool:
    """Whether an encoder's class is the one that predicts the next token, whose loss is the library's own."""
    name = arch.class_name or ""
    return name.endswith(("ForCausalLM", "LMHeadModel", "Decoder"))
