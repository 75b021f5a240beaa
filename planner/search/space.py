"""What a search ranges over, what is asked for, and how a plan is checked: names and numbers, no arithmetic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal, get_args

from .. import units
from ..adapter import AdapterSpec
from ..choices import Checkpointing, Generation, Precision, Quantize
from ..dataclass import dataclass, replace
from ..errors import InputError, hint
from ..hardware import GPUS_PER_NODE
from ..objective_rules import OF_SHARE, SHARES_GPU
from ..running import fields_on
from ..samples import Samples
from ..schema import Architecture
from ..setup import Setup
from ..speed import NOTHING_MEASURED, Calibration
from ..trainers import PLAIN, by_base, filled
from .layout import WAYS, Layout

if TYPE_CHECKING:
    from ..fact_types import Accelerator

# Powers of two up to the highest rank of the article's sweeps, and from 16 on the halves between: a rank costs a
# search little, and the least that is enough is told more closely.
RANKS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
LAYERS = ("mlp", "all")  # attention alone lags MLPs at the same size (LoRA Without Regret, 2025)
QUANTIZE: tuple[Quantize, ...] = ("none", "nf4", "nf4-double")
CHECKPOINTING: tuple[Checkpointing, ...] = ("none", "layer")
MICRO_BATCHES = (1, 2, 4, 8, 16, 32, 64)
COUNTS = (1, 2, 4, 8)
BATCH = 32  # sequences a step: LoRA loses ground beyond (LoRA Without Regret, 2025)

MAKERS: tuple[Generation, ...] = ("transformers", "colocate", "server")
NO_ENGINE: dict[str, Any] = {
    "gpu_bytes": 0, "vllm_memory": None, "vllm_sleep": False, "states_asleep": "none", "vllm_gpus": 1,
    "vllm_tensor_parallel": 1,
}  # fmt: skip

Prefer = Literal["quality", "cost", "time"]
Fit = Literal["expected", "sure"]


@dataclass(frozen=True)
class Space:
    """Every value that a search tries. `batches` are sequences of a step over all GPUs."""

    accelerators: tuple[Accelerator, ...]
    layouts: tuple[Layout, ...]
    ranks: tuple[int, ...] = RANKS
    layers: tuple[str, ...] = LAYERS
    quantize: tuple[Quantize, ...] = QUANTIZE
    checkpointing: tuple[Checkpointing, ...] = CHECKPOINTING
    micro_batches: tuple[int, ...] = MICRO_BATCHES
    batches: tuple[int, ...] = (BATCH,)

    @property
    def size(self) -> int:
        """Combinations, those that do not go together included."""
        axes = (self.accelerators, self.layouts, self.ranks, self.layers, self.quantize, self.checkpointing)
        return math.prod(map(len, (*axes, self.micro_batches, self.batches)))


@dataclass(frozen=True)
class Limits:
    """What a plan may cost and take, and the excess loss that it may have; None: no limit. `fit`: whether the peak
    that is expected has to fit on a GPU, or the upper end of its interval too; `host_bytes`: what a machine's host
    has for what is kept there."""

    budget_usd: float | None = None
    deadline_s: float | None = None
    max_regret: float | None = None
    prefer: Prefer = "quality"
    fit: Fit = "expected"
    host_bytes: int | None = None


@dataclass(frozen=True)
class Job:
    """What is to be trained: a model on so many tokens (epochs counted), of which `loss_tokens` distinct ones carry
    the information that the adapter is to hold. `setup` and `spec` give everything that the search does not vary."""

    arch: Architecture
    setup: Setup
    spec: AdapterSpec
    tokens: int
    loss_tokens: int | None
    calibration: Calibration = NOTHING_MEASURED
    price: float | None = None
    per_node: int = GPUS_PER_NODE
    lengths_open: bool = False  # nobody stated how long sequences are
    prices: dict[str, Any] = field(default_factory=dict, compare=False)
    given: Mapping[str, Any] = field(
        default_factory=dict, compare=False
    )  # fields of the set-up that were said
    bits: float | None = None  # that episodes tell; None of other data
    samples: Samples | None = None  # where somebody counted them
    epochs: int = 1
    room: int = 0  # bytes of a GPU, of which a vLLM beside the trainer takes a share
    made: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)  # set-ups, by their choices

    def at(self, seq_len: int) -> Job:
        """The job with sequences of another length."""
        if seq_len == self.setup.seq_len:
            return self
        key = ("length", seq_len)
        if key not in self.made:
            given = {**self.given, "mean_completion": None}
            setup = replace(self.setup, seq_len=seq_len, mean_completion=None)
            self.made[key] = replace(self, setup=setup, given=given, made={})
        found: Job = self.made[key]
        return found._with_room_of(self.room)

    def _with_room_of(self, room: int) -> Job:
        """The same on a GPU of so many bytes: what was made is of any."""
        return self if self.room == room else replace(self, room=room)

    def on(self, accelerator: Accelerator) -> Job:
        """The job as a kind of GPU runs it, as an estimate has it: in float16 where it has no bfloat16 and nobody
        said otherwise, with its workspaces; of GRPO with its memory, of which a vLLM takes a share."""
        own = fields_on(accelerator, self.given)
        room = (accelerator.memory_bytes or 0) if self.setup.objective == "grpo" else 0
        if not own and room == self.room:
            return self
        key = tuple(own.items())
        if key not in self.made:
            given = {**self.given, **own}
            setup = Setup(
                **{**filled(plain_engine(given), self.arch.model_type), "seq_len": self.setup.seq_len}
            )
            self.made[key] = replace(self, setup=setup, given=given, made={})
        found: Job = self.made[key]
        return found._with_room_of(room)

    def computed_in(self, precision: Precision | None) -> Job:
        """The job in a precision that is one of several; itself where None."""
        if precision is None:
            return self
        key = ("precision", precision, self.room)
        if key not in self.made:
            given = {**self.given, "precision": precision}
            own = filled(plain_engine(given), self.arch.model_type)
            setup = Setup(**{**own, "seq_len": self.setup.seq_len})
            self.made[key] = replace(self, setup=setup, given=given, made={})
        found: Job = self.made[key]
        return found

    def engine(self, layout: Layout) -> dict[str, Any]:
        """Fields of who makes completions under a layout: those that go with it."""
        if layout.generation is None:
            return {}
        left = beside(layout.generation)
        own = {
            name: value
            for name in NO_ENGINE
            if name not in left and (value := self.given.get(name)) is not None
        }
        found: dict[str, Any] = {"generation": layout.generation, **NO_ENGINE, **own}
        if layout.generation in SHARES_GPU:
            found["gpu_bytes"] = self.room
        if layout.generation == "server":
            found["vllm_gpus"] = layout.vllm_gpus
        return found


@dataclass(frozen=True)
class Choice:
    """One plan: what the search chose on every axis."""

    accelerator: Accelerator
    layout: Layout
    rank: int
    layers: str
    quantize: Quantize
    checkpointing: Checkpointing
    micro_batch: int
    batch: int

    @property
    def accumulation(self) -> int:
        """Micro-steps of a step."""
        return self.batch // (self.micro_batch * self.layout.data_parallel)

    def spec(self, job: Job) -> AdapterSpec:
        """Its adapter; alpha stays as the job has it."""
        return replace(job.spec, rank=self.rank, layers=(self.layers,), targets=None)

    def setup(self, job: Job) -> Setup:
        """Its set-up."""
        return setup_of(
            job.on(self.accelerator),
            self.quantize,
            self.checkpointing,
            self.layout,
            self.micro_batch,
            self.accumulation,
        )

    def to_dict(self) -> dict[str, Any]:
        """The choices, for JSON."""
        return {
            "gpu": self.accelerator.name,
            "gpus": self.layout.gpus,
            "sharding": self.layout.sharding,
            "expert_parallel": self.layout.expert_parallel,
            **{name: getattr(self.layout, name) for name in (*WAYS, "offload", "shard_size")},
            "rank": self.rank,
            "layers": self.layers,
            "quantize": self.quantize,
            "checkpointing": self.checkpointing,
            "micro_batch": self.micro_batch,
            "accumulation": self.accumulation,
            "batch": self.batch,
            "precision": self.layout.precision,
            "generation": self.layout.generation,
            "vllm_gpus": self.layout.vllm_gpus if self.layout.generation == "server" else None,
        }

    @property
    def text(self) -> str:
        """The plan in a line."""
        width = 32 if self.layout.precision in ("fp32", "autocast") else 16
        base = f"{width}-bit base" if self.quantize == "none" else f"{self.quantize} base"
        spread = self.layout.spread + self.layout.text
        again = "checkpointing" if self.checkpointing != "none" else "no checkpointing"
        return (
            f"rank {self.rank} on {self.layers}, {base}, {self.layout.gpus} x {self.accelerator.name}{spread}, "
            f"{self.accumulation} x {self.micro_batch} sequences, {again}"
        )


def setup_of(
    job: Job, quantize: Quantize, checkpointing: Checkpointing, layout: Layout, micro_batch: int, accumulation: int
) -> Setup:  # fmt: skip
    """The job's set-up with these choices, and what its trainer does where they are made."""
    choices = (quantize, checkpointing, layout, micro_batch, accumulation)
    key = (choices, job.room if layout.generation in SHARES_GPU else 0)
    if key not in job.made:
        job.made[key] = _setup_of(job, *choices)
    found: Setup = job.made[key]
    return found


def _setup_of(
    job: Job, quantize: Quantize, checkpointing: Checkpointing, layout: Layout, micro_batch: int, accumulation: int
) -> Setup:  # fmt: skip
    method = "lora" if quantize == "none" else "qlora"
    values: dict[str, Any] = {
        "method": method, "quantize": quantize, "checkpointing": checkpointing, **layout.fields,
        "micro_batch": micro_batch, "accumulation": accumulation, **job.engine(layout),
    }  # fmt: skip
    if layout.precision is not None:
        values["precision"] = layout.precision
    if layout.sharding == "fsdp-hybrid":  # a copy for each machine, where they divide
        spread = layout.data_parallel * layout.sequence_parallel
        values["shard_size"] = layout.shard_size or math.gcd(spread, job.per_node)
    if job.setup.trainer == PLAIN:
        usual = by_base({**job.given, **values})
        own = {name: value for name, value in usual.items() if job.given.get(name) is None}
        return replace(job.setup, **own, **values)
    return Setup(**{**filled({**job.given, **values}, job.arch.model_type), "seq_len": job.setup.seq_len})


def alone(setup: Setup) -> Setup:
    """A set-up by itself, without the layout and what only moves or holds by it, but for the GPUs that share matrices
    and sequences: what a GPU computes follows from the rest."""
    return replace(
        setup, gpus=setup.tensor_parallel * setup.sequence_parallel, pipeline_parallel=1, sharding="none",
        expert_parallel=1, shard_size=None, offload="none", fsdp_units="pairs",
        reduce_buckets="fitted",
        deferred_gradients="none", mean_completion=None, **NO_ENGINE,
        generation="server" if setup.generation in SHARES_GPU else setup.generation,
        loading="unknown", prepared_wide=False, placing="unknown",
        keys_gathered=setup.keys_gathered and setup.sequence_parallel > 1,
    )  # fmt: skip


def alone_of(
    job: Job, quantize: Quantize, checkpointing: Checkpointing, layout: Layout, micro_batch: int = 1
) -> Setup:
    """`alone` of a set-up with one micro-step, made once for GPUs of every memory."""
    key = ("alone", quantize, checkpointing, layout, micro_batch)
    if key not in job.made:
        job.made[key] = alone(setup_of(job, quantize, checkpointing, layout, micro_batch, 1))
    found: Setup = job.made[key]
    return found


def families(job: Job, space: Space) -> tuple[tuple[int, ...], ...]:
    """Numbers of a space's layouts, those together under which GPUs compute alike: a trainer's autocast, say, may
    hang on the sharding."""
    key = ("families", space.layouts, space.quantize, space.checkpointing)
    if key not in job.made:
        found: dict[Any, list[int]] = {}
        for number, layout in enumerate(space.layouts):
            setups = (alone_of(job, q, c, layout) for q in space.quantize for c in space.checkpointing)
            found.setdefault(tuple(setups), []).append(number)
        job.made[key] = tuple(map(tuple, found.values()))
    numbers: tuple[tuple[int, ...], ...] = job.made[key]
    return numbers


def plain_engine(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, without what a vLLM alone goes by."""
    return {name: value for name, value in given.items() if name not in NO_ENGINE}


def check_engine(given: Mapping[str, Any]) -> None:
    """Raise InputError for a share of a GPU that is none, whoever makes completions."""
    own = {name: given[name] for name in OF_SHARE if given.get(name) is not None}
    Setup(objective="grpo", reference="none", loss="tiled", generation="colocate", **own)


def beside(generation: Generation | None) -> tuple[str, ...]:
    """Options of a vLLM that do not go with this one, or without any."""
    if generation in (None, "transformers"):
        return tuple(NO_ENGINE) if generation else ()
    return {"server": OF_SHARE, "colocate": (), "shared": ("vllm_tensor_parallel",)}[str(generation)]


def with_makers(
    job: Job, found: Iterable[Layout], makers: Sequence[Generation], servers: Sequence[int]
) -> tuple[Layout, ...]:
    """Layouts by who makes completions, those that go together. Raises InputError where none does."""
    kept, missed = [], None
    for layout, maker in itertools.product(found, makers):
        for more in servers if maker == "server" else (1,):
            own = replace(layout, generation=maker, vllm_gpus=more)
            try:
                setup_of(job, "none", "none", own, 1, 1)
            except InputError as error:
                missed = error
                continue
            kept.append(own)
    if missed is not None and not kept:
        raise missed
    for name in (name for name in NO_ENGINE if job.given.get(name) is not None):
        if all(name in beside(own.generation) for own in kept):
            tried = ", ".join(dict.fromkeys(makers))
            raise missed or InputError(
                name.replace("_", "-"), job.given[name], "a generation that takes it", f"Tried: {tried}."
            )
    return tuple(kept)


def chosen(name: str, values: Iterable[Any], known: Sequence[Any]) -> tuple[Any, ...]:
    """Values of an axis, each one of the known. Raises InputError naming the nearest."""
    found = tuple(dict.fromkeys(values))
    for value in found:
        if value not in known:
            raise InputError(
                name, value, f"one of {', '.join(map(str, known))}", hint(str(value), map(str, known)).strip()
            )
    if not found:
        raise InputError(name, "", f"one or more of {', '.join(map(str, known))}")
    return found


def counted(name: str, values: Iterable[Any]) -> tuple[int, ...]:
    """Whole numbers of at least 1, in order. Raises InputError."""
    found = set()
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(name, value, "a whole number of at least 1")
        found.add(value)
    if not found:
        raise InputError(name, "", "one or more whole numbers of at least 1")
    return tuple(sorted(found))


def at_least_none(**counts: Any) -> None:
    """Raise InputError for a count of plans to show that is none."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(name, value, "a whole number of at least 0")


def limits(
    budget: float | None, deadline: float | None, max_regret: float | None, prefer: str, fit: str = "expected",
    host_memory: Any = None,
) -> Limits:  # fmt: skip
    """Checked limits; `deadline` in seconds, `host_memory` in bytes or such as 512GiB. Raises InputError."""
    for name, value in (("budget", budget), ("deadline", deadline), ("max-regret", max_regret)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and (not number or not 0 < value < math.inf):
            raise InputError(name, value, "a number above 0")
    preferred = chosen("prefer", (prefer,), get_args(Prefer))[0]
    fitting = chosen("fit", (fit,), get_args(Fit))[0]
    host = None if host_memory is None else units.parse_bytes("host-memory", host_memory)
    return Limits(budget, deadline, max_regret, preferred, fitting, host)


def limit_text(name: str, value: float) -> str:
    """A limit in a sentence."""
    if name == "budget":
        return f"a budget of {value:,.2f} USD"
    if name == "deadline":
        return f"a deadline of {units.duration(value)}"
    return f"a regret of {value:g}" if name == "max-regret" else f"{units.byte_size(value)} of host memory"


def check_regret(job: Job, limits: Limits) -> None:
    """Raise InputError where expected regret is limited and no law tells it of the data."""
    if limits.max_regret is not None and not job.loss_tokens:
        raise InputError(
            "max-regret", limits.max_regret, "data of tokens that carry loss: --tokens, --dataset or a file of them",
            "The law of excess loss is of supervised data; no sweep says what too small a rank costs with rewards or "
            "preferences. Leave it out, and say with --ranks which ranks you want.",
        )  # fmt: skip
