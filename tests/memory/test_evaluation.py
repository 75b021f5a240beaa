"""What an evaluation between steps holds, against a real one of a small model on the CPU."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from planner.adapter import AdapterSpec, adapt
from planner.architecture.build import build
from planner.errors import InputError
from planner.memory import estimate_memory
from planner.moments import MemoryEstimate
from planner.running import running
from planner.setup import Setup

CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 3,
    "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 4096, "max_position_embeddings": 1024,
    "tie_word_embeddings": False, "architectures": ["LlamaForCausalLM"],
}  # fmt: skip
QWEN = "Qwen/Qwen2.5-7B"


def _evaluation(found: MemoryEstimate) -> int:
    """Bytes of its activations, logits and buffers, without the workspaces of CUDA."""
    moment = next(moment for moment in found.moments if moment.phase == "evaluation")
    return sum(
        item.bytes for item in moment.items
        if item.part in ("activations", "logits", "temporary") and item.name != "tokens and workspaces"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("batch", "length", "cached"), [(4, 64, False), (2, 512, False), (2, 512, True), (8, 128, True)]
)
def test_an_evaluation_is_that_of_a_real_model(batch: int, length: int, cached: bool) -> None:
    """With the cache of keys and values that a model in evaluation fills, and without."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from torch.utils._python_dispatch import TorchDispatchMode

    class Peak(TorchDispatchMode):
        """The most bytes that new storages hold at a time."""

        now = most = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for each in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(each, torch.Tensor):
                    self.see(each.untyped_storage())
            return out

        def see(self, storage: Any) -> None:
            if storage._cdata in self.seen:
                return
            size, key = storage.nbytes(), storage._cdata
            self.seen.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.go, key, size)

        def go(self, key: int, size: int) -> None:
            self.seen.discard(key)
            self.now -= size

    given = {key: value for key, value in CONFIG.items() if key not in ("model_type", "architectures")}
    config = transformers.LlamaConfig(**given, attn_implementation="eager", use_cache=cached)
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.zeros(batch, length, dtype=torch.long)
    peak = Peak()
    peak.seen = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    with torch.no_grad(), peak:
        loss = model(input_ids=ids, labels=ids).loss
    assert loss.item() > 0
    setup = Setup(
        method="full", precision="fp32", attention_kernel="eager", seq_len=length, eval_batch=batch,
        eval_cache="kept" if cached else "none",
    )  # fmt: skip
    assert _evaluation(estimate_memory(build(CONFIG), setup)) == pytest.approx(peak.most, rel=0.08)


def test_an_evaluation_by_the_trainers_default_can_need_more_than_a_step() -> None:
    """8 sequences whose loss makes all logits: 2 + 4 + 4 bytes a logit, where one is trained on."""
    options = {"method": "lora", "rank": 8, "targets": "q_proj", "seq_len": 2048, "trainer": "hf-trainer"}
    options["checkpointing"] = "layer"
    step, both = (running(QWEN, {**options, "eval_batch": n}).memory() for n in (0, 8))
    assert step.peak.phase != "evaluation" and both.peak.phase == "evaluation"
    assert both.peak.parts()["logits"] == pytest.approx(8 * 2048 * 152064 * 10, rel=0.01)
    assert both.per_gpu_bytes > 2 * step.per_gpu_bytes
    chunks = running(QWEN, {**options, "trainer": "trl", "eval_batch": 8}).memory()
    assert chunks.per_gpu_bytes < both.per_gpu_bytes / 2


def test_a_cache_that_comes_out_as_tuples_is_widened() -> None:
    """By hand, Llama-2-7B: 8 sequences of 2,048 tokens with keys and values of 32 heads in 32 layers, 2 bytes each,
    and 4 of accelerate's copy, beside float32 logits; none where the config says that nothing is cached."""
    options = {
        "method": "lora", "rank": 8, "targets": "q_proj", "seq_len": 2048, "trainer": "hf-trainer-4",
        "checkpointing": "layer", "eval_batch": 8,
    }  # fmt: skip
    found = running("meta-llama/Llama-2-7b-hf", options).memory()
    parts = found.peak.parts()
    assert found.peak.phase == "evaluation"
    assert parts["temporary"] == pytest.approx(6 * 8 * 2048 * 32 * 2 * 32 * 128, rel=0.01)
    assert parts["logits"] == 4 * 8 * 2048 * 32000
    kept = running("meta-llama/Llama-2-7b-hf", {**options, "trainer": "hf-trainer-4.46"}).memory()
    bare = running("meta-llama/Llama-2-7b-hf", {**options, "trainer": "hf-trainer"}).memory()
    assert bare.per_gpu_bytes < kept.per_gpu_bytes < found.per_gpu_bytes
    arch = build({**CONFIG, "use_cache": False})
    without, told = (
        estimate_memory(each, Setup(method="full", seq_len=64, eval_batch=2, eval_cache="kept"))
        for each in (build(CONFIG), arch)
    )
    assert _evaluation(without) - _evaluation(told) == 2 * 64 * 3 * 2 * 256 * 2  # held beside the loss


def test_an_evaluation_is_of_supervised_training() -> None:
    with pytest.raises(InputError, match="eval-batch"):
        running(QWEN, {"method": "lora", "rank": 8, "objective": "dpo", "eval_batch": 4}).memory()
    with pytest.raises(InputError, match="eval-batch"):
        Setup(eval_batch=-1)


def test_adapters_wait_without_their_gradients() -> None:
    arch = build(CONFIG)
    pairs = adapt(arch, AdapterSpec(rank=64, layers=("attention",), experts="none"))
    found = estimate_memory(arch, Setup(method="lora", accumulation=4, eval_batch=2, seq_len=64), pairs)
    parts = next(moment for moment in found.moments if moment.phase == "evaluation").parts()
    assert parts["gradients"] == 0 and parts["optimizer"] > 0


@pytest.mark.parametrize("precision", ["bf16", "autocast"])
def test_a_cache_comes_out_in_float32_wherever_autocast_lowers(precision: str) -> None:
    """Six bytes of each of 8 x 512 tokens' 2 x 4,096 values in 32 layers of Llama 2, and float32 logits; before
    transformers 4.31 nothing is widened."""
    run: dict[str, Any] = {"method": "lora", "precision": precision, "eval_batch": 8, "seq_len": 512}
    run |= {"checkpointing": "layer"}
    model, tokens = "meta-llama/Llama-2-7b-hf", 8 * 512
    moments = running(model, {**run, "trainer": "hf-trainer-4"}).memory().moments
    outputs = next(moment for moment in moments if moment.name == "evaluation outputs").parts()
    assert outputs["temporary"] == pytest.approx(tokens * 32 * 2 * 4096 * 6, rel=0.005)
    assert outputs["logits"] == tokens * 32_000 * 4
    before = running(model, {**run, "trainer": "stanford-alpaca"}).memory().moments
    assert "evaluation outputs" not in {moment.name for moment in before}
