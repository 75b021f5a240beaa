"""Policy gradient and norms by hand; devices, with a torch that claims to have GPUs where none is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planner import facts
from planner.errors import InputError
from planner.validate import peak, require, zoo
from planner.validate.api import setting_of
from planner.validate.claims import claim
from planner.validate.claims.c05 import published
from planner.validate.executors import workers
from planner.validate.policy import Policy, Samples
from planner.validate.records import RunConfig
from planner.validate.runs import perform

RL = RunConfig(
    kind="rl", model="nano", task="secret:bits=1", rank=2, lr=1e-3, steps=1, batch=8, group=4, seq_len=16
)


def test_the_loss_of_a_policy_by_hand() -> None:
    policy = Policy(RL, "cpu")
    drawn = policy.sample([prompt for prompt in policy.prompts(0) for _ in range(RL.group)])
    rewards = torch.tensor([1.0, 0, 0, 0, 1, 1, 0, 0])
    shifts = torch.linspace(-0.5, 0.5, 8)[:, None]
    samples = Samples(drawn.tokens, drawn.log_probs - shifts, drawn.counted, rewards, drawn.prompt_length)
    loss = policy.loss(samples)
    # Group-centred advantages times exp(log p - log p of the sampler) at each counted token.
    advantages = np.array([0.75, -0.25, -0.25, -0.25, 0.5, 0.5, -0.5, -0.5])
    ratio = np.exp(np.linspace(-0.5, 0.5, 8))
    expected = -np.mean(advantages * ratio * drawn.counted.sum(1).numpy())
    assert float(loss) == pytest.approx(expected, abs=1e-5)
    # The gradient is that of the log-probabilities, weighted by ratio x advantage.
    loss.backward()
    ours = [p.grad.clone() for p in policy.model.parameters() if p.grad is not None]
    policy.optimizer.zero_grad()
    logits = policy.model(input_ids=drawn.tokens, use_cache=False).logits[:, drawn.prompt_length - 1 : -1]
    chosen = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), drawn.tokens[:, drawn.prompt_length :].flatten(), reduction="none"
    ).view(8, -1)
    weights = torch.tensor(advantages * ratio, dtype=torch.float32)[:, None] * drawn.counted
    ((weights * chosen).sum(1).mean()).backward()
    theirs = [p.grad for p in policy.model.parameters() if p.grad is not None]
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_group_of_equal_rewards_teaches_nothing() -> None:
    policy = Policy(RL, "cpu")
    drawn = policy.sample([prompt for prompt in policy.prompts(0) for _ in range(RL.group)])
    equal = torch.tensor([1.0] * 4 + [0.0] * 4)
    policy.loss(Samples(drawn.tokens, drawn.log_probs, drawn.counted, equal, drawn.prompt_length)).backward()
    assert all(float(p.grad.abs().max()) == 0 for p in policy.model.parameters() if p.grad is not None)


def test_norms_are_those_of_numpy() -> None:
    from planner.validate import adapters
    from planner.validate.train import Trainer

    trainer = Trainer(RunConfig(model="nano", rank=2, steps=3, batch=4, seq_len=16, lr=1e-2), "cpu")
    found = trainer.run()
    pairs = list(adapters.pairs(trainer.model))
    assert set(found.norms) == {pair.name for pair in pairs} and len(pairs) > 6
    for pair in pairs:
        a, b = pair.a.detach().double().numpy(), pair.b.detach().double().numpy()
        norms = found.norms[pair.name]
        assert norms["a"] == pytest.approx(np.linalg.svd(a, compute_uv=False)[0], rel=1e-5)
        assert norms["b"] == pytest.approx(np.linalg.svd(b, compute_uv=False)[0], rel=1e-5)
        assert norms["a_frobenius"] == pytest.approx(np.sqrt((a**2).sum()), rel=1e-5)
        assert norms["b_frobenius"] == pytest.approx(np.sqrt((b**2).sum()), rel=1e-5)
        assert norms["change"] == pytest.approx(16 * np.sqrt(((b @ a) ** 2).sum()), rel=1e-5)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """torch.cuda as on a machine of two GPUs, as far as devices and peaks of memory go; what was called."""
    called: list[str] = []

    def note(name: str, value: Any = None) -> Any:
        def call(*arguments: object) -> Any:
            called.append(" ".join([name, *map(str, arguments)]))
            return value

        return call

    for name, value in (
        ("is_available", True), ("device_count", 2), ("init", None), ("empty_cache", None),
        ("reset_peak_memory_stats", None), ("max_memory_allocated", 12345),
        ("get_device_name", "NVIDIA H100 80GB HBM3"),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, note(name, value))
    return called


def test_devices_are_those_that_torch_sees(two_gpus: list[str]) -> None:
    assert require.device_of("auto") == "cuda" and require.device_of("cuda:1") == "cuda:1"
    for wrong in ("cuda:2", "cuda:x", "cuda:", "tpu"):
        with pytest.raises(InputError, match=r"cuda \(0 to 1\)"):
            require.device_of(wrong)
    assert [workers._device("cuda", n) for n in (1, 2, 3)] == ["cuda:1", "cuda:0", "cuda:1"]
    assert workers._device("cuda:1", 5) == "cuda:1" and workers._device("cpu", 1) == "cpu"
    assert require.hardware("cuda:1")["accelerator"] == "NVIDIA H100 80GB HBM3"
    assert two_gpus[-1] == "get_device_name cuda:1"


def test_a_gpus_peak_is_forgotten_before_a_run(two_gpus: list[str]) -> None:
    peak.forget("cuda:1")
    assert two_gpus == ["init", "empty_cache", "reset_peak_memory_stats cuda:1"]
    assert peak.peak_bytes("cuda:1") == 12345 and two_gpus[-1] == "max_memory_allocated cuda:1"


def test_without_a_gpu_cuda_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(InputError, match=r"sees here: cpu.*sees no GPU"):
        require.device_of("cuda")


def test_the_standard_run_takes_precision_batch_length_and_checkpointing(tmp_path: Path) -> None:
    setting = setting_of("nano", 1, 10, None, batch=2, seq_len=8, precision="bfloat16", checkpointing=True)
    first = claim("C14").needs(setting, lambda _: None)[0]
    assert (first.batch, first.seq_len, first.precision, first.checkpointing) == (2, 8, "bfloat16", True)
    record = perform(first, "cpu")
    assert record.status == "ok" and record.flops
    assert record.flops > (perform(first.but(checkpointing=False), "cpu").flops or 0)
    for wrong, field in (
        ({"precision": "fp8"}, "precision"),
        ({"batch": 0}, "batch"),
        ({"seq_len": 1}, "seq_len"),
    ):
        with pytest.raises(InputError, match=field):
            setting_of("nano", 1, 10, None, **wrong)


def test_a_quantised_model_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    told = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(
        json.dumps({**zoo.ZOO["nano"].config(), "quantization_config": told})
    )
    with pytest.raises(InputError, match=r"quantised \(bitsandbytes\).*QLoRA is only planned"):
        setting_of(str(tmp_path), 1, 10)
    with pytest.raises(InputError, match="full, lora"):
        RunConfig(method="qlora", rank=4)  # type: ignore[arg-type]


def test_defaults_of_the_standard_run_leave_the_names_of_records() -> None:
    plain = claim("C14").needs(setting_of("tiny", 1, 120), lambda _: None)[0]
    assert plain == RunConfig(
        model="tiny", task="dialect", rank=16, steps=120, lr=plain.lr, evaluate_at=(15, 30, 60, 120)
    )


def test_the_published_sweeps_best_rates_at_rank_1_by_hand() -> None:
    # The vertex of the parabola through the lowest point and its neighbours, by numpy, for one of the models.
    number, found = published()
    assert number == 18 and found.low is not None and found.high is not None
    assert 0.4 < found.low < found.value < found.high < 0.75
    rows = [row.split(",") for row in facts.read_data("sweeps", "tinker_sft.csv").splitlines()[1:]]
    logs = {}
    for rank in ("1", "16"):
        points = {
            float(r[2]): float(r[4])
            for r in rows
            if r[0] == "Qwen/Qwen3.5-27B" and r[3] == rank and r[7] == "ok"
        }
        low = sorted(points).index(min(points, key=lambda lr: points[lr]))
        three = sorted(points)[low - 1 : low + 2]
        a, b, _ = np.polyfit(np.log(three), [points[lr] for lr in three], 2)
        logs[rank] = -b / (2 * a)
    assert np.exp(logs["1"] - logs["16"]) == pytest.approx(0.199 / 0.297, rel=0.01)
