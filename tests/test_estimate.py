"""estimate against the article's own figures, and the JSON contract."""

from __future__ import annotations

import json
from typing import Any

import pytest

from planner import estimate
from planner.architecture.build import build, build_natively
from planner.errors import InputError, PlannerError, UnsupportedArchitectureError
from planner.information import entropy

LLAMA = "meta-llama/Llama-3.1-8B"
TINY: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 20,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 50,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "rank", "params"),
    [  # the article's table for Llama-3.1-8B: 0.49B, 0.25B, 0.70B, 0.24B
        ("mlp,unembedding", 256, 486_866_944),
        ("attention,unembedding", 256, 251_985_920),
        ("all", 256, 704_970_752),
        ("mlp,unembedding", 128, 243_433_472),
        # PEFT's published logs for all-linear at rank 16
        ("all-linear", 16, 41_943_040),
    ],
)
def test_the_article_s_table(layers: str, rank: int, params: int) -> None:
    plan = estimate(LLAMA, layers=layers, rank=rank)
    assert plan.adapter.params == params
    assert plan.adapter.to_dict()["params_per_rank"] * rank == params


def test_targets_are_peft_s_names() -> None:
    assert estimate(LLAMA, targets="q_proj,v_proj", rank=16).adapter.params == 6_815_744
    assert estimate(LLAMA, targets=["q_proj"], rank=1).adapter.params == 32 * 8192
    one_layer = estimate(LLAMA, targets="layers.0.self_attn.q_proj", rank=1)
    assert one_layer.adapter.params == 8192


def test_math_run_fits_rank_one_many_times() -> None:
    """The article: 10,000 problems x 32 samples = 320,000 bits against some 3M parameters, about 10 times room."""
    plan = estimate(LLAMA, rank=1, dataset="math-rl-article")
    assert plan.information is not None and plan.information.bits == 320_000
    assert plan.adapter.params == 2_753_792
    assert plan.capacity.required_rank == 1 and plan.capacity.verdict == "ample"
    assert plan.adapter.params / plan.information.bits == pytest.approx(8.6, abs=0.01)


def test_r1_zero_is_decided_by_the_unembedding() -> None:
    """5,324,800 bits at 2 bits a parameter: rank 1 holds them with the unembedding's pair and not without."""
    with_head = estimate(LLAMA, rank=1, dataset="deepseek-r1-zero")
    without = estimate(LLAMA, rank=1, layers="all-linear", dataset="deepseek-r1-zero")
    assert with_head.information is not None and with_head.information.bits == 5_324_800
    assert (with_head.capacity.required_rank, with_head.capacity.verdict) == (1, "tight")
    assert (without.capacity.required_rank, without.capacity.verdict) == (2, "exceeded")


@pytest.mark.parametrize(
    ("dataset", "layers", "rank", "per_token"),
    [  # worked by hand from 3.36M and 290M completion tokens
        ("alpaca", "all-linear", 1, 0.78), ("alpaca", "all", 1, 0.82), ("alpaca", "all-linear", 8, 6.2),
        ("tulu-3-sft-mixture", "all-linear", 256, 2.31), ("tulu-3-sft-mixture", "all", 256, 2.43),
        ("openthoughts3-1.2m", "all", 256, 0.04),
    ],
)  # fmt: skip
def test_parameters_per_loss_token(dataset: str, layers: str, rank: int, per_token: float) -> None:
    plan = estimate(LLAMA, rank=rank, layers=layers, dataset=dataset)
    assert plan.capacity.params_per_unit == pytest.approx(per_token, rel=0.02)


def test_success_rate_is_the_entropy() -> None:
    for p, bits in ((0.5, 1.0), (0.1, 0.469), (0.01, 0.0808), (0.0, 0.0), (1.0, 0.0)):
        plan = estimate(LLAMA, episodes=10_000, success_rate=p)
        assert plan.information is not None
        assert plan.information.bits_per_unit == pytest.approx(bits, abs=5e-4)
        assert plan.information.basis == "analytic"
    assert entropy(0.3) == pytest.approx(entropy(0.7))


def test_flops_of_a_tiny_model_by_hand() -> None:
    """One sequence of 4 tokens; weights of a layer 8x8 + 2 (8x4) + 8x8 + 3 (8x20), head 8x50; full = 3 x forward."""
    plan = estimate(TINY, rank=2, seq_len=4)
    assert plan.flops is not None
    weights = 2 * (64 + 64 + 64 + 480) + 400
    scores = 2 * 2 * (4 * 4 * 4 * 2)  # layers x heads x (s x s x d_head for scores and for values)
    assert plan.flops.full == 2 * 3 * (4 * weights + scores)
    pairs = 2 * (2 * (16 + 12 + 12 + 16) + 2 * 3 * 28) + 2 * 58
    not_needed = 4 * (64 + 64) + 4 * 2 * 3 * 8  # first layer's q, k, v: no input gradient of W and A
    lora = 4 * (2 * weights + 3 * pairs) + 3 * scores - not_needed
    assert plan.flops.lora == 2 * lora
    assert plan.flops.ratio == plan.flops.lora / plan.flops.full


def test_rule_ratio_of_square_matrices() -> None:
    """2/3 + 2R/N for q_proj of Llama-3.1-8B, N = 4096."""
    for rank, ratio in ((32, 0.682), (128, 0.729), (256, 0.792)):
        flops = estimate(LLAMA, rank=rank, targets="q_proj").flops
        assert flops is not None
        assert flops.rule_ratio == pytest.approx(2 / 3 + 2 * rank / 4096)
        assert flops.rule_ratio == pytest.approx(ratio, abs=5e-4)


@pytest.mark.parametrize("layers", ["all", "all-linear", "attention", "mlp,unembedding"])
def test_break_even_rank_is_where_the_costs_cross(layers: str) -> None:
    flops = estimate(LLAMA, layers=layers).flops
    assert flops is not None and flops.break_even_rank is not None
    rank = flops.break_even_rank
    below, at = (estimate(LLAMA, layers=layers, rank=min(r, 4096)).flops for r in (rank - 1, rank))
    if rank <= 4096:
        assert below is not None and at is not None
        assert below.lora < below.full and at.lora >= at.full


def test_totals_follow_tokens_and_epochs() -> None:
    one = estimate(LLAMA, tokens="1M").to_dict()["flops"]
    two = estimate(LLAMA, tokens=1_000_000, epochs=2).to_dict()["flops"]
    assert two["totals"]["full"] == pytest.approx(2 * one["totals"]["full"], rel=1e-9)
    assert one["totals"]["lora"] == pytest.approx(1_000_000 * one["lora_per_token"], rel=1e-9)
    assert estimate(LLAMA).to_dict()["flops"]["totals"] is None
    assert estimate(LLAMA, epochs=3, tokens="1M").information == estimate(LLAMA, tokens="1M").information


def test_masked_attention_costs_less_and_windows_less_again() -> None:
    config = {**TINY, "model_type": "mistral", "sliding_window": None}
    plain, windowed = (
        estimate({**config, "sliding_window": w}, rank=2, seq_len=512).flops for w in (None, 16)
    )
    assert plain is not None and windowed is not None
    assert plain.lora == windowed.lora
    assert windowed.masked_lora < plain.masked_lora < plain.lora


CONTRACT = {
    "model": {"id", "source", "model_type", "hidden_size", "params", "params_active"},
    "adapter": {
        "rank", "alpha", "layers", "experts", "params", "bytes", "params_per_rank", "params_by_role", "layer_sets",
    },
    "flops": {
        "full_per_token", "lora_per_token", "ratio", "rule_ratio", "forward_per_token", "attention_share",
        "break_even_rank", "totals", "step",
    },
    "information": {"kind", "units", "bits_per_unit", "bits", "basis"},
    "capacity": {"bits_per_param", "bits", "required_rank", "utilisation", "verdict"},
    "learning_rate": {"value", "low", "high", "full_finetune", "law", "basis"},
}  # fmt: skip


def test_the_contract() -> None:
    data = estimate(LLAMA, tokens="300M").to_dict()
    assert data["schema"] == 1
    for section, keys in CONTRACT.items():
        assert keys <= set(data[section]), section
    assert set(data["adapter"]["layer_sets"]) == {"attention", "mlp", "unembedding", "all", "all-linear"}
    assert {"attention", "mlp", "unembedding", "embedding", "router", "vision", "other"} <= set(
        data["adapter"]["params_by_role"]
    )
    assert set(data["flops"]["step"]) >= {"batch", "seq_len", "full", "lora"}
    assert sum(data["adapter"]["params_by_role"].values()) == data["adapter"]["params"]
    assert (
        data["adapter"]["bytes"]
        == data["adapter"]["bytes_by_dtype"]["float32"]
        == 4 * data["adapter"]["params"]
    )
    assert data["time"] is None and data["cost"] is None
    assert all(found["fits"] is None for found in data["memory"].values())
    assert all(set(w) == {"code", "message"} for w in data["warnings"])
    for source in data["sources"]:
        assert all(source[key].strip() for key in ("title", "url", "locator", "date", "kind")), source
    assert json.loads(json.dumps(data)) == data
    assert estimate(LLAMA).to_dict()["information"] is None


def test_an_estimate_does_not_depend_on_what_came_before() -> None:
    first = estimate(LLAMA, rank=8).to_dict()
    estimate(LLAMA, rank=64, layers="attention", dataset="alpaca", checkpointing=True)
    assert estimate(LLAMA, rank=8).to_dict() == first


BAD: list[tuple[dict[str, Any], str]] = [
    ({"rank": -1}, "rank"), ({"rank": 0}, "rank"), ({"rank": "eight"}, "rank"), ({"rank": 1.5}, "rank"),
    ({"rank": True}, "rank"), ({"rank": 5000}, "rank"), ({"rank": 10**30}, "rank"), ({"alpha": 0}, "alpha"),
    ({"alpha": float("nan")}, "alpha"), ({"alpha": float("inf")}, "alpha"), ({"alpha": "x"}, "alpha"),
    ({"layers": "atention"}, "attention"), ({"layers": ""}, "layers"), ({"layers": "vision"}, "layers"),
    ({"targets": "q_porj"}, "q_proj"), ({"targets": ","}, "targets"),
    ({"targets": "q_proj", "layers": "all"}, "targets"), ({"experts": "scalled"}, "scaled"),
    ({"layout": "tinkr"}, "tinker"), ({"variant": "lokr"}, "lora"), ({"adapter_dtype": "float8"}, "float16"),
    ({"tokens": -5}, "tokens"), ({"tokens": 0}, "tokens"), ({"tokens": "lots"}, "tokens"),
    ({"tokens": "1.5"}, "tokens"), ({"tokens": 1, "episodes": 1}, "episodes"), ({"tokens": "1e40"}, "tokens"),
    ({"success_rate": 0.5}, "success-rate"), ({"episodes": 5, "success_rate": 1.5}, "success-rate"),
    ({"episodes": 5, "success_rate": float("nan")}, "success-rate"), ({"dataset": "alpacca"}, "alpaca"),
    ({"dataset": "alpaca", "success_rate": 0.5}, "success-rate"), ({"epochs": 0}, "epochs"),
    ({"seq_len": 0}, "seq-len"), ({"seq_len": -3}, "seq-len"), ({"batch": 0}, "batch"), ({"batch": 2.5}, "batch"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "named"), BAD, ids=str)
def test_bad_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(PlannerError) as caught:
        estimate(LLAMA, **options)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_size": None}, "hidden_size"), ({"hidden_size": "8"}, "hidden_size"),
        ({"hidden_size": -8}, "hidden_size"), ({"hidden_size": 8.5}, "hidden_size"),
        ({"num_hidden_layers": True}, "num_hidden_layers"), ({"vocab_size": [50]}, "vocab_size"),
        ({"num_attention_heads": 3}, "num_attention_heads"), ({"num_key_value_heads": 4}, "num_key_value_heads"),
        ({"attention_bias": "yes"}, "attention_bias"), ({"model_type": 3}, "model_type"),
        ({"intermediate_size": 10**17}, "intermediate_size"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_config_fields_are_named(change: dict[str, Any], named: str) -> None:
    config = {key: value for key, value in {**TINY, **change}.items() if value is not None}
    with pytest.raises(PlannerError, match=named):
        estimate(config)


def test_a_type_without_a_builder_says_so() -> None:
    with pytest.raises(UnsupportedArchitectureError, match="no builder"):
        estimate({**TINY, "model_type": "made_up_by_this_test"})


def test_expert_rank_is_rank_over_active_experts() -> None:
    """Qwen3-30B-A3B: 128 experts of 3 matrices 2048 x 768 in 48 layers, 8 active: 6,488,064 a unit of rank."""
    plan = estimate("Qwen/Qwen3-30B-A3B", rank=32, layers="mlp")
    assert plan.adapter.params == 32 * 6_488_064
    assert plan.adapter.expert_rank == 4
    rounded = estimate("Qwen/Qwen3-30B-A3B", rank=30, layers="mlp")
    assert rounded.adapter.params == 3 * 51_904_512
    assert "expert-rank-rounded" in {notice.code for notice in rounded.warnings}
    tiny = estimate("Qwen/Qwen3-30B-A3B", rank=1, layers="mlp")
    assert tiny.adapter.params == 51_904_512


@pytest.mark.parametrize(
    ("experts", "params"),
    [("per-expert", 1_660_900_000), ("shared-outer", 462_400_000), ("none", 0)],
)
def test_one_rank_32_means_many_sizes(experts: str, params: int) -> None:
    if experts == "none":
        with pytest.raises(InputError, match="experts none"):
            estimate("Qwen/Qwen3-30B-A3B", layers="mlp", experts=experts)
        return
    plan = estimate("Qwen/Qwen3-30B-A3B", rank=32, layers="mlp", experts=experts)
    assert plan.adapter.params == pytest.approx(params, rel=1e-3)


def test_the_counter_s_excess_stays_in_the_step() -> None:
    """Qwen3.5-4B has depthwise convolutions, whose weight gradient torch's counter takes for a dense one's."""
    plan = estimate("Qwen/Qwen3.5-4B", batch=1, seq_len=2048)
    assert plan.flops is not None
    data = plan.to_dict()["flops"]
    assert plan.flops.counted_full > plan.flops.full and plan.flops.counted_lora == plan.flops.lora
    assert data["step"]["full"] == plan.flops.counted_full
    assert data["full_per_token"] == round(plan.flops.full / 2048)
    assert data["ratio"] == pytest.approx(0.696, abs=1e-3)
    assert "counter-overcounts" in {notice.code for notice in plan.warnings}
    assert "counter-overcounts" not in {notice.code for notice in estimate(LLAMA).warnings}


def test_what_peft_refuses_is_said() -> None:
    def codes(**options: Any) -> set[str]:
        return {notice.code for notice in estimate("state-spaces/mamba-130m-hf", rank=2, **options).warnings}

    assert "refused-by-peft" in codes(layers="all-linear")
    assert "refused-by-peft" not in codes(targets="in_proj")


@pytest.mark.parametrize(
    "name", ["LlamaForSequenceClassification", "LlamaForTokenClassification", "Llama", ""]
)
def test_a_builder_refuses_classes_with_another_head(name: str) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="no builder"):
        build_natively({**TINY, "architectures": [name]})


def test_a_bare_model_has_no_unembedding() -> None:
    bare, whole = build({**TINY, "architectures": ["LlamaModel"]}), build(TINY)
    assert whole.params - bare.params == 8 * 50
