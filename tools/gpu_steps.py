"""Real training steps on a GPU: what torch's allocator held at most in each, and how long each took.

    python -m tools.gpu_steps --out gpu.jsonl [--budget 480] [--only TEXT]

Runs the cases of `tools/gpu_cases.py` one after another with transformers', PEFT's, TRL's and bitsandbytes' own code,
on random weights, and appends a line of JSON for each. It imports nothing of the planner's: what it measures is held
against the planner by `tools/compare_gpu.py`. `--device cpu` runs the same code without figures of memory, to try it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .gpu_cases import Case, first
from .gpu_models import config_of, model_of, trained
from .gpu_trainers import run_trainer

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "trl", "bitsandbytes", "liger_kernel", "triton")
WARM, TIMED, ENOUGH_S = 2, 5, 4.0


def optimizer_of(case: Case, parameters: list[Any]) -> Any:
    """The optimizer of a case, as its library makes it."""
    name = case.options.get("optimizer", "adamw")
    if name == "adamw":
        fused = parameters[0].device.type == "cuda"
        return torch.optim.AdamW(parameters, lr=1e-5, fused=fused)
    if name in ("sgd", "sgd-momentum"):
        return torch.optim.SGD(
            parameters, lr=1e-5, momentum=0.9 if name == "sgd-momentum" else 0.0, foreach=False
        )
    if name == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(parameters, lr=1e-5, relative_step=False, scale_parameter=False)
    if name == "muon":
        return torch.optim.Muon(parameters, lr=1e-5)
    import bitsandbytes

    made = {
        "adamw-8bit": bitsandbytes.optim.AdamW8bit,
        "paged-adamw-8bit": bitsandbytes.optim.PagedAdamW8bit,
        "paged-adamw": bitsandbytes.optim.PagedAdamW,
        "lion-8bit": bitsandbytes.optim.Lion8bit,
    }[name]
    return made(parameters, lr=1e-5)


class Gauge:
    """torch's count of its allocations; on a CPU nothing is counted."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")

    def wait(self) -> None:
        """Until the GPU has done what it was asked."""
        if self.cuda:
            torch.cuda.synchronize()

    def forget(self) -> None:
        """Begin a new peak."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()

    def now(self) -> int:
        """Bytes allocated."""
        return int(torch.cuda.memory_allocated()) if self.cuda else 0

    def peak(self) -> int:
        """The most that was allocated since `forget`."""
        return int(torch.cuda.max_memory_allocated()) if self.cuda else 0

    def reserved(self) -> int:
        """The most that the allocator held since `forget`."""
        return int(torch.cuda.max_memory_reserved()) if self.cuda else 0

    def device_used(self) -> int:
        """Bytes of the GPU that are not free, which nvidia-smi shows."""
        if not self.cuda:
            return 0
        free, total = torch.cuda.mem_get_info()
        return int(total - free)


def autocast_of(case: Case, device: str) -> Any:
    """Autocast where the case has it."""
    options = case.options
    wanted = (
        options.get("autocast") or options.get("precision") == "autocast" or options.get("method") == "qlora"
    )
    return torch.autocast(device.partition(":")[0], torch.bfloat16) if wanted else contextlib.nullcontext()


def batch_of(case: Case, config: Any, device: str) -> dict[str, Any]:
    """Random tokens; a mask of ones where sequences are padded, with the last token of one left out."""
    text = config.get_text_config()
    micro = case.options["batch"] // case.options.get("accumulation", 1)
    ids = torch.randint(5, text.vocab_size - 5, (micro, case.options["seq_len"]), device=device)
    found = {"input_ids": ids, "labels": ids.clone()}
    if case.options.get("packing") == "padded":
        found["attention_mask"] = torch.ones_like(ids)
        found["attention_mask"][0, -1] = 0
    return found


def run_loop(case: Case, device: str, gauge: Gauge) -> dict[str, Any]:
    """A bare loop: two steps to warm up, of which the second gives the peaks, then timed ones."""
    config = config_of(case)
    model = model_of(case, config, device)
    parameters = trained(model)
    gauge.wait()
    found: dict[str, Any] = {"held_bytes": gauge.now(), "trained_params": sum(p.numel() for p in parameters)}
    optimizer, batch = optimizer_of(case, parameters), batch_of(case, config, device)
    micro_steps = case.options.get("accumulation", 1)

    def step(note: Callable[[str], None] = lambda _: None) -> None:
        for _ in range(micro_steps):
            with autocast_of(case, device):
                loss = model(**batch, use_cache=False).loss
            note("forward")
            loss.backward()
            del loss
            note("backward")
        optimizer.step()
        note("optimizer")
        optimizer.zero_grad(set_to_none=True)

    peaks: dict[str, int] = {}

    def note(moment: str) -> None:
        gauge.wait()
        peaks[moment] = max(peaks.get(moment, 0), gauge.peak())
        peaks.setdefault(f"after {moment}", gauge.now())
        gauge.forget()

    gauge.forget()
    step(note)
    found["first_peaks"] = dict(peaks)
    for _ in range(WARM - 1):
        peaks.clear()
        gauge.forget()
        step(note)
    found["peaks"] = peaks
    found["reserved_bytes"] = gauge.reserved()
    found["peak_bytes"] = max(value for name, value in peaks.items() if not name.startswith("after"))
    found["device_bytes"] = gauge.device_used()
    return {**found, **_timed(step, gauge)}


def _timed(step: Callable[[], None], gauge: Gauge) -> dict[str, Any]:
    gauge.wait()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < TIMED and time.perf_counter() - began < ENOUGH_S:
        start = time.perf_counter()
        step()
        gauge.wait()
        times.append(round(time.perf_counter() - start, 6))
    return {"step_s": statistics.median(times), "steps_s": times}


def run(case: Case, device: str) -> dict[str, Any]:
    """A case's figures, or why there are none."""
    gauge = Gauge(device)
    _clear(gauge)
    started = time.perf_counter()
    try:
        torch.manual_seed(0)
        work = run_trainer if case.options.get("trainer") else run_loop
        found: dict[str, Any] = {"status": "ok", **work(case, device, gauge)}
    except Exception as error:  # a case that fails is a line of the record, and the others still run
        memory = isinstance(error, torch.OutOfMemoryError)
        words = " ".join(str(error).split())[:400]
        found = {
            "status": "out of memory" if memory else "failed",
            "reason": f"{type(error).__name__}: {words}",
        }
        if not memory:
            traceback.print_exc(limit=-6)
        error.__traceback__ = None
    found["wall_s"] = round(time.perf_counter() - started, 3)
    return found


def _clear(gauge: Gauge) -> None:
    gc.collect()
    if gauge.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def about(device: str) -> dict[str, Any]:
    """The machine and the libraries, with what an empty process holds of the GPU and two of its rates."""
    found: dict[str, Any] = {
        "device": device, "python": platform.python_version(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["versions"] = {name: metadata.version(name) for name in _installed()}
    if device.startswith("cuda"):
        torch.zeros(1, device=device)
        gauge = Gauge(device)
        found["gpu"] = torch.cuda.get_device_name()
        found["total_bytes"] = torch.cuda.get_device_properties(0).total_memory
        found["context_bytes"] = gauge.device_used() - torch.cuda.memory_reserved()
        found["rates"] = rates(gauge)
        found["workspace_bytes"] = torch.cuda.memory_allocated() - 512
    return found


def _installed() -> list[str]:
    names = {str(d.metadata["Name"]).replace("-", "_").lower() for d in metadata.distributions()}
    return [name for name in LIBRARIES if name in names]


def rates(gauge: Gauge) -> dict[str, float]:
    """A large bfloat16 product in FLOP/s and a large copy in bytes read and written a second, medians of ten."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source = torch.randint(0, 100, (1 << 30,), device="cuda", dtype=torch.int32)
    target = torch.empty_like(source)

    def median(work: Callable[[], Any]) -> float:
        times = []
        for number in range(13):
            gauge.wait()
            start = time.perf_counter()
            work()
            gauge.wait()
            if number > 2:
                times.append(time.perf_counter() - start)
        return statistics.median(times)

    return {
        "matmul_flops_per_s": 2 * 8192**3 / median(lambda: a @ b),
        "copy_bytes_per_s": 2 * source.nbytes / median(lambda: target.copy_(source)),
    }


def records(cases: Sequence[Case], device: str, until: float) -> Iterator[dict[str, Any]]:
    """The lines of the record: what ran where, then each case, until the time is up."""
    yield {"about": about(device)}
    for case in cases:
        if time.monotonic() > until:
            print(f"time is up before {case.name}", file=sys.stderr)
            return
        found = run(case, device)
        said = found.get("reason") or f"{found['peak_bytes'] / 1e9:.3f} GB, {found['step_s']:.4f} s a step"
        print(f"{found['wall_s']:6.1f} s  {case.name}: {said}", flush=True)
        yield {"model": case.model, "options": case.options, "changes": case.changes, **found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases and write their lines as they come."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="file that lines are appended to")
    parser.add_argument("--budget", type=float, default=480.0, help="seconds after which no case begins")
    parser.add_argument("--only", default="", help="cases whose name has this text")
    parser.add_argument("--skip", type=int, default=0, help="leave out that many at the beginning")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(arguments)
    until = time.monotonic() + options.budget
    chosen = [case for case in first() if options.only in case.name][options.skip :]
    with options.out.open("a", encoding="utf-8") as file:
        for line in records(chosen, options.device, until):
            file.write(json.dumps(line) + "\n")
            file.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
