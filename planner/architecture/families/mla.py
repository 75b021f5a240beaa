"""Decoders with multi-head latent attention (DeepSeek V2 to V3.2, Kimi K2, GLM-4.7-Flash, GLM-5) and routed experts,
and Youtu and MiniCPM3 without any.

Keys and values come from one narrow latent; queries from another, or directly. Newer models choose each query's
keys with an indexer, which no gradient reaches. Kimi K2 has DeepSeek V3's layout and no class of its own; Kimi K2.5
has the same decoder behind a tower.
"""

from __future__ import annotations

from ...dataclass import dataclass
from ...errors import UnsupportedArchitectureError
from ...schema import Architecture, Part
from ..fields import Fields
from ..trace import Layer, Trace
from .common import finish, gated_mlp, groups, has_head, unembedding
from .dense import LLAMA_NORMS
from .experts import ExpertFields, Experts, read_experts, routed
from .moe import DEEPSEEK_FIELDS, mlp_layer_types
from .towers_kimi import kimi_k25


@dataclass(frozen=True)
class Latent:
    """Shape of latent attention: widths of the latents, and of a head's rotated, plain and value parts."""

    hidden: int
    n_heads: int
    q_rank: int | None
    kv_rank: int
    rope: int
    nope: int
    value: int
    bias: bool


@dataclass(frozen=True)
class Index:
    """Shape of an indexer: its heads and their width."""

    n_heads: int
    d_head: int


@dataclass(frozen=True)
class Style:
    """A class's defaults of the latent's shape and of how many first layers have no experts. `by_type`: the class
    reads `mlp_layer_types`; `by_first`: it reads `first_k_dense_replace`. `tied`: it ties the embeddings. `value`
    None: a value is as wide as hidden_size / heads. `sparse_norm`: layers with experts norm what these put out."""

    q_rank: int | None = 1536
    nope: int = 128
    value: int | None = 128
    first_dense: int = 3
    by_type: bool = False
    by_first: bool = True
    indexer: bool = False
    experts: ExpertFields = DEEPSEEK_FIELDS
    no_experts: bool = False
    tied: bool = False
    mlp_bias: bool = False
    sparse_norm: str | None = None
    kv_rank: int = 512
    rope: int = 64


STYLES: dict[str, Style] = {
    "deepseek_v2": Style(first_dense=0),
    "deepseek_v3": Style(),
    "kimi_k2": Style(),
    "glm4_moe_lite": Style(q_rank=768, nope=192, value=256, first_dense=1, by_type=True, by_first=False),
    "youtu": Style(no_experts=True, tied=True),
    "minicpm3": Style(
        no_experts=True, tied=True, q_rank=768, kv_rank=256, nope=64, rope=32, value=None, mlp_bias=True
    ),
    "mistral4": Style(q_rank=1024, kv_rank=256, nope=64, first_dense=0),
    "axk1": Style(first_dense=1, by_type=True, sparse_norm="mlp.post_mlp_layernorm"),
    "kimi_linear": Style(q_rank=None),
    "deepseek_v32": Style(by_type=True, indexer=True),
    "glm_moe_dsa": Style(q_rank=2048, nope=192, value=256, by_type=True, indexer=True),
}


def read_latent(cfg: Fields, style: Style) -> Latent:
    """The shape; a null `q_lora_rank` means that queries come directly from the hidden state."""
    n_heads = cfg.int("num_attention_heads")
    n_kv = cfg.int("num_key_value_heads", n_heads)
    if n_kv != n_heads:
        raise cfg.fail("num_key_value_heads", f"num_attention_heads ({n_heads}): every head has its own keys")
    q_rank = cfg.int("q_lora_rank", None if "q_lora_rank" in cfg.data else style.q_rank)
    if q_rank is None and style.indexer:
        raise cfg.fail("q_lora_rank", "a whole number of at least 1: the indexer reads the queries' latent")
    return Latent(
        cfg.int("hidden_size"), n_heads, q_rank, cfg.int("kv_lora_rank", style.kv_rank),
        cfg.int("qk_rope_head_dim", style.rope), cfg.int("qk_nope_head_dim", style.nope),
        cfg.int("v_head_dim", cfg.int("hidden_size") // n_heads if style.value is None else style.value),
        bool(cfg.bool("attention_bias", False)),
    )  # fmt: skip


def _inner(layer: Layer, name: str, d_in: int, d_out: int, x: int) -> int:
    """A projection out of a latent; Tinker's layout has no adapter there."""
    leaf = name.rsplit(".", 1)[-1]
    return layer.linear(name, "attention", d_in, d_out, x, parts=(Part(leaf, d_in, d_out, tinker=False),))


def indexer(layer: Layer, shape: Latent, index: Index, x: int, latent: int) -> None:
    """Scores every key for every query and keeps the best: forward work alone, its results are positions."""
    prefix, width = "self_attn.indexer.", index.n_heads * index.d_head

    def project(name: str, d_in: int, d_out: int, source: int) -> int:
        return layer.linear(prefix + name, "attention", d_in, d_out, source, forward_only=True, parts=(
            Part(name, d_in, d_out, tinker=False),
        ))  # fmt: skip

    q = project("wq_b", shape.q_rank or 0, width, latent)
    k = project("wk", shape.hidden, index.d_head, x)
    layer.norm(prefix + "k_norm", index.d_head, bias=True)
    weights = project("weights_proj", shape.hidden, index.n_heads, x)
    # The heads' scores are summed with weights: a value of width one.
    layer.attend(q, k, weights, n_heads=index.n_heads, n_kv_heads=1, d_qk=index.d_head, d_v=1)


def latent_attention(layer: Layer, shape: Latent, x: int, index: Index | None = None) -> int:
    """Multi-head latent attention, its keys and values made anew for every head."""
    prefix, d_qk = "self_attn.", shape.nope + shape.rope
    if shape.q_rank is None:
        q = layer.linear(prefix + "q_proj", "attention", shape.hidden, shape.n_heads * d_qk, x)
        latent = x
    else:
        latent = layer.linear(
            prefix + "q_a_proj", "attention", shape.hidden, shape.q_rank, x, bias=shape.bias
        )
        layer.norm(prefix + "q_a_layernorm", shape.q_rank)
        latent = layer.join(latent)
        q = _inner(layer, prefix + "q_b_proj", shape.q_rank, shape.n_heads * d_qk, latent)
    both = layer.linear(
        prefix + "kv_a_proj_with_mqa",
        "attention",
        shape.hidden,
        shape.kv_rank + shape.rope,
        x,
        bias=shape.bias,
    )
    layer.norm(prefix + "kv_a_layernorm", shape.kv_rank)
    width = shape.n_heads * (shape.nope + shape.value)
    v = _inner(layer, prefix + "kv_b_proj", shape.kv_rank, width, both)
    if index is not None:
        indexer(layer, shape, index, x, latent)
    mixed = layer.attend(
        q, layer.join(v, both), v, n_heads=shape.n_heads, n_kv_heads=shape.n_heads, d_qk=d_qk, d_v=shape.value
    )
    return layer.linear(
        prefix + "o_proj", "attention", shape.n_heads * shape.value, shape.hidden, mixed, bias=shape.bias
    )


def shared_and_routed(layer: Layer, hidden: int, experts: Experts, n_shared: int, x: int) -> int:
    """Routed experts, then the shared ones as one MLP, whose result is only added."""
    result = routed(layer, hidden, experts, x)
    beside = gated_mlp(
        layer, hidden, experts.width * n_shared, x, prefix="mlp.shared_experts.", role="shared_expert"
    )
    layer.open_end = True
    return layer.join(result, beside)


def _indexed(cfg: Fields, style: Style, n_layers: int) -> list[bool]:
    """Which layers run an indexer of their own; the others reuse the choice of the one before."""
    if not style.indexer or cfg.str("model_type", None) != "glm_moe_dsa":
        return [style.indexer] * n_layers
    kinds = cfg.list("indexer_types", None)
    if kinds is None and cfg.has("index_topk_pattern"):
        pattern = cfg.data["index_topk_pattern"]
        kinds = [{"F": "full", "S": "shared"}.get(str(kind), str(kind)) for kind in pattern]
    if kinds is None:
        every, offset = (
            cfg.int("index_topk_freq", 1, minimum=0),
            cfg.int("index_skip_topk_offset", 2, minimum=0),
        )
        return [max(i - offset + 1, 0) % max(every, 1) == 0 for i in range(n_layers)]
    if len(kinds) < n_layers or kinds[0] != "full":
        raise cfg.fail("indexer_types", f"a list of {n_layers} items, one a layer, the first of them 'full'")
    return [kind == "full" for kind in kinds[:n_layers]]


def _sparse(cfg: Fields, style: Style, n_layers: int) -> list[bool]:
    first = style.first_dense
    if style.no_experts:
        return [False] * n_layers
    if style.by_first:
        first = cfg.int("first_k_dense_replace", first, minimum=0)
    if cfg.str("model_type", "") == "axk1" and cfg.int("moe_layer_freq", 1) != 1:
        raise UnsupportedArchitectureError("Experts in every so many layers have no builder in this version.")
    if style.by_type:
        return mlp_layer_types(cfg, n_layers, first)
    return [i >= first for i in range(n_layers)]


def decoder(trace: Trace, cfg: Fields, style: Style, prefix: str = "model.") -> None:
    """Embedding, layers and final norm."""
    shape, n_layers = read_latent(cfg, style), cfg.int("num_hidden_layers")
    experts, n_shared = Experts(1, 1, 1), 0
    if not style.no_experts:
        experts, n_shared = read_experts(cfg, style.experts), cfg.int("n_shared_experts")
    index = Index(cfg.int("index_n_heads"), cfg.int("index_head_dim")) if style.indexer else None
    trace.embedding(f"{prefix}embed_tokens", cfg.int("vocab_size"), shape.hidden)
    keys = list(zip(_sparse(cfg, style, n_layers), _indexed(cfg, style, n_layers), strict=True))
    for (sparse, indexed), numbers in groups(keys):
        with trace.layer("decoder", numbers, f"{prefix}layers.{{}}.") as layer:
            for name in LLAMA_NORMS:
                layer.norm(name, shape.hidden)
            layer.add(latent_attention(layer, shape, layer.stream, index if indexed else None))
            if sparse:
                layer.add(shared_and_routed(layer, shape.hidden, experts, n_shared, layer.stream))
                if style.sparse_norm:
                    layer.norm(style.sparse_norm, shape.hidden)
                    layer.open_end = False
            else:
                bias = bool(style.mlp_bias and cfg.bool("mlp_bias", False))
                width = cfg.int("intermediate_size")
                layer.add(gated_mlp(layer, shape.hidden, width, layer.stream, bias=bias))
    trace.vector(f"{prefix}norm.weight", shape.hidden)


def build(cfg: Fields) -> Architecture:
    """A text model of one of the families in STYLES, or `kimi_k25` around one."""
    text, head, sees = cfg, has_head(cfg), cfg.str("model_type") == "kimi_k25"
    if sees:
        text = cfg.sub("text_config")
    style = STYLES.get(text.str("model_type", "deepseek_v3"), STYLES["deepseek_v3"])
    trace = Trace()
    hidden, vocab = text.int("hidden_size"), text.int("vocab_size")
    decoder(trace, text, style, prefix="model.language_model." if sees else "model.")
    tied = bool(
        cfg.bool("tie_word_embeddings", True) if sees else cfg.bool("tie_word_embeddings", style.tied)
    )
    if sees:
        kimi_k25(trace, cfg, hidden)
    if head:
        unembedding(trace, hidden, vocab, tied=tied)
    return finish(
        trace, cfg, n_layers=text.int("num_hidden_layers"), hidden=hidden, vocab=vocab, tied=tied,
        max_position=text.int("max_position_embeddings", None),
    )  # fmt: skip
