"""Encoder-decoders and contrastive pairs: T5's kind, Whisper, CLIP.

A step of an encoder-decoder is batch x seq_len tokens in the encoder and as many in the decoder; Whisper's
encoder has its fixed number of frames instead, and reads sound, which needs no gradient.
"""

from __future__ import annotations

from dataclasses import replace

from ...errors import UnsupportedArchitectureError
from ...schema import Architecture, Length, Matrix, Role
from ..fields import Fields
from ..trace import Layer, Trace
from .common import Heads, finish, gated_mlp, plain_mlp, unembedding

LATER_T5 = ("mt5", "umt5")
QKV = ("q_proj", "k_proj", "v_proj", "out_proj")
NO_LOSS = "the class has no loss over tokens: what a step does behind the last hidden state is not settled"
CONTRASTIVE = "a contrastive model has no loss over tokens: its step depends on pairs of images and texts"
MEMORY_LENGTH: Length = "memory"
SEQUENCE_LENGTH: Length = "sequence"
SEPARATE_HEAD = (
    "the checkpoint stores a separate lm_head ({} parameters); transformers ties it to the embedding, and so does "
    "this count"
)
LAYERDROP = "layerdrop skips layers at random, so no step has a fixed number of FLOPs"


def class_name(cfg: Fields, *known: str) -> str:
    """Which of the known endings the class in `architectures` has, the first where none is named."""
    names = cfg.list("architectures", []) or [known[0]]
    for ending in known:
        if str(names[0]).endswith(ending) and not str(names[0]).endswith("LMHeadModel"):
            return ending
    raise UnsupportedArchitectureError(
        f"{names[0]} has no builder in this version: known for this type are classes ending in {', '.join(known)}."
    )


def heads_of(cfg: Fields, hidden: str = "hidden_size", heads: str = "num_attention_heads") -> Heads:
    """Heads that share the hidden width evenly, keys and values as many as queries."""
    width, n = cfg.int(hidden), cfg.int(heads)
    if width % n:
        raise cfg.fail(heads, f"a divisor of {hidden} ({width})")
    return Heads(width, n, n, width // n)


def attention(
    layer: Layer, heads: Heads, x: int, prefix: str, names: tuple[str, ...] = QKV, *, memory: bool = False,
    causal: bool = False, bias: bool = True, k_bias: bool = True,
) -> int:  # fmt: skip
    """Attention over `x`, or from `x` to the encoder's output."""
    source, where = (layer.memory, MEMORY_LENGTH) if memory else (x, SEQUENCE_LENGTH)
    q = layer.linear(prefix + names[0], "attention", heads.hidden, heads.q, x, bias=bias)
    k = layer.linear(
        prefix + names[1], "attention", heads.hidden, heads.q, source, bias=bias and k_bias, length=where
    )
    v = layer.linear(prefix + names[2], "attention", heads.hidden, heads.q, source, bias=bias, length=where)
    mixed = layer.attend(
        q, k, v, n_heads=heads.n_heads, n_kv_heads=heads.n_heads, d_qk=heads.d_head, d_v=heads.d_head,
        causal=causal, memory=memory,
    )  # fmt: skip
    return layer.linear(prefix + names[3], "attention", heads.q, heads.hidden, mixed, bias=bias)


def _norm(trace: Trace, name: str, hidden: int, bias: bool = True) -> None:
    trace.vector(f"{name}.weight", hidden)
    if bias:
        trace.vector(f"{name}.bias", hidden)


def _t5_feed_forward(layer: Layer, cfg: Fields, hidden: int, prefix: str) -> int:
    usual = "gated-gelu" if cfg.str("model_type") in LATER_T5 else "relu"
    width, kind = cfg.int("d_ff"), cfg.str("feed_forward_proj", usual).split("-")
    if len(kind) > 2 or (len(kind) == 2 and kind[0] != "gated"):
        raise cfg.fail("feed_forward_proj", "an activation, or gated-ACTIVATION")
    layer.norm(f"{prefix}layer_norm", hidden)
    prefix = f"{prefix}DenseReluDense."
    if kind[0] == "gated":
        return gated_mlp(layer, hidden, width, layer.stream, prefix=prefix, names=("wi_0", "wi_1", "wo"))
    return plain_mlp(layer, hidden, width, layer.stream, prefix=prefix, names=("wi", "wo"))


def _t5_stack(trace: Trace, cfg: Fields, heads: Heads, stack: str, n_layers: int) -> None:
    """Encoder or decoder; only its first layer has the table of relative positions, in UMT5 every layer."""
    decoder = stack == "decoder"
    block = f"{stack}.block.{{}}.layer."
    buckets = cfg.int("relative_attention_num_buckets", 32)
    name = f"{block}0.SelfAttention.relative_attention_bias"
    tables = n_layers if cfg.str("model_type") == "umt5" else 1
    trace.matrix(range(tables), Matrix(name, "other", "embedding", buckets, heads.n_heads))
    with trace.layer(stack, range(n_layers), block) as layer:
        layer.open_end, layer.clamps = cfg.number("dropout_rate", 0.1) == 0, "sums"
        parts = [("0.", "SelfAttention."), ("1.", "EncDecAttention.")][: 1 + decoder]
        for number, name in parts:
            layer.norm(f"{number}layer_norm", heads.hidden)
            cross = number == "1."
            layer.add(
                attention(
                    layer, heads, layer.stream, number + name, ("q", "k", "v", "o"), bias=False, memory=cross,
                    causal=decoder and not cross,
                )
            )  # fmt: skip
        layer.add(_t5_feed_forward(layer, cfg, heads.hidden, f"{len(parts)}."))
    trace.vector(f"{stack}.final_layer_norm.weight", heads.hidden)


def _t5(cfg: Fields) -> Architecture:
    """T5, its 1.1 version and FLAN, and mT5; the encoder alone where the class is one."""
    kind = class_name(cfg, "ForConditionalGeneration", "EncoderModel", "Model")
    headed = kind == "ForConditionalGeneration"
    hidden, n, vocab = cfg.int("d_model"), cfg.int("num_heads"), cfg.int("vocab_size")
    heads = Heads(hidden, n, n, cfg.int("d_kv"))
    n_encoder = cfg.int("num_layers")
    n_decoder = 0 if kind == "EncoderModel" else cfg.int("num_decoder_layers", n_encoder)
    trace = Trace()
    trace.embedding("shared", vocab, hidden)
    _t5_stack(trace, cfg, heads, "encoder", n_encoder)
    if n_decoder:
        _t5_stack(trace, cfg, heads, "decoder", n_decoder)
    notes: tuple[str, ...] = ()
    if headed:
        unembedding(trace, hidden, vocab, tied=True)
        if not cfg.bool("tie_word_embeddings", True):
            notes = (SEPARATE_HEAD.format(vocab * hidden),)
    found = finish(
        trace, cfg, n_layers=n_encoder + n_decoder, hidden=hidden, vocab=vocab, tied=headed, notes=notes,
        max_position=cfg.int("n_positions", None), flops_gap=None if headed else NO_LOSS,
    )  # fmt: skip
    wide = tuple(replace(m, wide=m.leaf == "wo") for m in found.matrices)
    return replace(found, matrices=wide, activation=_t5_activation(cfg))


def _t5_activation(cfg: Fields) -> str:
    """The MLPs' activation function: the older name of the gated one means its form in Python."""
    named = cfg.str("feed_forward_proj", "gated-gelu" if cfg.str("model_type") in LATER_T5 else "relu")
    return "gelu_new" if named == "gated-gelu" else str(named).removeprefix("gated-")


def _whisper_layers(trace: Trace, cfg: Fields, base: str, stack: str, frames: int) -> None:
    """Encoder layers over the frames, or decoder layers that also attend to them."""
    decoder = stack == "decoder"
    heads = heads_of(cfg, "d_model", f"{stack}_attention_heads")
    width, numbers = cfg.int(f"{stack}_ffn_dim"), range(cfg.int(f"{stack}_layers"))
    with trace.layer(stack, numbers, f"{base}{stack}.layers.{{}}.", None if decoder else frames) as layer:
        layer.open_end, layer.clamps = cfg.number("dropout", 0.0) == 0, "none" if decoder else "end"
        for name in ("self_attn", "encoder_attn")[: 1 + decoder]:
            layer.norm(f"{name}_layer_norm", heads.hidden, True)
            cross = name == "encoder_attn"
            layer.add(
                attention(
                    layer, heads, layer.stream, f"{name}.", k_bias=False, memory=cross,
                    causal=decoder and not cross,
                )
            )  # fmt: skip
        layer.norm("final_layer_norm", heads.hidden, True)
        layer.add(
            plain_mlp(layer, heads.hidden, width, layer.stream, prefix="", names=("fc1", "fc2"), bias=True)
        )
    _norm(trace, f"{base}{stack}.layer_norm", heads.hidden)


def _whisper_stem(trace: Trace, cfg: Fields, base: str, hidden: int, frames: int) -> None:
    """Two convolutions over the mel spectrogram, the second of which halves its length."""
    for name, channels, per in (("conv1", cfg.int("num_mel_bins"), 1), ("conv2", hidden, 2)):
        with trace.layer("stem", (0,), f"{base}encoder.", 2 * frames) as stem:
            stem.features = name == "conv1"
            stem.stream = stem.linear(
                name, "audio", 3 * channels, hidden, stem.stream, kind="convolution", bias=True, per=per
            )
    trace.embedding(f"{base}encoder.embed_positions", frames, hidden, role="other")


def _whisper(cfg: Fields) -> Architecture:
    """Whisper: a stem of convolutions, an encoder over a fixed number of frames, a decoder over the text."""
    hidden, vocab = cfg.int("d_model"), cfg.int("vocab_size")
    frames, positions = cfg.int("max_source_positions", 1500), cfg.int("max_target_positions", 448)
    headed = class_name(cfg, "ForConditionalGeneration", "Model") != "Model"
    tied = bool(cfg.bool("tie_word_embeddings", True))
    trace, base = Trace(), "model." if headed else ""
    _whisper_stem(trace, cfg, base, hidden, frames)
    _whisper_layers(trace, cfg, base, "encoder", frames)
    trace.embedding(f"{base}decoder.embed_tokens", vocab, hidden)
    trace.embedding(f"{base}decoder.embed_positions", positions, hidden, role="other")
    _whisper_layers(trace, cfg, base, "decoder", frames)
    gap = None if headed else NO_LOSS
    if cfg.number("encoder_layerdrop", 0.0) > 0 or cfg.number("decoder_layerdrop", 0.0) > 0:
        gap = LAYERDROP
    if headed:
        unembedding(trace, hidden, vocab, tied=tied, name="proj_out")
    return finish(
        trace, cfg, n_layers=cfg.int("encoder_layers") + cfg.int("decoder_layers"), hidden=hidden,
        vocab=vocab, tied=tied, max_position=positions, flops_gap=gap,
    )  # fmt: skip


def _clip_tower(trace: Trace, cfg: Fields, tower: str, defaults: dict[str, int]) -> int:
    """The layers of one tower, whose roles are the text's own or all vision; returns its width."""
    hidden = int(cfg.int("hidden_size", defaults["hidden_size"]))
    width = cfg.int("intermediate_size", defaults["intermediate_size"])
    n_heads = cfg.int("num_attention_heads", defaults["num_attention_heads"])
    if hidden % n_heads:
        raise cfg.fail("num_attention_heads", f"a divisor of hidden_size ({hidden})")
    numbers = range(cfg.int("num_hidden_layers", 12))
    text = tower == "text_model"
    mixing: Role = "attention" if text else "vision"
    mlp: Role = "mlp" if text else "vision"
    layer = f"{tower}.encoder.layers.{{}}."
    for name in QKV:
        trace.weight(f"{layer}self_attn.{name}", mixing, hidden, hidden, bias=True, layers=numbers)
    trace.weight(f"{layer}mlp.fc1", mlp, hidden, width, bias=True, layers=numbers)
    trace.weight(f"{layer}mlp.fc2", mlp, width, hidden, bias=True, layers=numbers)
    for name in ("layer_norm1", "layer_norm2"):
        for part in ("weight", "bias"):
            trace.vector(f"{layer}{name}.{part}", hidden, numbers)
    return hidden


def _side(cfg: Fields, key: str) -> int:
    """The side of a square given as a number or as a pair."""
    value = cfg.data.get(key)
    if isinstance(value, (list, tuple)) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    return int(Fields({key: value}, cfg.path).int(key, {"image_size": 224, "patch_size": 32}[key]))


def _clip_vision(trace: Trace, cfg: Fields) -> int:
    """Patches, a class token and the layers."""
    hidden = _clip_tower(
        trace, cfg, "vision_model", {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    )
    patch, image = _side(cfg, "patch_size"), _side(cfg, "image_size")
    trace.weight(
        "vision_model.embeddings.patch_embedding", "vision", cfg.int("num_channels", 3) * patch * patch, hidden,
        kind="convolution",
    )  # fmt: skip
    positions = (image // patch) ** 2 + 1
    trace.embedding("vision_model.embeddings.position_embedding", positions, hidden, role="other")
    trace.vector("vision_model.embeddings.class_embedding", hidden)
    _norm(trace, "vision_model.pre_layrnorm", hidden)
    _norm(trace, "vision_model.post_layernorm", hidden)
    return hidden


def _merged(cfg: Fields, key: str) -> Fields:
    """A nested config, under the older copy that overrides it where a config holds both."""
    return Fields({**cfg.sub(key, {}).data, **cfg.sub(f"{key}_dict", {}).data}, key)


def _clip(cfg: Fields) -> Architecture:
    """CLIP: a text and a vision tower, each projected to the common space."""
    class_name(cfg, "CLIPModel")
    trace, text = Trace(), _merged(cfg, "text_config")
    vision = _clip_vision(trace, _merged(cfg, "vision_config"))
    hidden = _clip_tower(
        trace, text, "text_model", {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
    )
    vocab, positions = text.int("vocab_size", 49408), text.int("max_position_embeddings", 77)
    trace.embedding("text_model.embeddings.token_embedding", vocab, hidden)
    trace.embedding("text_model.embeddings.position_embedding", positions, hidden, role="other")
    _norm(trace, "text_model.final_layer_norm", hidden)
    common = cfg.int("projection_dim", 512)
    trace.weight("visual_projection", "projector", vision, common)
    trace.weight("text_projection", "projector", hidden, common)
    trace.vector("logit_scale", 1)
    return finish(
        trace, cfg, n_layers=text.int("num_hidden_layers", 12), hidden=hidden, vocab=vocab, tied=False,
        max_position=positions, flops_gap=CONTRASTIVE,
    )  # fmt: skip


_BUILD = {
    "t5": _t5, "mt5": _t5, "umt5": _t5, "whisper": _whisper,
    "clip": _clip,
}  # fmt: skip


def build(cfg: Fields) -> Architecture:
    """An encoder-decoder or a contrastive pair."""
    return _BUILD[cfg.str("model_type")](cfg)
