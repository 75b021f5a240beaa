"""How GPUs share a fine-tune: the layouts that a search tries, and which of them go with a model and its lengths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..choices import Generation, Offload, Precision, Sharding
from ..dataclass import dataclass, replace
from ..errors import InputError
from ..schema import Architecture
from ..setup import Setup
from ..sharing import check_equal_stages, check_model

SHARDINGS: tuple[Sharding, ...] = ("ddp", "fsdp")
OFFLOADED: dict[str, str] = {
    "optimizer": "optimizer states", "parameters": "frozen weights", "all": "weights and optimizer states",
}  # fmt: skip
NOT_SHARDED = ("none", "ddp")


@dataclass(frozen=True)
class Layout:
    """GPUs of a plan and how they share the work: how states are spread over them, how many share a mixture's
    experts, every matrix, the layers and every sequence, what lies in the host's memory, and under fsdp-hybrid how
    many share a copy (None: those of a machine). Of GRPO, who makes the completions, and how many more GPUs a server
    has for it. `precision` where somebody names it, else None: the job's."""

    gpus: int
    sharding: Sharding
    expert_parallel: int = 1
    generation: Generation | None = None
    vllm_gpus: int = 1
    precision: Precision | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    sequence_parallel: int = 1
    offload: Offload = "none"
    shard_size: int | None = None

    def __hash__(self) -> int:
        """That of its fields, which is asked for often, worked out once."""
        known: int | None = vars(self).get("_hash")
        if known is None:
            known = vars(self)["_hash"] = hash(tuple(vars(self).values()))
        return known

    def __getstate__(self) -> dict[str, Any]:
        """Its fields: hashes of words differ between processes."""
        return {name: value for name, value in vars(self).items() if name != "_hash"}

    @property
    def paid(self) -> int:
        """GPUs that are paid for."""
        return self.gpus + (self.vllm_gpus if self.generation == "server" else 0)

    @property
    def data_parallel(self) -> int:
        """Groups of GPUs that each see other sequences."""
        return self.gpus // (self.tensor_parallel * self.pipeline_parallel * self.sequence_parallel)

    @property
    def fields(self) -> dict[str, Any]:
        """What of it is a field of a set-up, whoever makes completions."""
        names = ("gpus", "sharding", "expert_parallel", *WAYS, "offload")
        return {name: getattr(self, name) for name in names}

    @property
    def chosen(self) -> dict[str, Any]:
        """What of it is not as it usually is, as options of an estimate: GPUs and sharding always."""
        usual = Layout(self.gpus, self.sharding)
        names = ("expert_parallel", *WAYS, "offload", "shard_size", "precision", "generation")
        found = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(usual, name)}
        if self.generation == "server":
            found["vllm_gpus"] = self.vllm_gpus
        return {"gpus": self.gpus, "sharding": self.sharding, **found}

    @property
    def spread(self) -> str:
        """How the work is spread, as far as there is something to spread."""
        found = f" {self.sharding}" if self.gpus > 1 and self.sharding != "none" else ""
        found += f" of {self.shard_size}" if self.shard_size else ""
        shared = {
            "experts": self.expert_parallel, "matrices": self.tensor_parallel, "layers": self.pipeline_parallel,
            "sequences": self.sequence_parallel,
        }  # fmt: skip
        found += "".join(f", {what} over {count}" for what, count in shared.items() if count > 1)
        return found + (f", {OFFLOADED[self.offload]} offloaded" if self.offload != "none" else "")

    @property
    def text(self) -> str:
        """What it computes in and how completions are made, each after a comma, as far as it is said."""
        form = f", {self.precision}" if self.precision else ""
        if self.generation is None:
            return form
        return f"{form}, " + {
            "transformers": "completions by transformers", "colocate": "vLLM beside",
            "shared": "vLLM sharing the base",
            "server": f"vLLM on {self.vllm_gpus} more",
        }[self.generation]  # fmt: skip


WAYS = ("tensor_parallel", "pipeline_parallel", "sequence_parallel")


def layouts(counts: Iterable[int], shardings: Sequence[Sharding] = SHARDINGS) -> tuple[Layout, ...]:
    """One GPU by itself, and every sharding of more."""
    found = []
    for count in counts:
        found += [Layout(1, "none")] if count == 1 else [Layout(count, sharding) for sharding in shardings]
    return tuple(dict.fromkeys(found))


def in_precisions(found: Iterable[Layout], precisions: Sequence[Any]) -> tuple[Layout, ...]:
    """Layouts in each of the precisions that are named; as they are where none is."""
    if not precisions:
        return tuple(found)
    return tuple(replace(layout, precision=form) for layout in found for form in precisions)


def divided(found: Iterable[Layout], experts: int) -> tuple[Layout, ...]:
    """Layouts that shard parameters, with a mixture's experts over as many GPUs as can be."""
    apart = (
        replace(layout, expert_parallel=math.gcd(layout.data_parallel * layout.sequence_parallel, experts))
        for layout in found
        if layout.sharding in ("fsdp", "zero3")
    )
    return tuple(layout for layout in apart if layout.expert_parallel > 1)


# Matrices, layers and sequences


def _sized(layout: Layout, sizes: Sequence[int]) -> Iterator[Layout]:
    """A hybrid layout with each size of a group, others as they are."""
    if layout.sharding != "fsdp-hybrid" or not sizes:
        yield layout
        return
    for size in sizes:
        yield replace(layout, shard_size=size)


def _whole(layout: Layout) -> Layout:
    """Without a sharding where there is nothing to shard."""
    alone = layout.data_parallel * layout.sequence_parallel == 1
    return replace(layout, sharding="none") if alone and layout.gpus > 1 else layout


def spread(
    arch: Architecture, setup: Setup, found: Iterable[Layout], counts: Mapping[str, Sequence[int]],
    offload: Sequence[Offload], sizes: Sequence[int],
) -> tuple[Layout, ...]:  # fmt: skip
    """Layouts with every one of these counts of GPUs that share experts, matrices, layers or sequences, every way to
    offload and every size of a hybrid group; those that do not go together, with the model or with the rest of the
    `setup` are left out. Raises InputError where none is left, or where a size has no sharding that it is for."""
    found = tuple(found)
    if sizes and not any(layout.sharding == "fsdp-hybrid" for layout in found):
        raise InputError("shard-size", sizes[0], "--sharding fsdp-hybrid beside it, on several GPUs")
    kept, missed = dict[Layout, None](), None
    for layout, numbers in itertools.product(found, itertools.product(*counts.values())):
        numbered: dict[str, Any] = dict(zip(counts, numbers, strict=True))
        own = _whole(replace(layout, **numbered))
        for one in _sized(own, sizes):
            try:
                check_layout(arch, setup, one)
            except InputError as error:
                missed = error
                continue
            kept.update(dict.fromkeys(replace(one, offload=way) for way in offload))
    if missed is not None and not kept:
        raise missed
    return tuple(kept)


def check_layout(arch: Architecture, setup: Setup, layout: Layout) -> None:
    """Raise InputError for a layout whose parts do not go together, with a model or with the rest of a set-up."""
    replace(setup, **layout.fields, shard_size=layout.shard_size)
    check_model(arch, layout)
    check_equal_stages(arch, layout.pipeline_parallel)


def goes(arch: Architecture, setup: Setup, layout: Layout) -> bool:
    """Whether the parts of a layout go together."""
    try:
        check_layout(arch, setup, layout)
    except InputError:
        return False
    return True


def shared(arch: Architecture, setup: Setup, found: Iterable[Layout]) -> tuple[Layout, ...]:
    """Layouts of several GPUs whose sequences are whole, with every sequence over 2, 4, 8 ... of them, as many as go
    with the model and the rest of the `setup`."""
    kept = dict[Layout, None]()
    for layout in found:
        count = 2
        while layout.sequence_parallel == 1 and layout.data_parallel % count == 0:
            own = replace(layout, sequence_parallel=count)
            if not goes(arch, setup, own):
                break
            kept[own] = None
            count *= 2
    return tuple(kept)
