"""Mamba-2 alone, Bamba (attention in some layers) and Zamba 2 (shared transformers before some mixers)."""

from __future__ import annotations

from dataclasses import dataclass

from ...schema import Part, Role
from ..fields import Fields
from ..trace import Layer, Trace
from .common import gated_mlp, grouped_attention, groups, read_heads
from .scans import Mamba2, check_groups, flag, layer_kinds, mamba2


def read_mixer(cfg: Fields, hidden: int, inner: int, out_bias: bool, norm: bool) -> Mamba2:
    """A Mamba-2 mixer from the fields that hybrids name with `mamba_`."""
    n_heads, d_head = cfg.int("mamba_n_heads", 128), cfg.data.get("mamba_d_head", "auto")
    d_head = inner // n_heads if d_head in ("auto", None) else cfg.int("mamba_d_head")
    if d_head * n_heads != inner:
        raise cfg.fail("mamba_n_heads", f"heads of mamba_d_head that fill the inner width ({inner})")
    shape = Mamba2(
        hidden, n_heads, d_head, cfg.int("mamba_n_groups", 1), cfg.int("mamba_d_state", 256),
        cfg.int("mamba_d_conv", 4), cfg.int("mamba_chunk_size", 256), flag(cfg, "mamba_proj_bias", False),
        out_bias, flag(cfg, "mamba_conv_bias", True), norm,
    )  # fmt: skip
    return check_groups(cfg, shape, "mamba_n_heads")


def mamba2_decoder(trace: Trace, cfg: Fields) -> int:
    """Mamba-2: nothing but mixers."""
    hidden, n_layers = cfg.int("hidden_size"), cfg.int("num_hidden_layers")
    n_heads, d_head, bias = cfg.int("num_heads", 128), cfg.int("head_dim", 64), flag(cfg, "use_bias", False)
    inner = cfg.int("expand", 2) * hidden
    if n_heads * d_head != inner:
        raise cfg.fail("num_heads", f"heads of head_dim that fill expand * hidden_size ({inner})")
    shape = check_groups(cfg, Mamba2(
        hidden, n_heads, d_head, cfg.int("n_groups", 8), cfg.int("state_size", 128), cfg.int("conv_kernel", 4),
        cfg.int("chunk_size", 256), bias, bias, flag(cfg, "use_conv_bias", True), cached=False,
    ), "num_heads")  # fmt: skip
    trace.embedding("backbone.embeddings", cfg.int("vocab_size"), hidden)
    with trace.layer("decoder", range(n_layers), "backbone.layers.{}.") as layer:
        layer.norm("norm", hidden)
        layer.add(mamba2(layer, shape, layer.stream, "mixer."))
    trace.vector("backbone.norm_f.weight", hidden)
    return int(n_layers)


def bamba_decoder(trace: Trace, cfg: Fields) -> int:
    """Bamba: Mamba-2, with attention in the layers of `attn_layer_indices`, and an MLP behind either."""
    heads, n_layers = read_heads(cfg, 8), cfg.int("num_hidden_layers")
    hidden, width = heads.hidden, cfg.int("intermediate_size", 14336)
    bias, mlp_bias, proj_bias = (
        flag(cfg, key, False) for key in ("attention_bias", "mlp_bias", "mamba_proj_bias")
    )
    mixer = read_mixer(cfg, hidden, cfg.int("mamba_expand", 2) * hidden, proj_bias, True)
    chosen = cfg.list("attn_layer_indices", [])
    trace.embedding("model.embed_tokens", cfg.int("vocab_size"), hidden)
    for attends, numbers in groups([number in chosen for number in range(n_layers)]):
        with trace.layer("decoder", numbers, "model.layers.{}.") as layer:
            layer.norm("input_layernorm", hidden)
            layer.norm("pre_ff_layernorm", hidden)
            if attends:
                layer.add(grouped_attention(layer, heads, layer.stream, qkv_bias=bias, o_bias=bias))
            else:
                layer.add(mamba2(layer, mixer, layer.stream, "mamba."))
            layer.add(gated_mlp(layer, hidden, width, layer.stream, prefix="feed_forward.", bias=mlp_bias))
    trace.vector("model.final_layernorm.weight", hidden)
    return int(n_layers)


@dataclass(frozen=True)
class Shared:
    """Zamba 2's transformers, over the stream and the embedding side by side: `n` of them, in turn. Each place that
    runs one has small matrices of its own beside the shared ones, of inner width `rank`. With `ties`
    they are stored once, as the flag says that ties the embeddings."""

    hidden: int
    n: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    width: int
    rank: int
    adapts_attention: bool
    bias: bool
    ties: bool

    @property
    def wide(self) -> int:
        """Width of stream and embedding together."""
        return 2 * self.hidden


def _read_shared(cfg: Fields) -> Shared:
    hidden, n_heads = cfg.int("hidden_size"), cfg.int("num_attention_heads", 32)
    n_kv, adapts = cfg.int("num_key_value_heads", n_heads), flag(cfg, "use_shared_attention_adapter", False)
    if n_heads % n_kv:
        raise cfg.fail("num_key_value_heads", f"a divisor of num_attention_heads ({n_heads})")
    d_head = cfg.int("attention_head_dim", cfg.int("head_dim", 2 * hidden // n_heads))
    if d_head != 2 * hidden // n_heads:
        raise cfg.fail(
            "attention_head_dim", f"2 * hidden_size / num_attention_heads ({2 * hidden // n_heads})"
        )
    if adapts and n_kv * d_head != 2 * hidden:
        raise cfg.fail("num_key_value_heads", f"num_attention_heads ({n_heads}) where attention has adapters")
    return Shared(
        hidden, cfg.int("num_mem_blocks", 1), n_heads, n_kv, d_head, cfg.int("intermediate_size", 4 * hidden),
        cfg.int("adapter_rank", 128), adapts, flag(cfg, "add_bias_linear", False),
        flag(cfg, "tie_word_embeddings", True),
    )  # fmt: skip


class _Transformer:
    """The transformer of one hybrid layer, the `place`-th of `places`: stored in the first layer that runs it."""

    def __init__(self, layer: Layer, shape: Shared, place: int, places: int) -> None:
        self.layer, self.shape, self.place = layer, shape, place
        self.tied = shape.ties and place >= shape.n
        self.mates = range(place % shape.n, places, shape.n)

    def _matrix(self, name: str, d_in: int, d_out: int, x: int, bias: bool = False, split: int = 0) -> int:
        role: Role = "attention" if name.startswith("self_attn") else "mlp"
        parts = (Part("gate_proj", d_in, split), Part("up_proj", d_in, split)) if split else ()
        full, bias = "shared_transformer." + name, bias and not self.tied  # a bias is stored with its matrix
        return self.layer.linear(full, role, d_in, d_out, x, bias=bias, parts=parts, tied=self.tied)

    def _beside(self, name: str, d_in: int, d_out: int, x: int, split: int = 0) -> int:
        """The small matrices of every place that runs this transformer, of which only this place's run."""
        out, rank = x, self.shape.rank
        for mate in self.mates:
            if mate == self.place:
                inner = self._matrix(f"{name}.{mate}.0", d_in, rank, x)
                out = self._matrix(f"{name}.{mate}.1", rank, d_out, inner)
            else:
                role: Role = "attention" if name.startswith("self_attn") else "mlp"
                for number, sides in enumerate(((d_in, rank), (rank, d_out))):
                    full = f"shared_transformer.{name}.{mate}.{number}"
                    self.layer.idle(full, role, *sides, tied=self.tied)
        return out

    def run(self) -> int:
        """Attention and MLP, one straight after the other."""
        layer, shape = self.layer, self.shape
        x = layer.join(layer.stream, layer.memory)
        if not self.tied:
            layer.norm("shared_transformer.input_layernorm", shape.wide)
            layer.norm("shared_transformer.pre_ff_layernorm", shape.hidden)
        q_width, kv_width = shape.n_heads * shape.d_head, shape.n_kv_heads * shape.d_head
        made = []
        for letter, width in (("q", q_width), ("k", kv_width), ("v", kv_width)):
            value = self._matrix(f"self_attn.{letter}_proj", shape.wide, width, x)
            if shape.adapts_attention:
                name = f"self_attn.linear_{letter}_adapter_list"
                value = layer.join(value, self._beside(name, shape.wide, shape.wide, x))
            made.append(value)
        mixed = layer.attend(
            *made, n_heads=shape.n_heads, n_kv_heads=shape.n_kv_heads, d_qk=shape.d_head, d_v=shape.d_head
        )
        x = self._matrix("self_attn.o_proj", q_width, shape.hidden, mixed)
        width, bias = shape.width, shape.bias
        both = self._matrix("feed_forward.gate_up_proj", shape.hidden, 2 * width, x, bias=bias, split=width)
        beside = self._beside("feed_forward.gate_up_proj_adapter_list", shape.hidden, 2 * width, x)
        return self._matrix(
            "feed_forward.down_proj", width, shape.hidden, layer.join(both, beside), bias=bias
        )


ZAMBA2_KINDS = {"mamba": "linear_attention", "linear_attention": "linear_attention", "hybrid": "hybrid"}


def _zamba2_kinds(cfg: Fields, n_layers: int) -> list[bool]:
    for key in ("layer_types", "layers_block_type"):
        if cfg.has(key):
            return [kind == "hybrid" for kind in layer_kinds(cfg, key, ZAMBA2_KINDS, n_layers)]
    if n_layers != 54:
        raise cfg.fail("num_hidden_layers", "54, or a layers_block_type field")
    return [number in (6, 12, 18, 24, 30, 36, 42, 47, 51) for number in range(n_layers)]


def zamba2_decoder(trace: Trace, cfg: Fields) -> int:
    """Zamba 2: Mamba-2 layers, some of which first run one of the shared transformers."""
    shared, n_layers = _read_shared(cfg), cfg.int("num_hidden_layers")
    hidden, inner = shared.hidden, cfg.int("mamba_expand", 2) * shared.hidden
    n_heads = cfg.int("n_mamba_heads", 8)
    if inner % n_heads:
        raise cfg.fail("n_mamba_heads", f"a divisor of mamba_expand * hidden_size ({inner})")
    mixer = check_groups(cfg, Mamba2(
        hidden, n_heads, inner // n_heads, cfg.int("mamba_ngroups", 1), cfg.int("mamba_d_state", 64),
        cfg.int("mamba_d_conv", 4), cfg.int("chunk_size", 256), shared.bias, shared.bias,
    ), "n_mamba_heads")  # fmt: skip
    hybrid = _zamba2_kinds(cfg, n_layers)
    trace.embedding("model.embed_tokens", cfg.int("vocab_size"), hidden)
    places = [sum(hybrid[:number]) if chosen else None for number, chosen in enumerate(hybrid)]
    for place, numbers in groups(places):
        with trace.layer("decoder", numbers, "model.layers.{}.") as layer:
            x, prefix = layer.stream, ""
            if place is not None:
                made = _Transformer(layer, shared, place, sum(hybrid)).run()
                x, prefix = (
                    layer.join(x, layer.linear("linear", "mlp", hidden, hidden, made)),
                    "mamba_decoder.",
                )
            layer.norm(prefix + "input_layernorm", hidden)
            layer.add(mamba2(layer, mixer, x, prefix + "mamba."))
    trace.vector("model.final_layernorm.weight", hidden)
    return int(n_layers)
