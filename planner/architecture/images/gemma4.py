"""Gemma 4: an image of any shape brought to as many patches as fit, padded to the most that there are, and pooled."""

from __future__ import annotations

from ..families.common import Heads, gated_mlp, grouped_attention
from ..fields import Fields
from ..trace import Trace
from .draft import Draft, code
from .resizing import most_patches

TOWER = "model.vision_tower."
NAMES = tuple(f"{name}.linear" for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
MLP = tuple(f"{name}.linear" for name in ("gate_proj", "up_proj", "down_proj"))
NORMS = (
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
)  # fmt: skip
MARKS = 2  # the image's beginning and end


def _layers(trace: Trace, cfg: Fields, heads: Heads) -> None:
    with trace.layer(
        "encoder", range(cfg.int("num_hidden_layers", 16)), f"{TOWER}encoder.layers.{{}}."
    ) as layer:
        for name in NORMS:
            layer.norm(name, heads.hidden)
        for name in ("self_attn.q_norm", "self_attn.k_norm"):
            layer.norm(name, heads.d_head)
        layer.add(grouped_attention(layer, heads, layer.stream, causal=False, names=NAMES))
        width = cfg.int("intermediate_size", 3072)
        layer.add(gated_mlp(layer, heads.hidden, width, layer.stream, names=MLP))
        layer.open_end = False  # a norm follows


def gemma4(config: Fields, hidden: int, size: tuple[int, int] | None) -> Draft:
    """Gemma 4: every position of an image meets every other, padded ones under a mask; squares of pooling_kernel_size
    patches are averaged to a token. Tokens of an image see each other in sliding layers where the text's config says
    so. transformers does not make the tower's patches need a gradient."""
    assert size
    cfg = config.sub("vision_config")
    if cfg.str("model_type", "gemma4_vision") != "gemma4_vision":
        raise cfg.fail("model_type", "gemma4_vision: images of Gemma 4 with another tower have no account")
    d, n_heads = cfg.int("hidden_size", 768), cfg.int("num_attention_heads", 12)
    heads = Heads(d, n_heads, cfg.int("num_key_value_heads", 12), cfg.int("head_dim", 64))
    pool, patch = cfg.int("pooling_kernel_size", 3), cfg.int("patch_size", 16)
    tokens = config.int("vision_soft_tokens_per_image", 280)
    length, values = tokens * pool**2, 3 * patch**2
    high, wide = most_patches(size[1], size[0], patch, length, pool)
    rows = high * wide // (patch * pool) ** 2
    trace = Trace()
    with trace.layer("stem", (0,)) as stem:
        stem.features = True
        stem.stream = stem.linear(f"{TOWER}patch_embedder.input_proj", "vision", values, d, stem.stream)
    _layers(trace, cfg, heads)
    with trace.layer("pooler", (0,)) as layer:  # times an average's weights, which nothing trains
        layer.stream = layer.product(layer.stream, layer.stream, tokens * d, one_sided=True)
    with trace.layer("connector", (0,), "model.embed_vision.", rows) as layer:
        layer.stream = layer.linear("embedding_projection", "mlp", d, hidden, layer.stream)
    kind = "gemma4_vision" + "_clipped" * cfg.bool("use_clipped_linears", False)
    sources = (
        code("models/gemma4/image_processing_gemma4.py", "get_aspect_ratio_preserving_size, max_soft_tokens"),
        code("models/gemma4/processing_gemma4.py", "replace_image_token"),
    )
    mutual = config.sub("text_config", {}).data.get("use_bidirectional_attention") == "vision"
    return Draft(
        trace, kind + "_padded" * (rows < tokens), cfg.str("hidden_activation", "gelu_pytorch_tanh"), d,
        cfg.int("num_hidden_layers", 16), rows + MARKS, rows, 1, length, (1, length, values), sources, hooked=False,
        masked_windows=mutual,
    )  # fmt: skip
