"""What PEFT trains, option by option: our count against PEFT's own on the meta device, FLOPs against torch's."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import PlannerError, estimate
from planner.adapter import adapt, params
from planner.adapter.files import spec_from
from planner.adapter.whole import trained_whole
from planner.architecture.build import build
from planner.errors import InputError
from planner.flops import Step, flops, step_macs

from . import oracle

COMMON = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DENSE = {
    "hidden_size": 16, "intermediate_size": 22, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 40, "max_position_embeddings": 64, **COMMON,
}  # fmt: skip
MOE = {"moe_intermediate_size": 6, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **DENSE},
    "llama-bias": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], **DENSE, "attention_bias": True,
        "mlp_bias": True,
    },
    "phi3": {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], **DENSE},
    "gemma": {
        "model_type": "gemma", "architectures": ["GemmaForCausalLM"], **DENSE, "head_dim": 8,
        "tie_word_embeddings": True,
    },
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], **DENSE, "tie_word_embeddings": True},
    "gpt2": {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 16, "n_head": 2, "n_layer": 3,
        "vocab_size": 40, "n_positions": 64, **COMMON,
    },
    "qwen3_moe": {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], **DENSE, **MOE},
    "mixtral": {
        "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], **DENSE, "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "gpt_oss": {
        "model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], **DENSE, "head_dim": 8,
        "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "deepseek_v3": {
        "model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], **DENSE, "num_key_value_heads": 2,
        "q_lora_rank": 6, "kv_lora_rank": 4, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4,
        "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
        "moe_intermediate_size": 6, "first_k_dense_replace": 1,
    },
    "bert": {
        "model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": 16, "intermediate_size": 22,
        "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 40, "max_position_embeddings": 64,
        "type_vocab_size": 2,
    },
    "t5": {
        "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 16, "d_kv": 8, "d_ff": 22,
        "num_layers": 3, "num_heads": 2, "vocab_size": 40, "decoder_start_token_id": 0,
    },
}  # fmt: skip

ATTENTION = {"gpt2": ["c_attn"], "phi3": ["qkv_proj"], "bert": ["query", "value"], "t5": ["q", "v"],
             "deepseek_v3": ["q_a_proj", "o_proj"]}  # fmt: skip
HEADS = {"bert": "decoder"}
TABLES = {"gpt2": "wte", "bert": "word_embeddings", "t5": "shared"}


def targets_of(name: str) -> list[str]:
    return ATTENTION.get(name, ["q_proj", "v_proj"])


def peft_model(config: dict[str, Any], options: dict[str, Any], model: Any = None) -> Any:
    from peft import LoraConfig, get_peft_model

    model = oracle.meta_model(config) if model is None else model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(model, LoraConfig(**copy.deepcopy(options)))


def counts(config: dict[str, Any], options: dict[str, Any]) -> tuple[int, int]:
    found: tuple[int, int] = peft_model(config, options).get_nb_trainable_parameters()
    return found


def ours(config: dict[str, Any], options: dict[str, Any]) -> tuple[int, int]:
    arch, spec = build(config), spec_from(options)
    adapted = adapt(arch, spec)
    whole = trained_whole(arch, spec, adapted)
    total = params(adapted) + whole.params
    return total, arch.params + total - whole.bias


def check(config: dict[str, Any], options: dict[str, Any]) -> None:
    options = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, **options}
    theirs = counts(config, {key: value for key, value in options.items() if key != "peft_type"})
    assert ours(config, options) == theirs, options


def cases(name: str) -> list[dict[str, Any]]:
    """Option combinations that every family goes through."""
    attention, head = targets_of(name), HEADS.get(name, "lm_head")
    table = TABLES.get(name, "embed_tokens")
    regex = rf".*\.{'(layer|block|layers|h)'}\.[02]\..*({'|'.join(attention)})"
    return [
        {"target_modules": attention},
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "use_rslora": True, "bias": "lora_only"},
        {"target_modules": "all-linear", "bias": "all"},
        {"target_modules": attention, "bias": "all"},
        {"target_modules": attention, "bias": "lora_only", "use_dora": True},
        {"target_modules": regex},
        {"target_modules": attention, "layers_to_transform": [0, 2]},
        {"target_modules": attention, "layers_to_transform": 1},
        {"target_modules": [*attention, head], "layers_to_transform": [1]},
        {"target_modules": [*attention, table]},
        {"target_modules": [*attention, head]},
        {"target_modules": [*attention, table, head], "use_dora": True},
        {"target_modules": attention, "rank_pattern": {attention[0]: 5}, "alpha_pattern": {attention[0]: 7}},
        {"target_modules": "all-linear", "rank_pattern": {rf".*\.0\..*{attention[0]}": 7, attention[-1]: 2}},
        {"target_modules": "all-linear", "exclude_modules": [attention[0]]},
        {"target_modules": "all-linear", "exclude_modules": rf".*\.1\..*{attention[0]}"},
        {"target_modules": attention, "modules_to_save": [head]},
        {"target_modules": attention, "modules_to_save": [table]},
        {"target_modules": attention, "modules_to_save": [table, head], "bias": "all"},
        {"target_modules": attention, "modules_to_save": ["norm"], "bias": "lora_only"},
        {"target_modules": "all-linear", "modules_to_save": [head, attention[0]]},
    ]  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_counts_equal_peft(name: str) -> None:
    failures = []
    for options in cases(name):
        try:
            check(MODELS[name], options)
        except AssertionError as error:
            failures.append(f"{options}: {str(error).splitlines()[-1:]}")
        except (ValueError, PlannerError) as error:
            failures.append(f"{options}: {type(error).__name__} {error}")
    assert not failures, "\n".join(failures)


PARAMETERS: list[tuple[str, dict[str, Any]]] = [
    ("gpt_oss", {"target_modules": ["q_proj"], "target_parameters": ["experts.down_proj", "experts.gate_up_proj"]}),
    ("gpt_oss", {"target_modules": [], "target_parameters": ["1.mlp.experts.down_proj"]}),
    ("gpt_oss", {"target_modules": ["q_proj"], "target_parameters": ["router.weight"], "bias": "lora_only"}),
    ("qwen3_moe", {"target_modules": ["gate_proj", "up_proj", "q_proj"], "layers_to_transform": [1]}),
    ("qwen3_moe", {"target_modules": ["q_proj"], "target_parameters": ["gate_up_proj"],
                   "rank_pattern": {"experts.gate_up_proj": 1}}),
    ("qwen3_moe", {"target_modules": "all-linear", "rank_pattern": {"gate_up_proj": 5, "down_proj": 1}}),
    ("qwen3_moe", {"target_modules": r".*layers\.1\.(self_attn\.q_proj|mlp\.experts\.(gate|up)_proj)"}),
    ("qwen3_moe", {"target_modules": r".*(q_proj|down_proj)", "modules_to_save": ["lm_head"]}),
    ("deepseek_v3", {"target_modules": ["q_a_proj", "down_proj"], "modules_to_save": ["shared_experts"]}),
    ("deepseek_v3", {"target_modules": ["o_proj"], "target_parameters": ["shared_experts.gate_proj.weight"]}),
    ("deepseek_v3", {"target_modules": ["o_proj"], "modules_to_save": ["experts"]}),
    ("mixtral", {"target_modules": ["q_proj", "w1", "w2", "w3"], "rank_pattern": {"q_proj": 2}}),
    ("llama", {"target_modules": [], "target_parameters": ["q_proj.weight", "lm_head.weight"]}),
    ("llama", {"target_modules": ["o_proj", "model.layers.2.self_attn.q_proj"], "layers_to_transform": [0],
               "layers_pattern": "layers"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), PARAMETERS)
def test_counts_of_parameters_equal_peft(name: str, options: dict[str, Any]) -> None:
    check(MODELS[name], options)


FLOPS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1, 2]}),
    ("llama", {"target_modules": ["q_proj", "down_proj"],
               "rank_pattern": {"down_proj": 5, "layers.1.self_attn.q_proj": 4}}),
    ("llama", {"target_modules": "all-linear", "exclude_modules": ["k_proj", "layers.0.mlp.up_proj"]}),
    ("llama", {"target_modules": ["o_proj"], "modules_to_save": ["lm_head"]}),
    ("llama", {"target_modules": ["o_proj"], "modules_to_save": ["embed_tokens", "k_proj"]}),
    ("llama", {"target_modules": ["q_proj"], "target_parameters": ["layers.2.mlp.up_proj.weight"]}),
    ("llama-bias", {"target_modules": ["down_proj"], "bias": "all"}),
    ("llama-bias", {"target_modules": ["down_proj"], "bias": "lora_only", "layers_to_transform": [1]}),
    ("gpt2", {"target_modules": ["c_attn"], "layers_to_transform": [0, 2]}),
    ("gpt2", {"target_modules": ["c_fc"], "bias": "lora_only", "rank_pattern": {"h.1.mlp.c_fc": 4}}),
    ("bert", {"target_modules": ["query"], "layers_to_transform": [2]}),
    ("qwen3_moe", {"target_modules": "all-linear", "rank_pattern": {"gate_up_proj": 5, "1.self_attn.q_proj": 1}}),
    ("gpt_oss", {"target_modules": ["q_proj"], "target_parameters": ["experts.down_proj"]}),
]  # fmt: skip

NO_DROPOUT = {
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize(("name", "options"), FLOPS)
def test_flops_equal_the_counter(name: str, options: dict[str, Any], checkpointing: bool) -> None:
    config, options = {**MODELS[name], **NO_DROPOUT}, {"r": 3, "lora_alpha": 6, **options}
    arch, spec = build(config), spec_from({"peft_type": "LORA", **options})
    model = oracle.cpu_model(config)
    if checkpointing:
        model.gradient_checkpointing_enable()
    inputs = oracle.token_inputs({"vocab_size": 40}, 2, 9)
    adapted = adapt(arch, spec)
    whole = trained_whole(arch, spec, adapted)
    assert whole.gap is None
    tally = step_macs(arch, Step(2, 9, checkpointing), adapted, whole)
    assert flops(tally) == oracle.count_flops(peft_model(config, options, model), inputs)


@settings(max_examples=12)
@given(
    st.sampled_from(["llama-bias", "qwen2", "gpt2", "qwen3_moe", "deepseek_v3", "bert"]), st.integers(1, 5),
    st.sampled_from(["none", "all", "lora_only"]), st.sets(st.integers(0, 2)), st.data(),
)  # fmt: skip
def test_random_combinations_equal_peft(
    name: str, rank: int, bias: str, layers: set[int], data: st.DataObject
) -> None:
    arch = build(MODELS[name])
    leaves = sorted({m.leaf for m in arch.matrices if m.kind in ("linear", "conv1d", "embedding")})
    names = st.lists(st.sampled_from(leaves), min_size=1, max_size=3, unique=True)
    options = {
        "target_modules": data.draw(names), "bias": bias, "layers_to_transform": sorted(layers) or None,
        "exclude_modules": data.draw(st.one_of(st.none(), names)),
        "modules_to_save": data.draw(st.one_of(st.none(), names)),
        "rank_pattern": data.draw(st.dictionaries(st.sampled_from(leaves), st.integers(1, 6), max_size=2)), "r": rank,
    }  # fmt: skip
    try:
        expected = counts(MODELS[name], {"lora_alpha": 6, **options})
    except ValueError:  # nothing left to adapt, or one of two fused projections: PEFT refuses
        with pytest.raises(PlannerError):
            ours(MODELS[name], {"peft_type": "LORA", **options})
        return
    assert ours(MODELS[name], {"peft_type": "LORA", **options}) == expected


LLAMA = "meta-llama/Llama-3.1-8B"


EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss", "mixtral"])
@pytest.mark.parametrize("ranks", [{}, {EXPERTS[0]: 6}, {EXPERTS[1]: 5}, {"gate_up_proj": 3}], ids=str)
def test_ranks_of_fused_experts_equal_peft(name: str, ranks: dict[str, int]) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=[], target_parameters=list(EXPERTS), rank_pattern=ranks)
    model = get_peft_model(oracle.meta_model(MODELS[name]), config)
    spec = spec_from({"r": 4, "lora_alpha": 4, "target_parameters": list(EXPERTS), "rank_pattern": ranks})
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert params(adapt(build(MODELS[name]), spec)) == trained


@pytest.mark.parametrize(
    ("first", "second", "fits"),
    [
        ("all-linear", "all-linear", True), (["q_proj"], "all-linear", True), ("all-linear", ["q_proj"], True),
        ("all-linear", ["gate_proj", "up_proj"], False), (["gate_proj", "up_proj"], ["down_proj"], False),
    ],
)  # fmt: skip
def test_a_second_adapter_has_the_same_tensors_of_experts_or_none(
    first: Any, second: Any, fits: bool
) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(oracle.meta_model(MODELS["qwen3_moe"]), LoraConfig(r=2, target_modules=first))
    if fits:
        model.add_adapter("second", LoraConfig(r=2, target_modules=second))
    else:
        with pytest.raises(ValueError, match="same set of parameters"):
            model.add_adapter("second", LoraConfig(r=2, target_modules=second))
    plan = estimate(MODELS["qwen3_moe"], rank=2, layers="all-linear", experts="peft")
    assert any("A second adapter" in notice.message for notice in plan.warnings)


def test_the_line_that_peft_prints(capsys: pytest.CaptureFixture[str]) -> None:
    line = "trainable params: 41,943,040 || all params: 8,072,204,288 || trainable%: 0.5196"
    assert estimate(LLAMA, layers="all-linear", rank=16).adapter.peft_line == line
    peft_model(MODELS["llama"], {"target_modules": "all-linear", "r": 3}).print_trainable_parameters()
    ours_line = estimate(MODELS["llama"], layers="all-linear", rank=3).adapter.peft_line
    assert capsys.readouterr().out.strip() == ours_line
    assert estimate("Qwen/Qwen3-30B-A3B", experts="shared-outer").adapter.peft_line is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target_regex": "q_proj"}, "target-regex"),
        ({"target_regex": "("}, "regular expression"),
        ({"targets": "q_proj", "target_regex": ".*q_proj"}, "nothing beside targets"),
        ({"layers": "all", "targets": "q_proj"}, "nothing beside layers"),
        ({"target_parameters": "experts.down_proj"}, "target-parameters"),
        ({"targets": "q_proj", "target_parameters": "q_proj.weight"}, "target-parameters"),
        ({"layers_to_transform": "a"}, "layers-to-transform"),
        ({"layers_to_transform": "3-1"}, "layers-to-transform"),
        ({"layers_to_transform": "400"}, "layers"),
        ({"rank_pattern": "q_proj"}, "rank-pattern"),
        ({"rank_pattern": "q_proj=x"}, "rank-pattern"),
        ({"rank_pattern": {"q_proj": 0}}, "rank-pattern"),
        ({"rank_pattern": {"q_prj": 4}}, "Did you mean q_proj"),
        ({"alpha_pattern": {"q_proj": -1}}, "alpha-pattern"),
        ({"modules_to_save": "lm_hed"}, "Did you mean lm_head"),
        ({"bias": "some"}, "bias"),
        ({"adapter": "/nowhere/at/all"}, "adapter_config.json"),
    ],
)  # fmt: skip
def test_bad_options_say_what_is_wrong(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        estimate(LLAMA, **options)
    assert said in str(caught.value)


def test_a_string_that_is_no_list_of_names_is_an_expression() -> None:
    by_regex = estimate(LLAMA, targets=r".*\.(q|v)_proj").adapter
    assert by_regex.params == estimate(LLAMA, targets="q_proj,v_proj").adapter.params
    assert by_regex.spec.target_regex == r".*\.(q|v)_proj"
    assert estimate(LLAMA, layers_to_transform="0-7", layers="attention", rank=1).adapter.params * 4 == (
        estimate(LLAMA, layers="attention", rank=1).adapter.params
    )


def test_an_expression_that_peft_widens_is_noted() -> None:
    codes = {
        experts: [
            notice.code
            for notice in estimate(
                MODELS["qwen3_moe"], rank=2, experts=experts, target_regex=r".*\.1\.self_attn\.q_proj"
            ).warnings
        ]
        for experts in ("peft", "none")
    }
    assert "expression-by-last-names" in codes["peft"] and "expression-by-last-names" not in codes["none"]


def test_flops_are_null_where_norms_are_trained() -> None:
    plan = estimate(MODELS["llama"], rank=2, modules_to_save="norm")
    assert plan.flops is None
    assert any("norms" in n.message for n in plan.warnings if n.code == "flops-unavailable")


def save_adapter(name: str, options: dict[str, Any], folder: Path) -> int:
    """A real adapter as PEFT saves it; its trainable parameters."""
    model = peft_model(MODELS[name], options, oracle.cpu_model(MODELS[name]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(str(folder))
    trainable: int = model.get_nb_trainable_parameters()[0]
    return trainable


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", {"target_modules": "all-linear", "r": 3}),
        ("llama-bias", {"target_modules": ["q_proj"], "r": 3, "bias": "lora_only", "modules_to_save": ["lm_head"]}),
        ("llama", {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "r": 3, "use_dora": True}),
        ("qwen3_moe", {"target_modules": "all-linear", "r": 3}),
        ("gpt_oss", {"target_modules": ["q_proj"], "target_parameters": ["experts.down_proj"], "r": 3}),
        ("gpt2", {"target_modules": ["c_attn"], "r": 3, "rank_pattern": {"h.1.attn.c_attn": 2}}),
    ],
)  # fmt: skip
def test_an_existing_adapter_is_the_spec(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    trainable = save_adapter(name, options, tmp_path)
    plan = estimate(MODELS[name], adapter=tmp_path)
    assert plan.adapter.params == trainable
    assert not [n for n in plan.warnings if n.code.startswith("adapter-file")]
    assert estimate(MODELS[name], adapter=tmp_path / "adapter_config.json").adapter.params == trainable


def test_a_file_that_differs_is_named(tmp_path: Path) -> None:
    save_adapter("llama", {"target_modules": ["q_proj", "v_proj"], "r": 3}, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["q_proj"]}))
    notices = [
        n for n in estimate(MODELS["llama"], adapter=tmp_path).warnings if n.code == "adapter-file-differs"
    ]
    assert len(notices) == 1
    assert "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight" in notices[0].message
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:40])
    codes = [n.code for n in estimate(MODELS["llama"], adapter=tmp_path).warnings]
    assert "adapter-file-unreadable" in codes


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"peft_type": "IA3"}', '{"peft_type": "LORA"}', '{"peft_type": "LORA", "target_modules": [1]}',
     '{"peft_type": "LORA", "target_modules": ["q_proj"], "r": "x"}',
     '{"peft_type": "LORA", "target_modules": ["q_proj"], "lora_alpha": []}',
     '{"peft_type": "LORA", "target_modules": ["q_proj"], "bias": {}}',
     '{"peft_type": "LORA", "target_modules": ["q_proj"], "rank_pattern": [1]}',
     '{"peft_type": "LORA", "target_modules": ["q_proj"], "rank_pattern": {"(": 1}}',
     '{"peft_type": "LORA", "target_modules": "(((", "r": 2}',
     '{"peft_type": "LORA", "target_modules": ["q_proj"], "lora_bias": true}',
     "[" * 100_000],
)  # fmt: skip
def test_bad_adapter_configs_are_input_errors(content: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(InputError):
        estimate(LLAMA, adapter=tmp_path)
