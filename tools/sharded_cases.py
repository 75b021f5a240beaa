"""Steps that are spread over several processes, to be run and held against the estimate: models, methods, layouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from planner.running import Running, running

_SHARED: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 8, "vocab_size": 320, "max_position_embeddings": 256,
    "tie_word_embeddings": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# Small models whose widths 2, 4 and 8 divide.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **_SHARED},
    "qwen3_moe": {
        "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "moe_intermediate_size": 48,
        "num_experts": 8, "num_experts_per_tok": 2, **_SHARED,
    },
}  # fmt: skip
RANK = 8
LONG, SHORT = (
    (2, 32),
    (1, 4),
)  # sequences and their tokens; of the short ones weights and their buffers take most


@dataclass(frozen=True)
class Case:
    """A step: by which `way` of a library a model is spread over `world` processes, and the same in the planner's
    words (`layout`); `shape`: sequences of a process and their tokens."""

    model: str
    method: str
    precision: str
    way: str
    world: int
    layout: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, int] = LONG

    @property
    def name(self) -> str:
        """In one line."""
        said = [f"{key}={value}" for key, value in self.layout.items()]
        shape = "short" if self.shape == SHORT else "long"
        return " ".join([self.model, self.method, self.precision, self.way, f"x{self.world}", *said, shape])

    @property
    def micro_steps(self) -> int:
        """Micro-batches of a step."""
        return int(self.layout.get("accumulation", 1))

    @property
    def waits(self) -> bool:
        """Whether nothing is exchanged before the last micro-step."""
        return "deferred_gradients" in self.layout

    def run(self) -> Running:
        """What the planner is asked for: this layout."""
        return self._running(gpus=self.world, **self.layout)

    def alone(self) -> Running:
        """The same model and method on one device, of which the layout is made."""
        again = {name: self.layout[name] for name in ("checkpointing", "reentrant") if name in self.layout}
        return self._running(gpus=1, **again)

    def _running(self, **options: Any) -> Running:
        groups = 1
        for way in ("tensor_parallel", "pipeline_parallel", "sequence_parallel"):
            groups *= options.get(way, 1)
        micro_steps = options.get("accumulation", 1)
        asked: dict[str, Any] = {
            "method": self.method, "precision": self.precision, "rank": RANK, "layers": "all-linear",
            "experts": "none", "seq_len": self.shape[1],
            "batch": self.shape[0] * micro_steps * options["gpus"] // groups,
            "attention_kernel": "eager", "optimizer": "adamw", "optimizer_kernel": "loop", "checkpointing": "none",
            **options,
        }  # fmt: skip
        return running(CONFIGS[self.model], asked)


METHODS = (("lora", "fp32"), ("full", "fp32"), ("lora", "bf16"), ("full", "bf16"))
Found = tuple[str, int, dict[str, Any]]


def cases() -> Iterator[Case]:
    """All of them; of the mixture LoRA in float32, by fewer ways.

    FSDP 1 refuses a flat parameter of two types; the short ones are in float32, since bfloat16's products on a CPU
    take work space that no GPU takes.
    """
    for model in CONFIGS:
        for method, precision in METHODS:
            for way, world, layout in (*_sharded(), *(_divided() if model == "llama" else ())):
                if way in ("fsdp1", "whole1") and (method, precision) == ("lora", "bf16"):
                    continue
                if way == "peft1" and (method, precision) != ("lora", "fp32"):
                    continue
                if "reduced_wide" in layout and precision == "fp32":
                    continue
                if layout.keys() & {"checkpointing", "deferred_gradients"} and precision != "fp32":
                    continue
                few = (
                    way not in ("fsdp1", "whole1", "peft1")
                    and not {"shard_size", "accumulation", "checkpointing"} & layout.keys()
                )
                if model != "llama" and not (few and (method, precision) == METHODS[0]):
                    continue
                for shape in (LONG, SHORT) if precision == "fp32" else (LONG,):
                    yield Case(model, method, precision, way, world, layout, shape)


def _sharded() -> Iterator[Found]:
    """Layouts that spread states."""
    layers = {"fsdp_units": "layers"}
    yield "alone", 1, {}
    yield "ddp", 2, {"sharding": "ddp"}
    yield "zero1", 2, {"sharding": "zero1"}
    for world in (2, 4):
        yield "fsdp2", world, {"sharding": "fsdp", **layers}
        yield "fsdp1", world, {"sharding": "fsdp", "fsdp_units": "flat"}
    yield "fsdp2", 4, {"sharding": "fsdp-hybrid", "shard_size": 2, **layers}
    yield "fsdp2", 2, {"sharding": "fsdp", **layers, "accumulation": 2}
    waits = {"accumulation": 2, "deferred_gradients": "compute"}
    yield "fsdp2", 2, {"sharding": "fsdp", **layers, **waits}
    yield "fsdp1", 2, {"sharding": "fsdp", "fsdp_units": "flat", **waits}
    whole = {"sharding": "fsdp", "fsdp_units": "whole"}
    yield "whole1", 2, whole
    yield "whole1", 4, whole
    yield "whole1", 2, {**whole, "accumulation": 2}
    yield "whole1", 2, {**whole, **waits}
    yield "whole1", 2, {**whole, "checkpointing": "layer"}
    pairs = {"sharding": "fsdp", "fsdp_units": "pairs"}
    yield "peft1", 2, pairs
    yield "peft1", 2, {**pairs, **waits}
    yield "peft1", 2, {**pairs, "checkpointing": "layer"}
    yield "fsdp2", 2, {"sharding": "fsdp", **layers, "checkpointing": "layer"}
    ends = {"sharding": "fsdp", "fsdp_units": "layers-ends"}
    for world in (2, 4):
        yield "ends2", world, ends
        yield "fsdp2", world, {"sharding": "fsdp", **layers, "reduced_wide": True}
    yield "ends2", 2, {**ends, "accumulation": 2}
    yield "ends2", 2, {**ends, "checkpointing": "layer"}
    yield "ends2", 2, {**ends, "reduced_wide": True}


def _divided() -> Iterator[Found]:
    """Layouts that divide matrices."""
    for world in (2, 4):
        yield "tensor", world, {"tensor_parallel": world}
        yield "tensor", world, {"tensor_parallel": world, "split_stream": True}
