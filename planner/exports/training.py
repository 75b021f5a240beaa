"""A plan as a training run: everything that a trainer is to be told, with the reason for each figure."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from .. import facts, units
from ..adapter import Adapted, AdapterSpec, adapt
from ..adapter.whole import Whole, trained_whole
from ..dataclass import dataclass
from ..errors import InputError, PlannerError, hint
from ..estimator import load, model_of
from ..learning_rate.advice import lr as advise
from ..memory import estimate_memory
from ..notices import beyond_context
from ..pacing import few_steps, optimizer_steps
from ..plan import Plan
from ..planning import ALPHA_RULES, USUAL, estimate
from ..running import setup_from
from ..schema import Architecture, Notice
from ..setup import Setup
from ..trainers import PLAIN, filled
from ..version import __version__
from . import peft
from .data import shape_for
from .full import no_adapter, usual_precision

if TYPE_CHECKING:
    from ..dataset.shape import Shape

USUAL_BATCH = 32
# What an export takes beside the options of an estimate.
OWN: dict[str, Any] = {
    "lr": None, "train_data": None, "seed": 0, "out": "out", "group": 8, "prompt_tokens": 0,
    "schedule": "constant", "warmup": 0, "weight_decay": 0.0, "full": False,
}  # fmt: skip
# What a file says of a set-up; whose code runs it says only where that is not the library's own.
IN_FILES = (
    "method", "precision", "autocast", "tf32", "quantize", "optimizer", "checkpointing", "micro_batch", "seq_len",
    "accumulation", "packing", "objective", "reference", "prompt_tokens", "lora_dropout", "gpus", "sharding",
    "shard_size", "tensor_parallel", "pipeline_parallel", "expert_parallel", "sequence_parallel", "offload",
)  # fmt: skip
OWN_CODE = {"kernels": "transformers", "attention_kernel": "sdpa"}
SCHEDULES = ("constant", "linear", "cosine", "constant_with_warmup")


@dataclass(frozen=True)
class Rate:
    """The learning rate for the plan's own alpha, scaling, batch and number of steps, and why."""

    value: float
    low: float | None
    high: float | None
    why: str


@dataclass(frozen=True)
class Training:
    """What the exports read. `said` are the options that were given; the rest are usual values."""

    plan: Plan
    arch: Architecture
    config: Mapping[str, Any]
    named: bool
    spec: AdapterSpec
    adapted: tuple[Adapted, ...]
    whole: Whole
    setup: Setup
    rate: Rate
    said: Mapping[str, Any]
    own: Mapping[str, Any]
    steps: int | None
    base: Any
    shape: Shape | None = None
    notices: tuple[Notice, ...] = field(default=())
    profile: str | None = None  # whose code runs the file

    @property
    def model(self) -> str | None:
        """What the trainer loads: a hub id, or a local folder; None for a bare config."""
        if self.plan.model.source == "config":
            return None
        name = self.plan.model.id
        if self.plan.model.source == "local":  # the file may be read from any folder
            return os.path.abspath(os.path.dirname(name) if name.endswith(".json") else name)
        return name

    @property
    def model_or_blank(self) -> str:
        """The model's name, or a place to fill in."""
        return self.model or "YOUR-ORG/YOUR-MODEL"

    @property
    def full(self) -> bool:
        """Whether all parameters train, in place of an adapter."""
        return self.setup.method == "full"

    @property
    def task(self) -> str:
        """sft or rl."""
        info = self.plan.information
        return "rl" if info is not None and info.kind == "rl" else "sft"

    @property
    def data(self) -> str | None:
        """The data set that the trainer loads: as given, or the hub id of the plan's."""
        if self.own["train_data"] is not None:
            return str(self.own["train_data"])
        given = self.said.get("data")
        if given is not None:
            if hasattr(given, "data"):  # what `planner.dataset` has read
                return given.shape.files[0] if given.shape and given.shape.files else str(given.data)
            return os.path.abspath(given) if os.path.exists(given) else str(given)
        known = self.plan.workload.dataset
        if known is None:
            return None
        return next((alias for alias in facts.dataset(known).aliases if "/" in alias), None)

    @property
    def data_or_blank(self) -> str:
        """The data set, or a place to fill in."""
        return self.data or "YOUR-ORG/YOUR-DATASET"

    @property
    def batch(self) -> int:
        """Sequences of an optimizer step, of all GPUs."""
        return self.setup.global_batch

    def schedule_text(self) -> str:
        """Why the rate moves as it does."""
        if self.own["schedule"] == "constant" and not self.own["warmup"]:
            return "The law was fitted at a constant rate without warm-up."
        return "As given; the law was fitted at a constant rate without warm-up."

    @property
    def alpha(self) -> int | float:
        """Alpha, as a whole number where it is one."""
        return int(self.spec.alpha) if self.spec.alpha == int(self.spec.alpha) else self.spec.alpha

    def peft(self, has: Iterable[str] = peft.EVERYTHING) -> dict[str, Any]:
        """The LoraConfig that trains what the plan counts. Raises InputError where PEFT has none, with the nearest by
        the fields that the trainer `has`."""
        return peft.lora_config(self.arch, self.spec, self.adapted, self.whole, self.config, self.model, has)

    def rate_for(self, alpha: float | None) -> Rate:
        """The law's rate for another alpha at scale alpha / rank (None: for the plan's own), unless one was given."""
        spec = self.spec if alpha is None else replace(self.spec, alpha=alpha, use_rslora=False)
        return _rate(self.plan, self.base, spec, self.steps, self.batch, self.own)

    def header(self, target: str, version: str, run: str, memory: bool = True) -> list[str]:
        """The comment that opens a file: what it trains, what that takes, how it is started."""
        section, held = self.plan.adapter, self.memory_text()
        name = self.model or self.plan.model.model_type
        what = ",".join(self.spec.layers) if self.spec.layers else "the modules named below"
        trained = f"LoRA of rank {self.spec.rank} on {what}, {section.params:,} parameters ({section.basis})."
        if self.full:
            trained = f"full fine-tuning, {self.plan.model.params:,} parameters (exact)."
        lines = [
            f"{name}: {trained}",
            f"Written by lora-plan {__version__} for {target}; names of options as in {version}.",
        ]
        if memory and held:
            lines.append(held)
        if run:
            lines.append(f"Run: {run}")
        return [*lines, *(f"Mind: {notice.message}" for notice in self.notices)]

    def room_text(self) -> str:
        """How the adapter's capacity compares with the data, where both are known."""
        cap = self.plan.capacity
        if cap.required_rank is None or cap.utilisation is None:
            return ""
        return f"The data need rank {cap.required_rank} ({cap.basis}); {cap.utilisation:.0%} of the capacity is used."

    def memory_text(self) -> str:
        """Peak memory of a GPU in words, as the trainer runs what its file says, where it is known."""
        if not (self.plan.memory or {}).get(self.setup.method):
            return ""
        found = estimate_memory(self.arch, self.as_run(), () if self.full else self.adapted, self.whole)
        low, high = (units.byte_size(end) for end in (found.low, found.high))
        return (
            f"A GPU needs about {units.byte_size(found.per_gpu_bytes)} ({low} to {high}; {found.basis}): "
            f"{self.setup.micro_batch} x {self.setup.seq_len:,} tokens in a micro-step."
        )

    def as_run(self) -> Setup:
        """The set-up that the trainer makes of its file: what the file says, and the trainer's own for the rest."""
        setup = self.setup
        if setup.trainer != PLAIN or self.profile is None:
            return setup
        code = {name: getattr(setup, name) for name in OWN_CODE if getattr(setup, name) != OWN_CODE[name]}
        said = {name: getattr(setup, name) for name in IN_FILES}
        if setup.sharding.startswith("zero"):
            del said["autocast"]  # the file's word is read by DeepSpeed's engine
        return Setup(**filled({**said, **code, "trainer": self.profile}, self.arch.model_type))


def request_of(model: Any, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of an estimate and those of an export, apart. A Plan brings its own request.

    Raises InputError for an option that nobody knows.
    """
    own = {**OWN, **{name: options[name] for name in OWN if options.get(name) is not None}}
    rest = {name: value for name, value in options.items() if name not in OWN and value is not None}
    if isinstance(model, Plan):
        if not model.request:
            raise InputError("plan", "a Plan", "one that planner.estimate made, which holds its request")
        rest = {**model.request, **rest}
        model = rest.pop("model", None)
    if model is not None:
        rest["model"] = model
    _check_own(own)
    if own["warmup"] == int(own["warmup"]):
        own["warmup"] = int(own["warmup"])
    return rest, own


def _check_own(own: Mapping[str, Any]) -> None:
    rate = own["lr"]
    if rate is not None and (
        isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1
    ):
        raise InputError("lr", rate, "a learning rate above 0 and below 1")
    _check_schedule(own)
    for name, least in (("seed", 0), ("group", 2), ("prompt_tokens", 0)):
        value = own[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(name.replace("_", "-"), value, f"a whole number of at least {least}")


def _check_schedule(own: Mapping[str, Any]) -> None:
    if own["schedule"] not in SCHEDULES:
        raise InputError(
            "schedule",
            own["schedule"],
            f"one of {', '.join(SCHEDULES)}",
            hint(str(own["schedule"]), SCHEDULES).strip(),
        )
    for name in ("warmup", "weight_decay"):
        value = own[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise InputError(name.replace("_", "-"), value, "a number that is not negative")


def _with_batch(request: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The request with a batch: where none is given, some 32 sequences, one at a time on each GPU."""
    if "batch" in request or "accumulation" in request:
        return dict(request), False
    copies = setup_from({**{k: v for k, v in request.items() if k in USUAL}, "batch": 2**20}, 1).data_parallel
    steps = max(1, round(USUAL_BATCH / copies))
    return {**request, "batch": steps * copies, "accumulation": steps}, True


def _rate(
    plan: Plan, model: Any, spec: AdapterSpec, steps: int | None, batch: int, own: Mapping[str, Any]
) -> Rate:
    """The rate for this plan: the user's own, or the law's with the factors that move it."""
    if own["lr"] is not None:
        return Rate(float(own["lr"]), None, None, "Given, not derived.")
    task = "rl" if plan.information is not None and plan.information.kind == "rl" else "sft"
    try:
        found = advise(
            model, rank=spec.rank, alpha=spec.alpha, scaling=ALPHA_RULES[spec.use_rslora], steps=steps, batch=batch,
            task=task, law=plan.request.get("law") if task == "sft" else None, family=plan.request.get("family"),
            method="full" if own["full"] else "lora",
        )  # fmt: skip
    except PlannerError:
        value = None if own["full"] else plan.learning_rate.value
        if value is None:
            raise InputError("lr", None, "a learning rate: no law covers this model", "Give --lr.") from None
        law = plan.learning_rate
        return Rate(value, law.low, law.high, f"Law {law.law} ({law.basis}), for batch 128 and alpha 32.")
    value = float(f"{found.value:.2e}")
    moved = "; ".join(f"x {f.value:.3g} for {f.name} ({f.basis})" for f in found.factors)
    share = f" in {found.level:.0%} of cases" if found.level is not None else ""
    why = (
        f"Law {found.law} ({found.basis}){': ' + moved if moved else ''}. The best rate lies within "
        f"{found.low:.2g} to {found.high:.2g}{share}; worth sweeping: {', '.join(f'{r:g}' for r in found.grid)}."
    )
    return Rate(value, found.low, found.high, why)


def _notices(t: Training, assumed_batch: bool) -> list[Notice]:
    """What a person should fill in or check before the run."""
    found = []
    if t.model is None:
        found.append(Notice("no-model", "The plan is of a bare config: put the model's name in."))
    if t.data is None:
        found.append(
            Notice(
                "no-data", "The plan names no data set that a trainer could load: put one in (--train-data)."
            )
        )
    if assumed_batch:
        each = t.setup.micro_batch
        text = f"No batch was given: {t.batch} sequences a step are usual, {each} at a time on each GPU."
        found.append(Notice("batch-assumed", text))
    found += [*beyond_context(t.arch, t.setup.seq_len), *few_steps(t.steps)]
    if t.setup.eval_batch:
        text = f"No evaluation is written: its data, how often, and {t.setup.eval_batch} sequences at a time on a GPU"
        found.append(Notice("no-evaluation", f"{text} are yours to add."))
    if t.full and t.setup.precision == "bf16":
        text = "Weights in bfloat16 round small updates away: where float32 has room, it learns more."
        found.append(Notice("bf16-weights", text))
    if not t.setup.optimizer.endswith(("adamw", "adamw-8bit")) and t.own["lr"] is None:
        found.append(
            Notice(
                "rate-of-adam", f"The learning rate is AdamW's; {t.setup.optimizer} needs another: sweep it."
            )
        )
    return found


def training_of(
    model: Any, options: Mapping[str, Any], usual: Mapping[str, Any] | None = None, held: str = ""
) -> Training:
    """A model and options, or a Plan, as a training run. `usual` are a trainer's own values for what is not given,
    `held` is the precision in which it trains weights in full.

    Raises a PlannerError for what cannot be planned.
    """
    said, own = request_of(model, options)
    own_values = dict(usual or {})
    if own["full"]:
        no_adapter(said)
        own_values["precision"] = usual_precision(held, said)
    if {**own_values, **said}.get("precision", "bf16") not in ("bf16", "fp16"):
        own_values.pop("autocast", None)  # it is for weights of 16 bits
    if said.get("objective") == "grpo":
        said = {**said, "group": own["group"], "prompt_tokens": own["prompt_tokens"]}
    request, assumed_batch = _with_batch({**own_values, **said})
    check_names(request)
    plan = estimate(**request)
    found, arch = load(
        model_of({"model": request.get("model"), "adapter": request.get("adapter")}),
        bool(request.get("trust_remote_code")),
    )
    run = {name: request.get(name, value) for name, value in USUAL.items()}
    run = {name: value for name, value in run.items() if value is not None}
    layerwise = request.get("checkpointing", False)
    method = {"method": "full"} if own["full"] else {}
    setup = setup_from(  # what is not said is the target's to settle, not what QLoRA usually is
        {"trainer": PLAIN, **run, **method, "batch": request.get("batch"), "checkpointing": layerwise},
        plan.workload.seq_len, arch.model_type,
    )  # fmt: skip
    if setup.base_dtype not in (None, setup.compute_dtype):
        raise InputError(
            "base-dtype", setup.base_dtype, f"{setup.compute_dtype}: files hold the base in what is computed in",
            "An estimate takes it.",
        )  # fmt: skip
    spec = plan.adapter.spec
    adapted = adapt(arch, spec)
    steps = optimizer_steps(plan, setup.global_batch)
    base = request.get("model") if request.get("model") is not None else found.model_id
    training = Training(
        plan, arch, found.config, found.origin != "config", spec, adapted, trained_whole(arch, spec, adapted), setup,
        _rate(plan, base, spec, steps, setup.global_batch, own), said, own, steps, base, shape_for(said, own),
    )  # fmt: skip
    return replace(training, notices=tuple(_notices(training, assumed_batch)))


def check_names(request: Mapping[str, Any]) -> None:
    """Refuse an option that neither an estimate nor an export has."""
    import inspect

    from ..estimator import estimate as closed_form

    known = {*inspect.signature(closed_form).parameters, *USUAL, *OWN}
    for name, value in request.items():
        if name not in known:
            raise InputError(name, value, "an option of estimate or export", hint(name, known).strip())
