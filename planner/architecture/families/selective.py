"""Models on Mamba's selective scan: Mamba and Falcon Mamba alone, Jamba and Zamba with attention between."""

from __future__ import annotations

from dataclasses import dataclass

from ...schema import Role
from ..fields import Fields
from ..trace import Layer, Trace
from .common import gated_mlp, grouped_attention, groups, read_heads
from .experts import read_routed, routed
from .scans import Mamba, flag, layer_kinds, mamba, time_step_rank


def mamba_decoder(trace: Trace, cfg: Fields) -> int:
    """Mamba and Falcon Mamba: nothing but mixers, and no cache while training."""
    hidden, n_layers = cfg.int("hidden_size"), cfg.int("num_hidden_layers")
    inner = cfg.int("intermediate_size", int(cfg.number("expand", 2) * hidden))
    shape = Mamba(
        hidden, inner, cfg.int("state_size", 16), cfg.int("conv_kernel", 4),
        time_step_rank(cfg, "time_step_rank", hidden), flag(cfg, "use_bias", False),
        flag(cfg, "use_conv_bias", True), cached=False,
    )  # fmt: skip
    trace.embedding("backbone.embeddings", cfg.int("vocab_size"), hidden)
    with trace.layer("decoder", range(n_layers), "backbone.layers.{}.") as layer:
        layer.norm("norm", hidden)
        layer.add(mamba(layer, shape, layer.stream, "mixer."))
    trace.vector("backbone.norm_f.weight", hidden)
    return int(n_layers)


def _jamba_mixer(cfg: Fields, hidden: int, heads: int = 1) -> Mamba:
    inner = cfg.int("mamba_expand", 2) * hidden
    if inner % heads:
        raise cfg.fail("n_mamba_heads", f"a divisor of mamba_expand * hidden_size ({inner})")
    return Mamba(
        hidden, inner, cfg.int("mamba_d_state", 16), cfg.int("mamba_d_conv", 4),
        time_step_rank(cfg, "mamba_dt_rank", hidden), flag(cfg, "mamba_proj_bias", False),
        flag(cfg, "mamba_conv_bias", True), heads=heads, inner_norms=heads == 1,
    )  # fmt: skip


def _periodic(cfg: Fields, name: str, period: int, offset: int, n_layers: int) -> list[bool]:
    every = cfg.int(f"{name}_period", period)
    first = cfg.int(f"{name}_offset", offset, minimum=0)
    if first >= every:
        raise cfg.fail(f"{name}_offset", f"less than {name}_period ({every})")
    return [i % every == first for i in range(n_layers)]


def jamba_decoder(trace: Trace, cfg: Fields) -> int:
    """Jamba: attention and experts each in every so many layers."""
    heads, n_layers = read_heads(cfg, 8), cfg.int("num_hidden_layers")
    hidden, width = heads.hidden, cfg.int("intermediate_size")
    shape = _jamba_mixer(cfg, hidden)
    experts = read_routed(cfg, cfg.int("num_experts", 16), width, 2)
    attention = _periodic(cfg, "attn_layer", 8, 4, n_layers)
    sparse = [chosen and experts.n > 1 for chosen in _periodic(cfg, "expert_layer", 2, 1, n_layers)]
    trace.embedding("model.embed_tokens", cfg.int("vocab_size"), hidden)
    for (attends, has_experts), numbers in groups(list(zip(attention, sparse, strict=True))):
        with trace.layer("decoder", numbers, "model.layers.{}.") as layer:
            layer.norm("input_layernorm", hidden)
            layer.norm("pre_ff_layernorm", hidden)
            if attends:
                layer.add(grouped_attention(layer, heads, layer.stream))
            else:
                layer.add(mamba(layer, shape, layer.stream, "mamba."))
            if has_experts:
                chosen = routed(layer, hidden, experts, layer.stream, prefix="feed_forward.", router="router")
                layer.add(chosen)
            else:
                layer.add(gated_mlp(layer, hidden, width, layer.stream, prefix="feed_forward."))
    trace.vector("model.final_layernorm.weight", hidden)
    return int(n_layers)


@dataclass(frozen=True)
class _Shared:
    """Zamba's one transformer layer, over the stream and the embedding side by side."""

    hidden: int
    wide: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    width: int


def _read_shared(cfg: Fields) -> _Shared:
    hidden, n_heads = cfg.int("hidden_size"), cfg.int("num_attention_heads")
    n_kv = cfg.int("num_key_value_heads", 16)
    if n_heads % n_kv:
        raise cfg.fail("num_key_value_heads", f"a divisor of num_attention_heads ({n_heads})")
    wide = cfg.int("attention_hidden_size", 2 * hidden)
    if wide != 2 * hidden:
        raise cfg.fail("attention_hidden_size", f"2 * hidden_size ({2 * hidden})")
    d_head = cfg.int("attention_head_dim", cfg.int("head_dim", 2 * hidden // n_heads))
    return _Shared(hidden, wide, n_heads, n_kv, d_head, cfg.int("intermediate_size"))


def _shared_transformer(layer: Layer, shape: _Shared, first: bool) -> int:
    """The transformer whose weights all hybrid layers share: stored in the first, tied in the others."""
    prefix, x = "shared_transf.", layer.join(layer.stream, layer.memory)
    if first:
        layer.norm(prefix + "input_layernorm", shape.wide)
        layer.norm(prefix + "pre_ff_layernorm", shape.hidden)
    q_width, kv_width = shape.n_heads * shape.d_head, shape.n_kv_heads * shape.d_head

    def project(name: str, d_in: int, d_out: int, source: int) -> int:
        role: Role = "attention" if name.startswith("self_attn") else "mlp"
        return layer.linear(prefix + name, role, d_in, d_out, source, tied=not first)

    q = project("self_attn.q_proj", shape.wide, q_width, x)
    k = project("self_attn.k_proj", shape.wide, kv_width, x)
    v = project("self_attn.v_proj", shape.wide, kv_width, x)
    mixed = layer.attend(
        q, k, v, n_heads=shape.n_heads, n_kv_heads=shape.n_kv_heads, d_qk=shape.d_head, d_v=shape.d_head
    )
    x = project("self_attn.o_proj", q_width, shape.hidden, mixed)
    gate = project("feed_forward.gate_proj", shape.hidden, shape.width, x)
    up = project("feed_forward.up_proj", shape.hidden, shape.width, x)
    return project("feed_forward.down_proj", shape.width, shape.hidden, layer.join(gate, up))


def _zamba_kinds(cfg: Fields, n_layers: int) -> list[bool]:
    names = {"mamba": "linear_attention", "linear_attention": "linear_attention", "hybrid": "hybrid"}
    for key in ("layers_block_type", "layer_types"):
        if cfg.has(key):
            return [kind == "hybrid" for kind in layer_kinds(cfg, key, names, n_layers)]
    if n_layers < 3:
        raise cfg.fail("num_hidden_layers", "at least 3, or a layers_block_type field")
    return [False, False, True, *_periodic(cfg, "attn_layer", 6, 4, n_layers - 3)]


def zamba_decoder(trace: Trace, cfg: Fields) -> int:
    """Zamba: Mamba layers, some of which first run the shared transformer. The flag that ties the embeddings is
    the one that ties this transformer, too."""
    shared, n_layers = _read_shared(cfg), cfg.int("num_hidden_layers")
    hidden, shape = shared.hidden, _jamba_mixer(cfg, shared.hidden, cfg.int("n_mamba_heads", 2))
    hybrid = _zamba_kinds(cfg, n_layers)
    tied = flag(cfg, "tie_word_embeddings", True)
    trace.embedding("model.embed_tokens", cfg.int("vocab_size"), hidden)
    keys = [(chosen, not tied or True not in hybrid[:i]) for i, chosen in enumerate(hybrid)]
    for (chosen, is_first), numbers in groups(keys):
        with trace.layer("decoder", numbers, "model.layers.{}.") as layer:
            x, prefix = layer.stream, "mamba_decoder." if chosen else ""
            if chosen:
                wide = _shared_transformer(layer, shared, is_first)
                x = layer.join(x, layer.linear("linear", "mlp", hidden, hidden, wide))
            layer.norm(prefix + "input_layernorm", hidden)
            layer.add(mamba(layer, shape, x, prefix + "mamba."))
    trace.vector("model.final_layernorm.weight", hidden)
    return int(n_layers)
