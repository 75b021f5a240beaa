"""What sets the decoders from before Llama apart, as a table."""

from __future__ import annotations

from dataclasses import dataclass

from ...schema import Kind

GPT2_FIELDS = ("n_embd", "n_layer", "n_head", "n_positions")
SELF_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
USUAL_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")


@dataclass(frozen=True)
class Style:
    """What sets a family apart. `fields` are its spellings of width, depth, heads and positions. `bias` and
    `parallel` are fixed choices or the name of the field that decides, with "!" after it where the class's
    default is true. `dropout` is the field of the dropout behind an MLP, with its default. `norms_behind`: norms
    stand behind attention and MLP. `qk_layernorm` is the default of the field of that name, where a class has it."""

    embedding: str
    layers: str
    qkv: tuple[str, ...]
    output: str
    mlp: tuple[str, str]
    norms: tuple[str, ...]
    final_norm: str | None
    dropout: tuple[str, float]
    base: str = "transformer."
    fields: tuple[str, str, str, str] = USUAL_FIELDS
    width: tuple[str, bool] | None = None
    qkv_bias: bool | str = True
    bias: bool | str = True
    norm_bias: bool = True
    parallel: bool | str = False
    embedding_norm: str | None = None
    positions: tuple[str, int] | None = None
    kind: Kind = "linear"
    tied: bool = True
    head: str = "lm_head"
    head_bias: bool = False
    norms_behind: bool = False
    qk_layernorm: bool | None = None


STYLES: dict[str, Style] = {
    "gpt2": Style(
        embedding="wte", positions=("wpe", 0), layers="h.{}.", qkv=("attn.c_attn",), output="attn.c_proj",
        mlp=("mlp.c_fc", "mlp.c_proj"), norms=("ln_1", "ln_2"), final_norm="ln_f", dropout=("resid_pdrop", 0.1),
        fields=GPT2_FIELDS, width=("n_inner", False), kind="conv1d",
    ),
    "gptj": Style(
        embedding="wte", layers="h.{}.", qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
        output="attn.out_proj", mlp=("mlp.fc_in", "mlp.fc_out"), norms=("ln_1",), final_norm="ln_f",
        dropout=("resid_pdrop", 0.0), fields=GPT2_FIELDS, width=("n_inner", False), qkv_bias=False, parallel=True,
        tied=False, head_bias=True,
    ),
    "gpt_neox": Style(
        base="gpt_neox.", embedding="embed_in", layers="layers.{}.", qkv=("attention.query_key_value",),
        output="attention.dense", mlp=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        norms=("input_layernorm", "post_attention_layernorm"), final_norm="final_layer_norm",
        dropout=("hidden_dropout", 0.0), width=("intermediate_size", True), qkv_bias="attention_bias!",
        parallel="use_parallel_residual!", tied=False,
    ),
    "opt": Style(
        base="model.", embedding="decoder.embed_tokens", positions=("decoder.embed_positions", 2),
        layers="decoder.layers.{}.", qkv=SELF_ATTENTION,
        output="self_attn.out_proj", mlp=("fc1", "fc2"), norms=("self_attn_layer_norm", "final_layer_norm"),
        final_norm="decoder.final_layer_norm", dropout=("dropout", 0.1), width=("ffn_dim", True),
        qkv_bias="enable_bias!", bias="enable_bias!",
    ),
    "bloom": Style(
        embedding="word_embeddings", embedding_norm="word_embeddings_layernorm", layers="h.{}.",
        qkv=("self_attention.query_key_value",), output="self_attention.dense",
        mlp=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), norms=("input_layernorm", "post_attention_layernorm"),
        final_norm="ln_f", dropout=("hidden_dropout", 0.0),
        fields=("hidden_size", "n_layer", "n_head", "seq_length"),
    ),
    "falcon": Style(
        embedding="word_embeddings", layers="h.{}.", qkv=("self_attention.query_key_value",),
        output="self_attention.dense", mlp=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        norms=("input_layernorm", "post_attention_layernorm"), final_norm="ln_f",
        dropout=("hidden_dropout", 0.0), width=("ffn_hidden_size", False), qkv_bias="bias", bias="bias",
        parallel="parallel_attn!",
    ),
    "mpt": Style(
        embedding="wte", layers="blocks.{}.", qkv=("attn.Wqkv",), output="attn.out_proj",
        mlp=("ffn.up_proj", "ffn.down_proj"), norms=("norm_1", "norm_2"), final_norm="norm_f",
        dropout=("attn_pdrop", 0.0), fields=("d_model", "n_layers", "n_heads", "max_seq_len"), qkv_bias=False,
        bias=False, norm_bias=False,
    ),
    "gpt_bigcode": Style(
        embedding="wte", positions=("wpe", 0), layers="h.{}.", qkv=("attn.c_attn",), output="attn.c_proj",
        mlp=("mlp.c_fc", "mlp.c_proj"), norms=("ln_1", "ln_2"), final_norm="ln_f", dropout=("resid_pdrop", 0.1),
        fields=GPT2_FIELDS, width=("n_inner", False),
    ),
    "phi": Style(
        base="model.", embedding="embed_tokens", layers="layers.{}.",
        qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), output="self_attn.dense",
        mlp=("mlp.fc1", "mlp.fc2"), norms=("input_layernorm",), final_norm="final_layernorm",
        dropout=("resid_pdrop", 0.0), width=("intermediate_size", True), parallel=True, tied=False,
        head_bias=True, qk_layernorm=False,
    ),
    "persimmon": Style(
        base="model.", embedding="embed_tokens", layers="layers.{}.", qkv=("self_attn.query_key_value",),
        output="self_attn.dense", mlp=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        norms=("input_layernorm", "post_attention_layernorm"), final_norm="final_layernorm",
        dropout=("hidden_dropout", 0.0), width=("intermediate_size", True), tied=False, qk_layernorm=True,
    ),
    "gpt_neo": Style(
        embedding="wte", positions=("wpe", 0), layers="h.{}.",
        qkv=("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
        output="attn.attention.out_proj", mlp=("mlp.c_fc", "mlp.c_proj"), norms=("ln_1", "ln_2"),
        final_norm="ln_f", dropout=("resid_dropout", 0.0),
        fields=("hidden_size", "num_layers", "num_heads", "max_position_embeddings"),
        width=("intermediate_size", False), qkv_bias=False,
    ),
    "codegen": Style(
        embedding="wte", layers="h.{}.", qkv=("attn.qkv_proj",), output="attn.out_proj",
        mlp=("mlp.fc_in", "mlp.fc_out"), norms=("ln_1",), final_norm="ln_f", dropout=("resid_pdrop", 0.0),
        fields=GPT2_FIELDS, width=("n_inner", False), qkv_bias=False, parallel=True, tied=False, head_bias=True,
    ),
    "gpt_neox_japanese": Style(
        base="gpt_neox_japanese.", embedding="embed_in", layers="layers.{}.", qkv=("attention.query_key_value",),
        output="attention.dense", mlp=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        norms=("input_layernorm", "post_attention_layernorm"), final_norm="final_layer_norm",
        dropout=("hidden_dropout", 0.0), qkv_bias=False, bias=False, head="embed_out",
    ),
    "xglm": Style(
        base="model.", embedding="embed_tokens", layers="layers.{}.", qkv=SELF_ATTENTION,
        output="self_attn.out_proj", mlp=("fc1", "fc2"), norms=("self_attn_layer_norm", "final_layer_norm"),
        final_norm="layer_norm", dropout=("dropout", 0.1), width=("ffn_dim", True),
        fields=("d_model", "num_layers", "attention_heads", "max_position_embeddings"),
    ),
    "biogpt": Style(
        base="biogpt.", embedding="embed_tokens", positions=("embed_positions", 2), layers="layers.{}.",
        qkv=SELF_ATTENTION, output="self_attn.out_proj", mlp=("fc1", "fc2"),
        norms=("self_attn_layer_norm", "final_layer_norm"), final_norm="layer_norm",
        dropout=("hidden_dropout_prob", 0.1), width=("intermediate_size", True), head="output_projection",
    ),
    "ctrl": Style(
        embedding="w", layers="h.{}.", output="multi_head_attention.dense",
        qkv=("multi_head_attention.Wq", "multi_head_attention.Wk", "multi_head_attention.Wv"),
        mlp=("ffn.0", "ffn.2"), norms=("layernorm1", "layernorm2"), final_norm="layernorm",
        dropout=("resid_pdrop", 0.1), fields=GPT2_FIELDS, width=("dff", True), head_bias=True,
    ),
    "openai-gpt": Style(
        embedding="tokens_embed", positions=("positions_embed", 0), layers="h.{}.", qkv=("attn.c_attn",),
        output="attn.c_proj", mlp=("mlp.c_fc", "mlp.c_proj"), norms=("ln_1", "ln_2"), final_norm=None,
        dropout=("resid_pdrop", 0.1), fields=GPT2_FIELDS, kind="conv1d", norms_behind=True,
    ),
}  # fmt: skip
# GPT-SW3's class is GPT-2's.
STYLES["gpt-sw3"] = STYLES["gpt2"]
