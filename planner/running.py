"""A fine-tune as it is run: a model, what is trained, a set-up and a machine, from options by their names.

Shared by what needs a set-up outside an estimate: calibrating on a measured step, and laying methods side by side.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from . import adapter as adapters
from . import hardware
from .adapter import Adapted, AdapterSpec
from .adapter.options import spec_of
from .adapter.whole import NOTHING_WHOLE, Whole, trained_whole
from .dataclass import dataclass
from .errors import InputError, hint
from .estimator import load, sequence_length
from .given import read as read_given
from .given import whole_number
from .information import Information
from .memory import estimate_memory, with_open_lengths
from .moments import MemoryEstimate
from .objective_rules import OF_SHARE, SHARES_GPU
from .pictured import OPTIONS as PICTURED
from .pictured import pictured
from .samples import Samples, samples_of
from .schema import Architecture, Notice
from .selective import as_it_goes
from .setup import Setup, split_batch
from .sharing import check_shares
from .trainers import SETUP_FIELDS, filled, for_objective, sharded_alone, usual

if TYPE_CHECKING:  # loaded where a time is asked for
    from .fact_types import Accelerator
    from .memory.calibration import Peak
    from .speed import Calibration, StepTime
    from .speed.timing import Counted

SPEC_DEFAULTS: dict[str, Any] = {
    "rank": 32, "alpha": 32, "layers": None, "targets": None, "experts": "scaled", "layout": None, "variant": "lora",
    "adapter_dtype": "float32", "target_regex": None, "target_parameters": None, "layers_to_transform": None,
    "exclude_modules": None, "rank_pattern": None, "alpha_pattern": None, "modules_to_save": None, "bias": "none",
    "use_rslora": False, "adapter": None,
}  # fmt: skip
SPLIT = ("tensor_parallel", "pipeline_parallel", "sequence_parallel")


@dataclass(frozen=True)
class Running:
    """Everything that memory and time depend on."""

    model: str
    arch: Architecture
    spec: AdapterSpec | None
    pairs: tuple[Adapted, ...]
    whole: Whole
    setup: Setup
    machine: hardware.Cluster | None
    lengths_open: bool = False  # nobody stated how long sequences are
    given: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)  # what made the set-up
    peaks: tuple[Peak, ...] = ()  # measured ones, which correct its memory where they tell of it
    # Of steps with these pairs, by set-up.
    counted: dict[Setup, Counted] = field(default_factory=dict, compare=False, repr=False)

    @property
    def params(self) -> int:
        """Parameters that are trained."""
        from .speed.trained import trained_params

        return trained_params(self.arch, self.setup, self.pairs, self.whole)

    def memory(self, *, ranks_follow: bool = False) -> MemoryEstimate:
        """Peak memory of one GPU; `ranks_follow`: that at other ranks is asked for too."""
        found = estimate_memory(self.arch, self.setup, self.pairs, self.whole, ranks_follow=ranks_follow)
        return self.corrected(with_open_lengths(found) if self.lengths_open else found)

    def corrected(self, found: MemoryEstimate) -> MemoryEstimate:
        """An estimate of the model as the measured peaks correct it."""
        if not self.peaks:
            return found
        from .memory.calibration import corrected

        return corrected(found, self.arch, self.peaks)

    def peak_notices(self) -> tuple[Notice, ...]:
        """What to say of measured peaks: that none tells of this run, or that one lay far off."""
        if not self.peaks:
            return ()
        from .memory.calibration import peak_notices

        return peak_notices(self.peaks, self.arch, self.setup)

    def time(self, calibration: Calibration | None = None) -> StepTime | None:
        """Seconds of a step; None without a machine, and where the model's operations are not known."""
        if self.machine is None:
            return None
        from .speed import NOTHING_MEASURED, step_time, time_gap

        if time_gap(self.arch, self.whole):
            return None
        calibration = calibration or NOTHING_MEASURED
        if self.setup.objective == "grpo":
            from .speed.policy import policy_step

            seconds_of = policy_step
        else:
            seconds_of = step_time
        return seconds_of(
            self.arch, self.setup, self.machine, self.pairs, self.whole, calibration=calibration,
            known=self.counted,
        )  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Tokens that a run processes, epochs counted, and the distinct ones that carry loss (None for episodes)."""

    tokens: int
    loss_tokens: int | None
    notices: tuple[Notice, ...] = ()
    samples: Samples | None = None
    epochs: int = 1
    info: Information | None = None


OF_FILE = ("data", "tokenizer", "format", "loss_on", "split", "columns", "nats", "group_size", "on_progress")
DATA = ("dataset", "tokens", "episodes", "success_rate", "epochs", *OF_FILE, "trust_remote_code")


def data_of(
    model: str | os.PathLike[str] | Mapping[str, Any], options: Mapping[str, Any], seq_len: int
) -> Data | None:
    """The data that options name, as an estimate reads them; None where they name none. An episode is a sequence."""
    found, _ = load(model, bool(options.get("trust_remote_code")))
    batch = options.get("batch")
    asked = {
        **dict.fromkeys(DATA), **options, "seq_len": options.get("seq_len"),
        "batch": batch if isinstance(batch, int) else 1,
    }  # fmt: skip
    given = read_given(asked, found.model_id, found.origin == "local")
    epochs = whole_number("epochs", 1 if options.get("epochs") is None else options["epochs"])
    if given.info is None:
        return None
    units, kind = given.info.units, given.info.kind
    processed = given.total_tokens if kind != "rl" else units * seq_len
    return Data(
        (processed or units) * epochs,
        units if kind == "sft" else None,
        given.notices,
        None if options.get("images") else samples_of(given),
        epochs,
        given.info,
    )


def usual_of(
    objective: str,
    trainer: str | None = None,
    method: str = "lora",
    generation: str | Sequence[str] | None = None,
) -> dict[str, Any]:
    """How preferences are trained where nothing else is said: sequences padded to the longest, with TRL's loss, or
    for ORPO LLaMA-Factory's, and where its trainer has one of its own that; GRPO has no reference (TRL's beta is 0).
    Of a vLLM beside the trainer where one may run, by what is given as `generation` or by the trainer."""
    own = {"reference": "none"} if objective == "grpo" else {}
    found = dict(for_objective(objective, trainer, method))
    makers = generation or found.get("generation") or ()
    if not set(SHARES_GPU) & {*((makers,) if isinstance(makers, str) else makers)}:
        found = {name: value for name, value in found.items() if name not in OF_SHARE}
    return {
        "loss": "full" if objective == "orpo" else "tiled",
        "packing": "padded",
        "outputs_held": False,
        "outputs_widened": False,
        **own,
        **found,
    }


def calibration_of(value: str | os.PathLike[str] | Calibration | None) -> Calibration:
    """A calibration, or the one in a file; none is no correction."""
    from .speed import NOTHING_MEASURED, Calibration
    from .speed.calibration import read

    if value is None:
        return NOTHING_MEASURED
    return value if isinstance(value, Calibration) else read(value)


def _again(values: Mapping[str, Any], otherwise: str) -> str:
    """How a trainer runs layers again, where it does."""
    how = usual(values, "checkpointing")
    return how if how not in (None, "none") else otherwise


_OF_SETUP = {*SETUP_FIELDS, "batch", "gpus_per_node"}


def fields_on(gpu: Accelerator, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a set-up as a kind of GPU has them where nobody gave one: `precision` fp16 where the trainer's is
    bf16, for which the GPU has no units, and `workspace_bytes` that are not the usual ones."""
    found: dict[str, Any] = {}
    if options.get("precision") is None and hardware.only_float16(gpu):
        found = {"precision": "fp16"} if usual(options, "precision") in (None, "bf16") else {}
    if options.get("workspace_bytes") is None and (own := hardware.workspace_bytes(gpu.name)):
        found["workspace_bytes"] = own
    return found


def setup_from(options: Mapping[str, Any], seq_len: int, model_type: str = "") -> Setup:
    """A set-up for a type of model from options: `batch` sequences of a step over all GPUs, split over them and over
    micro-steps; where it is not given, one for each.

    `method` follows `quantize` where it is not given, `checkpointing` may be a flag, and several GPUs shard by
    DDP (full fine-tuning by FSDP) where neither `sharding` nor the trainer says otherwise. Fields that are not given
    are those of the trainer's profile, else Setup's, and of a `gpu` as `fields_on` has them.
    """
    if options.get("method") == "full":  # has no frozen base
        options = {name: value for name, value in options.items() if name != "base_dtype"}
    if isinstance(gpu := options.get("gpu"), str):
        options = {**options, **fields_on(hardware.find(gpu), options)}
    if (options.get("generation") or usual(options, "generation")) in SHARES_GPU:
        options = {**options, "gpu_bytes": _memory_of(options.get("gpu"))}
    given = tuple((name, type(value), value) for name, value in options.items() if name in _OF_SETUP)
    try:
        return _setup_from(given, seq_len, model_type)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        return _setup_from.__wrapped__(given, seq_len, model_type)


def _memory_of(gpu: Any) -> int:
    """Bytes of a named GPU, 0 where none is named. Raises InputError where they are not known."""
    if not isinstance(gpu, str):
        return 0
    found = hardware.find(gpu).memory_bytes
    if found is None:
        raise InputError("gpu", gpu, "a GPU whose memory is known", "vLLM takes a share of it.")
    return found


@lru_cache(maxsize=512)
def _setup_from(given: tuple[tuple[str, type, Any], ...], seq_len: int, model_type: str) -> Setup:
    options = {name: value for name, _, value in given}
    values = {name: value for name, value in options.items() if name in SETUP_FIELDS and value is not None}
    quantize = values.get("quantize", "none")
    method = values.setdefault("method", "lora" if quantize == "none" else "qlora")
    if method == "qlora" and quantize == "none":
        values.pop("quantize", None)
    if method != "qlora":
        values.pop("upcast_small", None)  # of what is not quantised beside what is
    if values.get("lengths_vary") and values.get("packing") == "packed":
        raise InputError("lengths-vary", True, "padded or full sequences: packed ones have one length")
    if isinstance(values.get("checkpointing"), bool):
        values["checkpointing"] = _again(values, "layer") if values["checkpointing"] else "none"
    gpus, accumulation = (whole_number(n, values.get(n, 1)) for n in ("gpus", "accumulation"))
    alone = 1
    for name in SPLIT:
        alone *= whole_number(name.replace("_", "-"), values.get(name, 1))
    copies = max(1, gpus // alone)
    if copies > 1:
        values.setdefault("sharding", usual(values, "sharding") or ("fsdp" if method == "full" else "ddp"))
    if values.get("objective", "sft") != "sft":
        named = (values.get(name) for name in ("objective", "trainer", "method", "generation"))
        values = {**usual_of(*named), **values}  # type: ignore[arg-type]
    values = filled(values, model_type)
    if method == "qlora":
        values.setdefault("quantize", "nf4")
    if copies == 1 and options.get("sharding") is None and not sharded_alone(values):
        values.pop("sharding", None)
    if values.get("sharding") == "fsdp-hybrid" and values.get("shard_size") is None:
        spread = copies * whole_number("sequence-parallel", values.get("sequence_parallel", 1))
        inside = whole_number("gpus-per-node", options.get("gpus_per_node") or hardware.GPUS_PER_NODE)
        values["shard_size"] = math.gcd(spread, inside)  # a copy for each machine, where they divide
    batch = options.get("batch")
    micro = (
        1
        if batch is None
        else split_batch(whole_number("batch", batch), data_parallel=copies, accumulation=accumulation)
    )
    return Setup(
        **{**values, "gpus": gpus, "accumulation": accumulation, "micro_batch": micro, "seq_len": seq_len}
    )


def running(model: str | os.PathLike[str] | Mapping[str, Any], options: Mapping[str, Any]) -> Running:
    """The fine-tune of a model by these options: those of `estimate`, the fields of Setup, `gpu`, `link`.

    Raises InputError for an option that nobody knows, naming the nearest.
    """
    known = {
        *SPEC_DEFAULTS, *SETUP_FIELDS, *PICTURED, "batch", "gpu", "gpus_per_node", "trust_remote_code",
    }  # fmt: skip
    for name in options:
        if name not in known:
            raise InputError(name, options[name], "a known option", hint(name, known).strip())
    found, arch = load(model, bool(options.get("trust_remote_code")))
    arch = pictured(arch, found.config, options)
    seq_len = sequence_length(arch, options.get("seq_len"))
    setup = setup_from(options, seq_len, arch.model_type)
    spec: AdapterSpec | None = None
    pairs: tuple[Adapted, ...] = ()
    whole = NOTHING_WHOLE
    if setup.method != "full":
        given = {name: options[name] for name in SPEC_DEFAULTS if options.get(name) is not None}
        spec = spec_of({**SPEC_DEFAULTS, **given})
        pairs = adapters.adapt(arch, spec)
        whole = trained_whole(arch, spec, pairs)
    setup = as_it_goes(arch, setup, pairs, options.get("checkpointing"))
    check_shares(arch, setup, pairs)
    machine = None
    if options.get("gpu") is not None:
        per_node = whole_number("gpus-per-node", options.get("gpus_per_node", hardware.GPUS_PER_NODE))
        machine = hardware.cluster(hardware.find(options["gpu"]), setup.gpus, per_node=per_node)
    return Running(
        found.model_id, arch, spec, pairs, whole, setup, machine, options.get("seq_len") is None, options
    )  # fmt: skip
