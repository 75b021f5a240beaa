"""BERT's kind: encoders of full attention under a masked-LM head, a causal one, or bare with a pooler."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UnsupportedArchitectureError
from ...schema import Architecture
from ..fields import Fields
from ..trace import Layer, Trace
from .common import Heads, finish, plain_mlp
from .encoders import NO_LOSS, attention, heads_of

FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_dropout_prob",
)
BEHIND = ("attention.output.LayerNorm", "output.LayerNorm")


@dataclass(frozen=True)
class Head:
    """What stands before the vocabulary: names of a dense layer and its norm (None: neither), of the unembedding, and
    of a bias that is the head's own parameter (None: the unembedding's own)."""

    dense: str | None
    norm: str | None
    decoder: str
    bias: str | None = None


ROBERTA_HEAD = Head("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias")
BERT_HEAD = Head(
    "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder",
    "cls.predictions.bias",
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """What sets a family apart. `norms` stand behind attention and MLP, or before them where the stack has a norm of
    its own at its end. `width` is the field of the embedding's width with the class's default (None: the hidden
    width), `out` likewise of the head's; where the first differs, `project` leads from one to the other. Tables have
    the class's number of rows; None where it has no such table. `dropout_behind`: the MLP's result may be dropped.
    `sinusoids`: positions are a fixed table of a head's width, for the rotation. `pools_always`: under a head too the
    first token passes the pooler, whose result the loss does not see."""

    base: str = "bert."
    layers: str = "encoder.layer.{}."
    qkv: tuple[str, str, str, str] = (
        "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"
    )  # fmt: skip
    mlp: tuple[str, str] = ("intermediate.dense", "output.dense")
    norms: tuple[str, str] = BEHIND
    stack_norm: str | None = None
    embedding_norm: bool = True
    positions: int = 512
    types: int | None = 2
    width: tuple[str, int | None] | None = None
    out: tuple[str, int] | None = None
    project: str = "embeddings_project"
    head: Head = BERT_HEAD
    fields: tuple[str, str, str, str, str] = FIELDS
    dropout_behind: bool = True
    pooler: bool = True
    never_tied: bool = False
    sinusoids: bool = False
    pools_always: bool = False


STYLES: dict[str, Style] = {
    "bert": Style(),
    "roberta": Style("roberta.", head=ROBERTA_HEAD),
    "data2vec-text": Style("data2vec_text.", head=ROBERTA_HEAD),
    "ernie": Style("ernie."),
    "layoutlm": Style("layoutlm.", pools_always=True),
    "roc_bert": Style("roc_bert."),
    "roberta-prelayernorm": Style(
        "roberta_prelayernorm.", head=ROBERTA_HEAD, norms=("attention.LayerNorm", "intermediate.LayerNorm"),
        stack_norm="LayerNorm",
    ),
    "xlm-roberta-xl": Style(
        "roberta.", head=ROBERTA_HEAD, norms=("attention.self_attn_layer_norm", "LayerNorm"), types=1,
        stack_norm="encoder.LayerNorm", embedding_norm=False, positions=514, dropout_behind=False,
    ),
    "megatron-bert": Style(norms=("attention.ln", "ln"), stack_norm="encoder.ln", embedding_norm=False),
    "bert-generation": Style(
        types=None, head=Head(None, None, "lm_head.decoder", "lm_head.bias"), pooler=False
    ),
    "electra": Style(
        "electra.", width=("embedding_size", 128), pooler=False,
        head=Head("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head"),
    ),
    "roformer": Style(
        "roformer.", width=("embedding_size", None), pooler=False, positions=1536, sinusoids=True
    ),
    "rembert": Style(
        "rembert.", width=("input_embedding_size", 256), out=("output_embedding_size", 1664), never_tied=True,
        project="encoder.embedding_hidden_mapping_in",
        head=Head("cls.predictions.dense", "cls.predictions.LayerNorm", "cls.predictions.decoder"),
    ),
    "mpnet": Style(
        "mpnet.", types=None, head=ROBERTA_HEAD, norms=("attention.LayerNorm", "output.LayerNorm"),
        qkv=("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
    ),
    "distilbert": Style(
        "distilbert.", "transformer.layer.{}.", types=None, pooler=False, mlp=("ffn.lin1", "ffn.lin2"),
        qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
        norms=("sa_layer_norm", "output_layer_norm"), fields=("dim", "n_layers", "n_heads", "hidden_dim", "dropout"),
        head=Head("vocab_transform", "vocab_layer_norm", "vocab_projector"),
    ),
}  # fmt: skip
STYLES |= dict.fromkeys(("xlm-roberta", "camembert"), STYLES["roberta"])

# Matrices of a classifier of sequences, which only the first token passes: one from the hidden width to itself, and
# one to the classes.
CLASSIFIERS: dict[str, tuple[str, str]] = {
    "bert": ("bert.pooler.dense", "classifier"),
    "distilbert": ("pre_classifier", "classifier"),
    **dict.fromkeys(
        ("roberta", "xlm-roberta", "camembert", "electra"), ("classifier.dense", "classifier.out_proj")
    ),
}
CLASSIFIES = "ForSequenceClassification"
HEADED = ("ForMaskedLM", "ForCausalLM", "BertLMHeadModel", "BertGenerationDecoder")


def is_headed(cfg: Fields, style: Style) -> bool:
    """Whether the class named in `architectures` has a head over the vocabulary. Raises UnsupportedArchitectureError
    for one that has another, or that reads an encoder's output."""
    names = cfg.list("architectures", []) or ["ForMaskedLM"]
    if cfg.bool("add_cross_attention", False):
        raise UnsupportedArchitectureError("Cross-attention in BERT's kind has no builder in this version.")
    if str(names[0]).endswith(HEADED):
        return True
    if style.pooler and str(names[0]).endswith("Model") and not str(names[0]).endswith("LMHeadModel"):
        return False
    bare = ("Model",) if style.pooler else ()
    classes = (CLASSIFIES,) if cfg.str("model_type") in CLASSIFIERS else ()
    known = ", ".join(("ForMaskedLM", "ForCausalLM", *bare, *classes))
    raise UnsupportedArchitectureError(
        f"{str(names[0])[:80]} has no builder in this version: known for this type are classes ending in {known}."
    )


def is_classifier(cfg: Fields) -> bool:
    """Whether the class named in `architectures` puts one of a few classes on a sequence."""
    names = cfg.list("architectures", [])
    return bool(names) and str(names[0]).endswith(CLASSIFIES) and cfg.str("model_type") in CLASSIFIERS


def _classify(trace: Trace, cfg: Fields, hidden: int) -> None:
    """A classifier's two matrices, for one token of a sequence. Its logits, a few bytes, are left out of memory."""
    named = cfg.data.get("id2label")
    classes = len(named) if isinstance(named, dict) and named else cfg.int("num_labels", 2)
    first, last = CLASSIFIERS[cfg.str("model_type")]
    with trace.layer("head", (0,)) as head:
        x = head.linear(first, "other", hidden, hidden, head.stream, bias=True, extra=1, times=0)
        head.linear(last, "other", hidden, classes, x, bias=True, extra=1, times=0)


def _width(cfg: Fields, rule: tuple[str, int | None] | tuple[str, int] | None, hidden: int) -> int:
    """The width of an embedding or a head, the hidden one where no field gives it."""
    if rule is None:
        return hidden
    name, default = rule
    return int(cfg.int(name, None if name in cfg.data else default) or hidden)


def _norm(trace: Trace, name: str, size: int) -> None:
    trace.vector(f"{name}.weight", size)
    trace.vector(f"{name}.bias", size)


def _embeddings(trace: Trace, cfg: Fields, style: Style, heads: Heads, base: str) -> int:
    """The tables, and a projection to the hidden width where theirs is another; returns their width."""
    width, model_type, prefix = (
        _width(cfg, style.width, heads.hidden),
        cfg.str("model_type"),
        f"{base}embeddings.",
    )
    rows = cfg.int("max_position_embeddings", style.positions)
    trace.embedding(f"{prefix}word_embeddings", cfg.int("vocab_size"), width)
    if style.sinusoids:
        trace.embedding(f"{base}encoder.embed_positions", rows, heads.d_head, role="other")
    else:
        trace.embedding(f"{prefix}position_embeddings", rows, width, role="other")
    if style.types is not None:
        types = cfg.int("type_vocab_size", style.types, minimum=0)
        if not types:
            raise UnsupportedArchitectureError("A table of no token types has no builder in this version.")
        trace.embedding(f"{prefix}token_type_embeddings", types, width, role="other")
    if model_type == "ernie" and cfg.bool("use_task_id", False):
        kinds = cfg.int("task_type_vocab_size", 3)
        trace.embedding(f"{prefix}task_type_embeddings", kinds, width, role="other")
    if model_type == "layoutlm":  # where a word stands on the page
        places = cfg.int("max_2d_position_embeddings", 1024)
        for side in "xyhw":
            trace.embedding(f"{prefix}{side}_position_embeddings", places, width, role="other")
    if model_type == "mpnet":
        buckets = cfg.int("relative_attention_num_buckets", 32)
        trace.embedding(f"{base}encoder.relative_attention_bias", buckets, heads.n_heads, role="other")
    if style.embedding_norm:
        _norm(trace, f"{prefix}LayerNorm", width)
    if model_type == "roc_bert":
        _glyphs(trace, cfg, heads.hidden, prefix)
    if width != heads.hidden or model_type == "rembert":
        with trace.layer("stem", (0,), base) as stem:
            stem.stream = stem.linear(style.project, "other", width, heads.hidden, stem.stream, bias=True)
    return width


def _glyphs(trace: Trace, cfg: Fields, hidden: int, prefix: str) -> None:
    """RoCBert's tables of a character's sound and shape, and the matrix that joins them to the word."""
    joined = hidden
    for name, rows, width in (("pronunciation", 910, 768), ("shape", 24858, 512)):
        d = cfg.int(f"{name}_embed_dim", width)
        trace.embedding(f"{prefix}{name}_embed", cfg.int(f"{name}_vocab_size", rows), d, role="other")
        joined += d if cfg.bool(f"enable_{name}", True) else 0
    if cfg.bool("concat_input", True):
        with trace.layer("stem", (0,), prefix) as stem:
            stem.stream = stem.linear("map_inputs_layer", "other", joined, hidden, stem.stream, bias=True)


def _layers(trace: Trace, cfg: Fields, style: Style, heads: Heads, base: str) -> None:
    """Attention and MLP, each with a norm before or behind it."""
    _, depth, _, inner, dropout = style.fields
    with trace.layer("encoder", range(cfg.int(depth)), base + style.layers) as layer:
        dropped = style.dropout_behind and cfg.number(dropout, 0.1) > 0
        layer.open_end = style.stack_norm is not None and not dropped
        causal = bool(cfg.bool("is_decoder", False))
        layer.add(attention(layer, heads, layer.stream, "", style.qkv, causal=causal))
        layer.add(
            plain_mlp(
                layer, heads.hidden, cfg.int(inner), layer.stream, prefix="", bias=True, names=style.mlp
            )
        )
        for name in style.norms:
            layer.norm(name, heads.hidden, True)
    if style.stack_norm:
        _norm(trace, base + style.stack_norm, heads.hidden)


def unembed(head: Layer, names: Head, hidden: int, width: int, vocab: int, tied: bool) -> None:
    """A dense layer with a norm, then the unembedding, whose bias is a parameter of the head or its own."""
    x = head.stream
    if names.dense and names.norm:
        x = head.linear(names.dense, "other", hidden, width, x, bias=True)
        head.norm(names.norm, width, True)
    # Untied, the decoder has a bias of its own and the head's stands unused beside it.
    bias = not tied or names.bias is None
    head.add(head.linear(names.decoder, "unembedding", width, vocab, x, bias=bias, tied=tied))
    if names.bias:
        head.vector(names.bias, vocab)


def build(cfg: Fields) -> Architecture:
    """A model of one of the families in STYLES."""
    style, trace = STYLES[cfg.str("model_type")], Trace()
    classifies = is_classifier(cfg)
    headed = not classifies and is_headed(cfg, style)
    heads = heads_of(cfg, style.fields[0], style.fields[2])
    base, vocab = style.base if headed or classifies else "", cfg.int("vocab_size")
    tied = bool(cfg.bool("tie_word_embeddings", True)) and not style.never_tied
    width = _embeddings(trace, cfg, style, heads, base)
    _layers(trace, cfg, style, heads, base)
    if headed:
        out = width if style.out is None else _width(cfg, style.out, heads.hidden)
        with trace.layer("head", (0,)) as head:
            if style.pools_always:
                d = heads.hidden
                head.linear(
                    f"{base}pooler.dense",
                    "other",
                    d,
                    d,
                    head.stream,
                    bias=True,
                    extra=1,
                    times=0,
                    forward_only=True,
                )
            unembed(head, style.head, heads.hidden, out, vocab, tied)
    elif classifies:
        _classify(trace, cfg, heads.hidden)
    else:
        trace.weight("pooler.dense", "other", heads.hidden, heads.hidden, bias=True)
    return finish(
        trace, cfg, n_layers=cfg.int(style.fields[1]), hidden=heads.hidden, vocab=vocab, tied=tied,
        flops_gap=None if headed or classifies else NO_LOSS,
    )  # fmt: skip
