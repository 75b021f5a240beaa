"""One plan in full, by the same functions as an estimate: memory, time, cost and expected regret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import adapter as adapters
from ..adapter.whole import trained_whole
from ..cost import Cost, GpuPrice, RunTime, cost_of, list_price, own_price
from ..dataclass import dataclass, replace
from ..errors import UnsupportedArchitectureError
from ..hardware import Cluster, cluster
from ..host import Host, host_of
from ..moments import MemoryEstimate
from ..pacing import timed
from ..regret import Regret, expected_regret
from ..running import Running
from ..setup import Setup
from ..speed import time_gap
from .space import Choice, Fit, Job, Limits

if TYPE_CHECKING:
    from ..fact_types import Accelerator


@dataclass(frozen=True)
class Evaluated:
    """A plan with its figures. `memory_bytes` is what a GPU has, `host` what lies in a machine's host memory."""

    choice: Choice
    params: int
    memory: MemoryEstimate
    memory_bytes: int
    host: Host
    run: RunTime
    cost: Cost | None
    regret: Regret | None

    def over_bytes(self, fit: Fit = "expected") -> int:
        """Bytes that are missing on each GPU; 0 or less where the plan fits: by the peak that is expected, or by the
        upper end of its interval."""
        return (self.memory.high if fit == "sure" else self.memory.per_gpu_bytes) - self.memory_bytes

    @property
    def seconds(self) -> float:
        """Seconds of the run."""
        return self.run.seconds or 0.0

    @property
    def usd(self) -> float | None:
        """Dollars of the run; None where no price is known."""
        return self.cost.usd if self.cost else None

    def failures(self, limits: Limits) -> tuple[str, ...]:
        """Which limits it breaks: memory, host-memory, deadline, budget, regret."""
        late = limits.deadline_s is not None and self.seconds > limits.deadline_s
        dear = limits.budget_usd is not None and (self.usd is None or self.usd > limits.budget_usd)
        poor = (
            limits.max_regret is not None
            and self.regret is not None
            and self.regret.value > limits.max_regret
        )
        broken = {
            "memory": self.over_bytes(limits.fit) > 0,
            "host-memory": limits.host_bytes is not None and self.host.node_bytes > limits.host_bytes,
            "deadline": late,
            "budget": dear,
            "regret": poor,
        }
        return tuple(name for name, is_broken in broken.items() if is_broken)

    def to_dict(self) -> dict[str, Any]:
        """A plan, for JSON."""
        step, memory = self.run.step, self.memory
        cost = self.cost.to_dict() if self.cost else None
        return {
            **self.choice.to_dict(),
            "precision": memory.setup.precision,
            "params": self.params,
            "memory": {
                "per_gpu_bytes": memory.per_gpu_bytes,
                "low": memory.low,
                "high": memory.high,
                "interval": memory.interval(),
                "corrected": dict(vars(memory.corrected)) if memory.corrected else None,
                "limit_bytes": self.memory_bytes,
                "host_bytes": self.host.node_bytes,
                "moment": memory.peak.name,
            },
            "time": {
                "seconds": self.run.seconds,
                "low": self.run.low,
                "high": self.run.high,
                "interval": step.interval(),
                "steps": self.run.steps,
                "step_s": step.seconds,
                "tokens_per_s": step.tokens_per_s,
                "mfu": step.mfu,
                "phases": step.phases and dict(step.phases),
            },
            "cost": cost and {key: cost[key] for key in ("usd", "low", "high")},
            "regret": None
            if self.regret is None
            else {"value": self.regret.value, "low": self.regret.low, "high": self.regret.high},
        }


def price_of(job: Job, accelerator: Accelerator) -> GpuPrice | None:
    """The user's price, or the list's; None where there is none."""
    if job.price is not None:
        return own_price(job.price)
    if accelerator.name not in job.prices:
        job.prices[accelerator.name] = list_price(accelerator)
    found: GpuPrice | None = job.prices[accelerator.name]
    return found


def machine_of(job: Job, accelerator: Accelerator, gpus: int) -> Cluster:
    """So many GPUs of a kind."""
    return cluster(accelerator, gpus, per_node=job.per_node)


def host_on(job: Job, memory: MemoryEstimate) -> Host:
    """What of a plan lies in the host's memory of a machine."""
    return host_of(memory, {"host_memory": None, "gpus_per_node": job.per_node})


def regret_of(job: Job, params: int) -> Regret | None:
    """Expected excess loss of an adapter of this size; None where the data's loss tokens are not known, or none."""
    return (
        None if not job.loss_tokens else expected_regret(params / job.loss_tokens, moe=job.arch.has_experts)
    )


def as_run(job: Job, choice: Choice) -> Running:
    """A plan as one run on its machine. What is counted of its step serves the same plan on other GPUs."""
    setup = choice.setup(job)
    key = _key("run", choice, setup)
    if key not in job.made:
        spec = choice.spec(job)
        pairs = adapters.adapt(job.arch, spec)
        job.made[key] = Running(
            "", job.arch, spec, pairs, trained_whole(job.arch, spec, pairs), setup, None, job.lengths_open,
            peaks=job.calibration.peaks,
        )  # fmt: skip
    own: Running = job.made[key]
    return replace(own, machine=machine_of(job, choice.accelerator, choice.layout.gpus))


def _key(what: str, choice: Choice, setup: Setup) -> tuple[Any, ...]:
    """A plan whatever GPUs it runs on, but for what their kind changes of its set-up."""
    return what, setup, choice.rank, choice.layers


def _memory(job: Job, choice: Choice, own: Running, as_screened: bool) -> MemoryEstimate:
    """The memory of a plan, once for all GPUs."""
    key = (*_key("memory", choice, own.setup), as_screened)
    if key not in job.made:
        job.made[key] = own.memory(ranks_follow=as_screened)
    found: MemoryEstimate = job.made[key]
    return found


def evaluate(job: Job, choice: Choice, *, as_screened: bool = False) -> Evaluated:
    """Everything about one plan; `as_screened`: its memory by walks with symbols, which a screen has made. Raises
    InputError where its parts do not go together."""
    own = as_run(job, choice)
    run = timed(own, job.samples, job.tokens, job.epochs, job.calibration)
    if run is None:
        raise UnsupportedArchitectureError(f"No step time: {time_gap(job.arch, own.whole)}")
    price = price_of(job, choice.accelerator)
    memory = _memory(job, choice, own, as_screened)
    return Evaluated(
        choice, own.params, memory, choice.accelerator.memory_bytes or 0, host_on(job, memory), run,
        cost_of(run, price) if price else None, regret_of(job, own.params),
    )  # fmt: skip
