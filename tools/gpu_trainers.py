"""Steps that transformers' Trainer and TRL's trainers run on a GPU, as their users start them, for
`tools/gpu_steps.py`."""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, TrainerCallback

from .gpu_cases import Case
from .gpu_models import base_of, config_of, lora_of, trained

STEPS, WARM = 6, 2
OPTIMIZERS = {"adamw-8bit": "adamw_bnb_8bit", "paged-adamw-8bit": "paged_adamw_8bit", "sgd": "sgd"}


class Watch(TrainerCallback):  # type: ignore[misc]
    """Peaks and times of a trainer's steps; the first ones are left out of both."""

    def __init__(self, gauge: Any) -> None:
        self.gauge = gauge
        self.times: list[float] = []
        self.first_peak = self.held = 0
        self.peaks: list[int] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before a step."""
        self.gauge.wait()
        self.held = self.gauge.now()
        if state.global_step < 2:
            self.gauge.forget()
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After a step."""
        self.gauge.wait()
        self.times.append(round(time.perf_counter() - self.began, 6))
        if state.global_step == 1:
            self.first_peak = self.gauge.peak()
        self.peaks.append(self.gauge.peak())


def run_trainer(case: Case, device: str, gauge: Any) -> dict[str, Any]:
    """A trainer's steps: its peak after the first step, and the median time of the later ones."""
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(gauge)
        trainer = _trainer(case, device, folder)
        trainer.add_callback(watch)
        shapes: list[tuple[int, ...]] = []
        handle = trainer.model.register_forward_pre_hook(_noting(shapes), with_kwargs=True)
        trainer.train()
        handle.remove()
    return {
        "held_bytes": watch.held, "trained_params": sum(p.numel() for p in trained(trainer.model)),
        "first_peaks": {"step": watch.first_peak}, "peaks": {"step": gauge.peak()}, "peak_bytes": gauge.peak(),
        "reserved_bytes": gauge.reserved(), "device_bytes": gauge.device_used(), "shape": list(shapes[-1]),
        "step_s": statistics.median(watch.times[WARM:]), "steps_s": watch.times[WARM:],
    }  # fmt: skip


def _noting(shapes: list[tuple[int, ...]]) -> Any:
    def hook(_: Any, args: Any, kwargs: Any) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is not None:
            shapes.append(tuple(ids.shape))

    return hook


def _settings(case: Case, folder: str, device: str) -> dict[str, Any]:
    options = case.options
    accumulation = options.get("accumulation", 1)
    found = {
        "output_dir": folder, "per_device_train_batch_size": options["batch"] // accumulation,
        "gradient_accumulation_steps": accumulation, "max_steps": STEPS, "learning_rate": 1e-5, "report_to": [],
        "logging_strategy": "no", "save_strategy": "no", "disable_tqdm": True, "bf16": True,
        "use_cpu": device == "cpu",
    }  # fmt: skip
    if "optimizer" in options:
        found["optim"] = OPTIMIZERS[options["optimizer"]]
    if "checkpointing" in options:
        found["gradient_checkpointing"] = options["checkpointing"] != "none"
        found["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    if options.get("kernels") == "liger":
        found["use_liger_kernel"] = True
    return found


def _trainer(case: Case, device: str, folder: str) -> Any:
    """The trainer of a case, with its model."""
    config = config_of(case)
    base = base_of(case, config, device)
    settings = _settings(case, folder, device)
    if str(case.options["trainer"]).startswith("hf-trainer"):
        return _hf(case, base, settings)
    return _trl(case, base, settings)


def _hf(case: Case, base: Any, settings: dict[str, Any]) -> Any:
    from peft import get_peft_model, prepare_model_for_kbit_training
    from transformers import Trainer, TrainingArguments, default_data_collator

    options = case.options
    if options["method"] == "qlora":
        base = prepare_model_for_kbit_training(
            base, use_gradient_checkpointing=settings.get("gradient_checkpointing", False),
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )  # fmt: skip
    model = base if options["method"] == "full" else get_peft_model(base, lora_of(case))
    if settings.get("gradient_checkpointing") and options["method"] == "lora":
        model.enable_input_require_grads()
    ids = torch.randint(5, base.config.get_text_config().vocab_size - 5, (64, options["seq_len"]))
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row} for row in ids]
    arguments = TrainingArguments(**settings)
    return Trainer(model=model, args=arguments, train_dataset=rows, data_collator=default_data_collator)


def _trl(case: Case, base: Any, settings: dict[str, Any]) -> Any:
    import trl
    from datasets import Dataset

    options = case.options
    tokenizer = words(base.config.get_text_config())
    adapter = None if options["method"] == "full" else lora_of(case)
    length = options["seq_len"]
    if options.get("objective", "sft") == "sft":
        rows = Dataset.from_dict({"input_ids": torch.randint(5, 900, (64, length)).tolist()})
        return trl.SFTTrainer(
            model=base, args=trl.SFTConfig(max_length=length, **settings), train_dataset=rows, peft_config=adapter,
            processing_class=tokenizer,
        )  # fmt: skip
    half = length // 2
    if options["objective"] == "dpo":
        names = {"prompt": half, "chosen": half - 1, "rejected": half - 1}
        rows = Dataset.from_dict({name: [_text(n) for _ in range(64)] for name, n in names.items()})
        return trl.DPOTrainer(
            model=base, args=trl.DPOConfig(max_length=length, **settings), train_dataset=rows, peft_config=adapter,
            processing_class=tokenizer,
        )  # fmt: skip
    prompt = options["prompt_tokens"]
    rows = Dataset.from_dict({"prompt": [_text(prompt) for _ in range(64)]})
    group = options.get("group", 8)
    arguments = trl.GRPOConfig(
        num_generations=group, max_completion_length=length - prompt, temperature=1.0, **settings
    )
    return trl.GRPOTrainer(
        model=base, args=arguments, train_dataset=rows, peft_config=adapter, processing_class=tokenizer,
        reward_funcs=lambda completions, **_: [float(len(text) % 7) for text in completions],
    )  # fmt: skip


def _text(number: int) -> str:
    return " ".join(f"w{int(k)}" for k in torch.randint(5, 900, (number,)))


def words(config: Any) -> Any:
    """A tokenizer whose tokens are words, so that a text has as many tokens as words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{number}": number for number in range(3, 1000)}
    made = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    config.pad_token_id, config.eos_token_id = 0, 1
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
