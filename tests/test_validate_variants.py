"""LoRA's variants and layouts on a mixture of experts as runs, and records that the rest of the planner reads."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from planner import calibrate
from planner.dataset.runs import first_epoch_loss
from planner.errors import InputError
from planner.validate import adapters, experts, records, validate, zoo
from planner.validate.batches import IGNORED, encode_batch
from planner.validate.claims import Setting, claim
from planner.validate.duration import claim_seconds
from planner.validate.models import fresh, shape
from planner.validate.records import LATER, RunConfig, RunRecord
from planner.validate.require import require
from planner.validate.runs import perform
from planner.validate.tables import MEMORY_COLUMNS, memory_csv, sweep_row
from planner.validate.tasks import Example
from planner.validate.text import Characters
from planner.validate.train import Trainer

NANO = RunConfig(model="nano", rank=4, steps=8, batch=4, seq_len=32, lr=1e-3, evaluate_at=(8,))
MIXTURE = "test-mixture"


@pytest.fixture
def mixture(monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A mixture of 4 experts, 2 of them active, hardly trained."""
    monkeypatch.setitem(zoo.ZOO, MIXTURE, zoo.Shape(16, 1, 2, 32, steps=40, batch=4, experts=4))
    return NANO.but(model=MIXTURE)


@pytest.mark.parametrize("variant", adapters.VARIANTS)
def test_each_variant_learns_and_starts_where_it_should(variant: str) -> None:
    trainer = Trainer(NANO.but(variant=variant), "cpu")
    pairs = list(adapters.pairs(trainer.model))
    zero = not any(pair.b.count_nonzero() for pair in pairs)
    assert zero == (variant != "pissa")
    scale = 32 / 4**0.5 if variant == "rslora" else 32 / 4
    assert {pair.scale for pair in pairs} == {scale}
    rates = sorted({group["lr"] for group in trainer.optimizer.param_groups})
    assert rates == ([1e-3, 16 * 1e-3] if variant == "loraplus" else [1e-3])
    trained = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    assert trained == sum(p.requires_grad for p in trainer.model.parameters())
    # Every variant computes what the base model does before the first step.
    base, known = fresh("nano", "cpu")
    batch = trainer.batch(0)
    with require().no_grad():
        change = (
            (trainer.model(input_ids=batch.tokens).logits - base(input_ids=batch.tokens).logits).abs().max()
        )
    assert float(change) < 1e-4 and known.weights == trainer.base.weights
    found = trainer.run()
    assert found.status == "ok" and found.curve[-1] < found.curve[0]


def test_an_unknown_variant_or_layout_is_refused(mixture: RunConfig) -> None:
    with pytest.raises(InputError, match="variant"):
        perform(NANO.but(variant="lora++"), "cpu")
    with pytest.raises(InputError, match="experts"):
        perform(mixture.but(experts="none-such"), "cpu")


@pytest.mark.parametrize("layout", experts.CONVENTIONS)
def test_layouts_of_experts_hold_what_the_planner_counts(mixture: RunConfig, layout: str) -> None:
    config = mixture.but(experts=layout)
    trainer = Trainer(config, "cpu")
    # By hand, h = 16 and 16 a side of each of 4 experts: three matrices of 4 pairs, or one shared factor and 4.
    rank = {"scaled": 2, "per-expert": 4, "shared-outer": 4}[layout]
    each = 16 * (1 + 4) if layout == "shared-outer" else 4 * (16 + 16)
    attention_and_unembedding = 4 * (4 * (16 + 16) + (16 + 64))
    assert trainer.outcome.trainable == 3 * rank * each + attention_and_unembedding
    assert trainer.outcome.trainable == adapters.planned(config, shape(MIXTURE)).adapter.params
    found = trainer.run()
    assert found.status == "ok" and found.curve[-1] < found.curve[0]
    assert sum("experts" in name for name in found.norms) == 3 * 4
    assert all(pair["b"] > 0 for name, pair in found.norms.items() if "experts" in name)


def test_experts_own_change_is_their_own(mixture: RunConfig) -> None:
    torch = pytest.importorskip("torch")
    trainer = Trainer(mixture, "cpu")
    [(_, gate_up), (_, down)] = list(experts.expert_pairs(trainer.model))
    assert gate_up.a.shape == (2, 4, 2, 16) and down.b.shape == (1, 4, 16, 2)
    with torch.no_grad():
        gate_up.b[1, 2] = 1.0  # the up part of expert 2 alone
        module = dict(trainer.model.named_modules())["base_model.model.model.layers.0.mlp.experts"]
        change = module.gate_up_proj - module.parametrizations.gate_up_proj.original
    assert float(change[[0, 1, 3]].abs().max()) == 0 and float(change[2, :16].abs().max()) == 0
    by_hand = 32 / 2 * gate_up.a[1, 2].sum(0)
    assert torch.allclose(change[2, 16:], by_hand.expand(16, -1))


def test_claims_on_layouts_and_variants_ask_for_their_arms() -> None:
    setting = Setting(("tiny",), 1)
    asked = {(c.model, c.method, c.experts) for c in claim("C8").needs(setting, lambda _: None)}
    assert asked == {
        ("mixture", "full", "scaled"), *(("mixture", "lora", layout) for layout in experts.CONVENTIONS)
    }  # fmt: skip
    assert {c.variant for c in claim("V1").needs(setting, lambda _: None)} == set(adapters.VARIANTS)


def test_fields_of_later_versions_leave_the_names_of_earlier_records() -> None:
    told = {key: value for key, value in NANO.to_dict().items() if key not in LATER}
    assert records.config_from(told).id == NANO.id
    assert NANO.but(variant="dora").id != NANO.id != NANO.but(experts="per-expert").id


def _record(folder: Path, record: RunRecord) -> str:
    return str(records.write(folder, record))


def test_a_record_feeds_dataset_calibrate_and_the_tables(tmp_path: Path) -> None:
    run = perform(NANO.but(task="strings:count=8,length=8", seq_len=16), "cpu")
    # Two steps of four see each of eight strings once.
    assert run.measured["first_epoch_loss"] == pytest.approx(sum(run.curve[:2]) / 2)
    assert first_epoch_loss(_record(tmp_path, run)) == run.measured["first_epoch_loss"]
    assert run.peak_memory_bytes is None or run.peak_memory_bytes > 50e6
    assert memory_csv(tmp_path).strip().split(",") == list(MEMORY_COLUMNS)
    config = RunConfig(model="meta-llama/Llama-3.1-8B", rank=16, batch=8, seq_len=512, evaluate_at=(200,))
    on_gpu = RunRecord(
        config, "ok", curve=(2.0, 1.5), evaluations=((200, 1.4),), measured={"attention_kernel": "eager"},
        step_s=1.25, peak_memory_bytes=3 * 2**30, hardware={"accelerator": "h100", "device": "cuda"},
        versions={"torch": "2.13.0"},
    )  # fmt: skip
    found = calibrate(record=_record(tmp_path, on_gpu))
    assert found.measurement and found.measurement.measured_s == 1.25
    assert found.peak and (found.peak.measured_bytes, found.peak.of) == (3 * 2**30, "allocated")
    [row] = csv.DictReader(io.StringIO(memory_csv(tmp_path)))
    assert (row["peak_memory_gb"], row["gpu_type"], row["step_time_s"]) == ("3.0", "h100", "1.25")
    other = sweep_row(replace(on_gpu, config=config.but(variant="dora")))
    assert other["dataset"] == "dialect dora" and sweep_row(on_gpu)["dataset"] == "dialect"
    assert json.loads(Path(_record(tmp_path, on_gpu)).read_text())["step_s"] == 1.25


def test_mixed_precision_and_checkpointing_train_alike() -> None:
    plain = perform(NANO, "cpu")
    mixed, saved = (
        perform(NANO.but(**c), "cpu") for c in ({"precision": "bfloat16"}, {"checkpointing": True})
    )
    assert mixed.curve != plain.curve and mixed.curve[-1] == pytest.approx(plain.curve[-1], rel=0.05)
    assert saved.curve == pytest.approx(plain.curve, abs=1e-6)
    assert plain.flops and saved.flops and saved.flops > plain.flops


def test_a_policys_flops_are_counted_apart_from_its_sampling() -> None:
    config = RunConfig(
        kind="rl", model="nano", task="secret:bits=2", rank=2, steps=2, batch=8, group=4, seq_len=16,
        precision="bfloat16",
    )  # fmt: skip
    found = perform(config, "cpu")
    assert found.status == "ok" and found.flops is not None
    # One answer token: sampling is a forward of six tokens, the update a forward and backward of seven.
    assert 1.5 < found.flops / found.measured["sampling_flops"] < 4


def test_durations_follow_the_runs_that_a_claim_asks_for() -> None:
    short, long = (claim_seconds(claim("C14"), Setting(("nano",), 1, steps)) for steps in (120, 1200))
    assert short and long and long > 5 * short
    assert claim_seconds(claim("C19"), Setting()) == 0.0
    assert claim_seconds(claim("C14"), Setting(("Qwen/Qwen3-0.6B",), 1)) is None


def test_examples_become_tensors_with_loss_on_completions_alone() -> None:
    examples = [Example("ab", "cd"), Example("", "xyz"), Example("abcdef", "g")]
    batch = encode_batch(examples, Characters(), 5, "cpu")
    ids = {char: Characters().encode(char)[0] for char in "abcdefgxyz"}
    assert batch.tokens.tolist() == [
        [*(ids[c] for c in "abcd"), 0], [*(ids[c] for c in "xyz"), 0, 0], [ids[c] for c in "abcde"],
    ]  # fmt: skip
    no = IGNORED
    assert batch.targets.tolist() == [
        [no, ids["c"], ids["d"], no], [ids["y"], ids["z"], no, no], [no, no, no, no],
    ]  # fmt: skip
    assert batch.loss_tokens == 4
    with pytest.raises(InputError, match="two tokens"):
        encode_batch([Example("", "a")], Characters(), 5, "cpu")


def test_the_users_own_text_trains_the_standard_runs(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("\n".join(f"line {n} of my own text" for n in range(40)))
    report = validate("C14", model="nano", out=tmp_path / "runs", seeds=1, steps=10, data=path)
    assert report.complete and report.setting.task == f"file:{path}"
    with pytest.raises(InputError, match="data"):
        validate("C14", model="nano", out=tmp_path / "runs", data=tmp_path / "none.txt")


def test_a_budget_is_kept_while_a_model_is_being_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(zoo.ZOO, "test-long", zoo.Shape(16, 1, 2, 32, steps=100_000, batch=4))
    report = validate("C14", model="test-long", out=tmp_path, seeds=1, steps=10, budget="2s")
    assert not report.complete and report.seconds < 60 and not report.counts
    assert not zoo.location("test-long").exists()
