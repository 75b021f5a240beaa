"""Profiles that are another's but for what their own code says: how they are read, and what they take."""

from __future__ import annotations

from typing import Any

import pytest

from planner import compare, estimate
from planner.errors import FactError
from planner.running import running
from planner.speed.communication import GATHER_BY_LAYER
from planner.speed.roofline import LOOPS
from planner.trainers import LOSS_CHUNKS, filled, find, likeness, lineage, noted, one_of, parse, trainers

LLAMA, PARAMS = "meta-llama/Llama-3.1-8B", 8_030_261_248
SMALL: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 704,
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 8192,
    "tie_word_embeddings": False, "max_position_embeddings": 2048, "torch_dtype": "bfloat16",
}  # fmt: skip
SOURCE = {"title": "a", "url": "https://a.b/c", "locator": "d", "date": "2026", "kind": "documentation"}


def _claim(*fields: str, what: str = "x") -> dict[str, Any]:
    return {"fields": list(fields), "what": what, "source": SOURCE}


BASE: dict[str, Any] = {
    "name": "base", "title": "Base", "metric": "reserved", "general": True,
    "setup": {"loss": "full", "autocast": True}, "qlora": {"upcast_small": True},
    "claim": [_claim("loss", "autocast", what="both"), _claim("upcast_small", what="small")],
}  # fmt: skip


def test_what_a_profile_does_not_say_is_as_in_the_one_it_is_like() -> None:
    own = {
        "name": "own", "title": "Own", "like": "base", "setup": {"loss": "shifted"},
        "claim": [_claim("loss", what="shifts")],
    }  # fmt: skip
    found = parse({"trainer": [BASE, own]})[1]
    assert dict(found.groups["setup"]) == {"loss": "shifted", "autocast": True}
    assert dict(found.groups["qlora"]) == {"upcast_small": True}
    assert [claim.what for claim in found.claims] == ["shifts", "both", "small"]
    assert found.differs == ("shifts",)
    assert (found.metric, found.general) == ("", False)  # its figures, and whose code was read, are its own


def test_a_claim_of_the_other_is_dropped_where_ones_own_speak_of_all_its_fields() -> None:
    own = {
        "name": "own", "title": "Own", "like": "base", "qlora": {"upcast_small": False},
        "claim": [_claim("upcast_small", what="nothing is widened")],
    }  # fmt: skip
    found = parse({"trainer": [BASE, own]})[1]
    assert [claim.what for claim in found.claims] == ["nothing is widened", "both"]
    assert found.groups["qlora"]["upcast_small"] is False


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"like": "nobody", "claim": [_claim("loss")]}, "like 'nobody', which no profile before it is"),
        ({"like": "base"}, "a profile without a source"),
        ({"like": "base", "setup": {"loss": "full"}, "claim": [_claim("autocast")]}, "loss without a source"),
    ],
)
def test_a_likeness_without_ground_is_refused(own: dict[str, Any], says: str) -> None:
    with pytest.raises(FactError, match=says):
        parse({"trainer": [BASE, {"name": "own", "title": "Own", **own}]})


def test_every_name_and_alias_is_one_profiles() -> None:
    spelt = [name for t in trainers() for name in (t.name, *t.aliases)]
    assert len(spelt) == len(set(spelt)) > 120
    assert {t.like for t in trainers()} - {""} <= {t.name for t in trainers()}


def test_that_a_profile_is_anothers_is_said_where_it_is_used() -> None:
    plan = estimate(LLAMA, trainer="vicuna", gpu="h100", seq_len=512)
    told = [notice.message for notice in plan.warnings if notice.code == "trainer-like"]
    assert len(told) == 1 and "taken as the profile hf-trainer-2023, but that the model is loaded" in told[0]
    assert any("fastchat/train/train_lora.py" in source.locator for _, source in plan.sources)
    assert likeness("hf-trainer") is likeness("plain") is None
    both = compare(LLAMA, methods="lora,full", trainer="fastchat")
    assert [notice.code for notice in both.warnings].count("trainer-like") == 1


def test_what_a_profile_notes_is_said() -> None:
    codes = [
        [notice.code for notice in estimate(LLAMA, trainer=trainer, seq_len=64).warnings]
        for trainer in ("llama-factory", "fastchat", "hf-trainer")
    ]
    assert [("trainer-noted" in each, "trainer-like" in each) for each in codes] == [
        (True, False), (True, True), (False, False),
    ]  # fmt: skip
    found = noted("fastchat")
    assert found is not None and "--attention-kernel eager" in found.message and noted("plain") is None


def test_a_name_without_a_version_says_which_it_means() -> None:
    """Where there are profiles of other versions: in its title, and noted of those whose versions differ most."""
    by_name = {each.name: each for each in trainers()}
    bare = [
        name
        for name in by_name
        if any(other.startswith(f"{name}-") and any(map(str.isdigit, other)) for other in by_name)
    ]
    assert {"unsloth", "llama-factory", "trl", "hf-trainer", "axolotl", "litgpt", "torchtune"} <= set(bare)
    for name in bare:
        assert any(map(str.isdigit, by_name[name].title)), name
    for name, version, other in (
        ("unsloth", "2026", "unsloth-2025"), ("llama-factory", "0.9.0", "llama-factory-0.9.4"),
    ):  # fmt: skip
        told = [
            n.message for n in estimate(LLAMA, trainer=name, seq_len=64).warnings if n.code == "trainer-noted"
        ]
        assert len(told) == 1 and version in told[0] and other in told[0]


def test_what_is_known_of_a_programs_speed_holds_for_those_like_it() -> None:
    assert lineage("lit-llama") == ("lit-llama", "litgpt-2024")
    assert one_of("lit-llama", LOOPS) and one_of("lit-llama", GATHER_BY_LAYER)
    assert not one_of("fastchat", GATHER_BY_LAYER) and lineage("plain") == ("plain",)


@pytest.mark.parametrize(
    ("trainer", "kernel", "forward", "backward"),
    [
        ("hf-trainer-2023", "eager", 100_689_912, 100_620_296),
        ("hf-trainer-4", "eager", 100_689_912, 100_620_296),
        ("hf-trainer-4", "sdpa", 75_589_624, 75_520_008),
        ("hf-trainer-4.53", "eager", 92_334_104, 100_714_504),
    ],
)
def test_a_step_of_transformers_of_then(trainer: str, kernel: str, forward: int, backward: int) -> None:
    """The most bytes of storages alive beside the weights in a step of a small Llama in bfloat16, as LlamaForCausalLM
    of transformers 4.31.0, 4.40.2 and 4.53.3 runs it under torch 2.13 on a CPU (2 x 256 tokens, without autocast),
    where no mean keeps what it reads."""
    options = {
        "trainer": trainer, "method": "full", "autocast": False, "attention_kernel": kernel, "batch": 2,
        "seq_len": 256, "cache_held": False, "squares_kept": False,
    }  # fmt: skip
    moments = running(SMALL, options).memory().moments
    found = {
        phase: max(m.parts()["activations"] + m.parts()["logits"] for m in moments if m.phase == phase)
        for phase in ("loss", "backward")
    }
    assert found["loss"] == pytest.approx(forward, rel=0.001)
    assert found["backward"] == pytest.approx(backward, rel=0.001)


def test_squares_that_torch_kept_before_2_2() -> None:
    """What a layer of a Llama, 256 wide, keeps more of 64 tokens under torch 2.1.2 than under 2.13, by the storages
    that saved_tensors_hooks sees of 2 layers and of 3 (transformers 4.45.2, PEFT 0.19.1, LoRA under bfloat16
    autocast): 826,912 - 695,808, but for four integers of SDPA's; two norms' float32 squares."""

    def kept(layers: int, **more: Any) -> int:
        config = {**SMALL, "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 4}
        options = {
            "trainer": "hf-trainer-2023",
            "rank": 8,
            "seq_len": 64,
            "batch": 1,
            "attention_kernel": "sdpa",
        }
        moments = running(config, {**options, **more}).memory().moments
        return max(m.parts()["activations"] for m in moments if m.phase == "loss")

    squares = [kept(layers) - kept(layers, squares_kept=False) for layers in (2, 3)]
    assert squares[1] - squares[0] == 826_912 - 695_808 - 4 * 8


def _states(trainer: str, **options: Any) -> int:
    """Bytes of weights, gradients and states when the optimizer steps."""
    moments = (
        running(LLAMA, {"trainer": trainer, "method": "full", "seq_len": 16, **options}).memory().moments
    )
    parts = next(m for m in moments if m.phase == "optimizer").parts()
    return sum(parts[name] for name in ("weights", "gradients", "optimizer"))


def test_full_fine_tuning_in_float32_takes_four_times_four_bytes() -> None:
    """Stanford Alpaca's README counts it so; LLaMA-Factory's table has 120 GB of 7B, and 60 with pure_bf16."""
    for trainer in ("stanford-alpaca", "fastchat", "llama-factory", "llama-factory-2023"):
        assert _states(trainer) == pytest.approx(16 * PARAMS, rel=0.001)
    assert _states("llama-factory-0.8", precision="bf16") == pytest.approx(8 * PARAMS, rel=0.001)
    zero = _states("llama-factory", gpus=8, sharding="zero3", batch=8)
    assert zero == pytest.approx(16 * PARAMS / 8, rel=0.01)  # 2 + 2 + 12 bytes


def test_accelerate_makes_what_fsdp_shards_float32() -> None:
    """What is trained, since 0.30; a frozen base and DDP's weights stay in 16 bits."""
    eight: dict[str, Any] = {"gpus": 8, "batch": 8}
    for trainer in ("hf-trainer", "hf-trainer-4", "trl", "trl-0.21", "ms-swift"):
        assert _states(trainer, sharding="fsdp", **eight) == pytest.approx(2 * PARAMS, rel=0.01)
        assert _states(trainer) == pytest.approx(8 * PARAMS, rel=0.001)
        assert filled({"trainer": trainer, "method": "lora", "sharding": "fsdp"}).get("precision") is None
    assert _states("hf-trainer-2023", sharding="fsdp", **eight) == pytest.approx(PARAMS, rel=0.01)
    assert _states("axolotl", sharding="fsdp", **eight) == pytest.approx(PARAMS, rel=0.01)


def test_fastchat_loads_its_base_in_float32() -> None:
    """But 4-bit ones, and under DeepSpeed, whose engine makes them 16 bits."""
    found = [
        running(LLAMA, {"trainer": "fastchat", "rank": 8, "targets": "q_proj", "seq_len": 16, **options})
        for options in ({}, {"gpus": 8, "batch": 8, "sharding": "zero2"}, {"method": "qlora"})
    ]
    weights = [each.memory().peak.parts()["weights"] for each in found]
    assert weights[0] == pytest.approx(4 * PARAMS, rel=0.001)
    assert weights[1] == pytest.approx(2 * PARAMS, rel=0.001)
    assert weights[2] < 0.8 * PARAMS
    assert find("vicuna") is find("fastchat")


def test_mistral_finetune_keeps_float32_copies_of_a_16_bit_adapter() -> None:
    options = {"trainer": "mistral-finetune", "rank": 8, "targets": "q_proj", "seq_len": 16}
    pairs = 32 * 8 * (4096 + 4096)
    parts = running(LLAMA, options).memory().moments[-1].parts()
    assert (parts["adapter"], parts["optimizer"]) == (2 * pairs, 12 * pairs)


def test_pairs_have_the_type_that_peft_of_then_gave_them() -> None:
    """By running PEFT 0.6.2, 0.7.1, 0.11.1 and 0.12.0 on a bfloat16 Llama: float32, bfloat16 twice, float32."""
    found = {t: running(LLAMA, {"trainer": t, "rank": 8}).setup.trained_dtype for t in (
        "hf-trainer-2023", "hf-trainer-2024", "hf-trainer-4", "trl-0.9", "trl-0.11", "axolotl-0.3", "axolotl-0.4",
    )}  # fmt: skip
    assert list(found.values()) == [
        "float32", "bfloat16", "float32", "bfloat16", "float32", "float32", "bfloat16",
    ]  # fmt: skip


def test_cut_cross_entropy_holds_no_logits() -> None:
    """But the gradient of the hidden states: 2 bytes a value."""
    options = {"trainer": "unsloth-2025", "quantize": "nf4", "rank": 8, "targets": "q_proj", "seq_len": 4096}
    moments = running(LLAMA, options).memory().moments
    held = max(m.parts()["logits"] for m in moments)
    assert 4096 * 4096 * 2 <= held < 1.1 * 4096 * 4096 * 2 + 4 * 128256


@pytest.mark.parametrize(
    ("model", "trainer", "tokens", "published"),
    [("THUDM/chatglm3-6b", "chatglm3", 384, 14_082), ("THUDM/glm-4-9b", "glm-4", 1024, 21_531)],
)
def test_readmes_of_chatglm(model: str, trainer: str, tokens: int, published: int) -> None:
    """MiB of a GPU that the READMEs have for LoRA of rank 8 on one sample at a time: 0.93 and 0.97 of them, the
    second predicted before its figure was seen. Lengths are the configs' caps of input and output together."""
    options = {"trainer": trainer, "rank": 8, "targets": "query_key_value", "seq_len": tokens}
    found = running(model, options).memory()
    assert found.low < published * 2**20 < found.high
    assert found.per_gpu_bytes == pytest.approx(published * 2**20, rel=0.08)


def test_advice_holds_for_those_like_it_and_notes_do_not() -> None:
    """Which versions a profile is of is its own; what an option makes of its program holds for its kin."""
    base = {**BASE, "notes": "Before 1.0: other.", "advice": "With its flag: --tf32."}
    like = {"title": "Own", "like": "base", "claim": [_claim("loss")]}
    found = parse(
        {"trainer": [base, {"name": "as", **like}, {"name": "own", "advice": "Not so.", **like},
                     {"name": "none", "advice": "", **like}]}
    )  # fmt: skip
    assert [t.notes for t in found] == ["Before 1.0: other.", "", "", ""]
    assert [t.advice for t in found] == ["With its flag: --tf32.", "With its flag: --tf32.", "Not so.", ""]


def test_what_is_noted_of_kin() -> None:
    def said(name: str) -> str:
        notice = noted(name)
        return notice.message if notice else ""

    bf16 = "With pure_bf16: --precision bf16."
    for name in ("llama-factory", "llama-factory-0.8", "llama-factory-0.9.2", "llama-factory-0.9.4"):
        assert said(name).count(bf16) == 1, name
    assert bf16 not in said("llama-factory-2023") and "--flash_attn" in said("llama-factory-2023")
    assert "Not the newest" not in said("llama-factory-0.9.4")
    assert "--zero_stage 2" in said("openrlhf-0.6")
    assert said("hf-trainer-2024").count("accelerate before 0.30") == 1
    assert "accelerate" not in said("hf-trainer-2023") and "accelerate" in said("lmflow")


def test_a_note_that_names_an_option_stands_as_advice_where_others_are_like_its_profile() -> None:
    kin = {t.like for t in trainers()}
    assert [t.name for t in trainers() if t.name in kin and "--" in t.notes] == []


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("trl-0.15", "trl-0.15"),
        ("trl-0.20", "trl-0.21"),
        ("trl-1.0", "trl-1.2"),
        ("trl-1.4", "trl-1.5"),
        ("trl-1.16", "trl"),
        ("transformers-4.37", "hf-trainer-2024"),
        ("transformers-4.49", "hf-trainer-4.46"),
        ("transformers-5.2", "hf-trainer-5.3"),
        ("transformers-5.12", "hf-trainer"),
        ("ms-swift-3.9", "ms-swift-3"),
        ("torchtune-0.5", "torchtune"),
        ("axolotl-0.16", "axolotl-0.16"),
        ("llama-factory-0.5", "llama-factory-0.8"),
        ("verl", "verl-sft-0.9"),
        ("verl-0.3", "verl-sft-0.3"),
        ("verl-0.5", "verl-sft"),
        ("verl-0.6", "verl-sft-0.6"),
        ("verl-0.8", "verl-sft-0.7"),
    ],
)
def test_versions_have_the_profile_that_they_lie_in(version: str, name: str) -> None:
    found = find(version)
    assert found is not None and found.name == name


@pytest.mark.parametrize(
    ("trainer", "loss", "pieces"),
    [
        (None, "recomputed", 256),  # 4,096 tokens at a time before: more than a loss that holds all logits
        (None, "split-wide", 512),
        (None, "chunked", 4096),
        ("litgpt", "chunked", 4096),  # litgpt's own pieces are of 128 positions
        ("litgpt", None, 128),
        ("torchtune", "split-fused", 512),
        ("trl-1.14", "chunked-vocabulary", 2048),
        ("unsloth", "chunked", 1024),
    ],
)
def test_a_loss_asked_for_by_name_has_its_own_pieces(
    trainer: str | None, loss: str | None, pieces: int
) -> None:
    assert filled({"trainer": trainer, "loss": loss})["loss_chunk"] == pieces


def test_pieces_of_losses_are_those_of_profiles_that_have_them() -> None:
    said: dict[str, set[int]] = {}
    for each in trainers():
        own = each.fields("lora", "none", "none")
        if "loss_chunk" in own:
            said.setdefault(own["loss"], set()).add(own["loss_chunk"])
    assert {loss: {size} for loss, size in LOSS_CHUNKS.items() if loss in said} == {
        loss: sizes for loss, sizes in said.items() if loss in LOSS_CHUNKS
    }
