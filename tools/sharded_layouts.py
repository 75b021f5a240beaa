"""A small model spread over processes, each way by the library's own means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh

from .sharded_cases import Case

COLUMNS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
ROWS = ("o_proj", "down_proj")


@dataclass
class Spread:
    """A model as it was spread: `forward` gives a micro-batch's loss, `optimizer` steps, `around` is entered round a
    step, `alone` round a micro-step that exchanges no gradients."""

    model: Any
    forward: Callable[[torch.Tensor], Any]
    optimizer: Any
    around: Callable[[], Any] = nullcontext
    alone: Callable[[], Any] = nullcontext


def trained(model: Any) -> list[Any]:
    """Its parameters that have a gradient."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _adamw(model: Any) -> Any:
    return torch.optim.AdamW(trained(model), lr=1e-4, foreach=False)


def _plain_loss(model: Any) -> Callable[[torch.Tensor], Any]:
    return lambda ids: model(input_ids=ids.clone(), labels=ids.clone()).loss


def spread(model: Any, case: Case) -> Spread:
    """The model by the way that the case names."""
    return WAYS[case.way](model, case)


def alone(model: Any, case: Case) -> Spread:
    """One process."""
    return Spread(model, _plain_loss(model), _adamw(model))


def data_parallel(model: Any, case: Case) -> Spread:
    """DistributedDataParallel, whose gradients are views of its buckets only where that is asked for."""
    made = torch.nn.parallel.DistributedDataParallel(model)
    return Spread(made, _plain_loss(made), _adamw(model))


def zero_one(model: Any, case: Case) -> Spread:
    """DDP with torch's ZeroRedundancyOptimizer, which divides states by whole tensors."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    made = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = ZeroRedundancyOptimizer(trained(model), torch.optim.AdamW, lr=1e-4, foreach=False)
    return Spread(made, _plain_loss(made), optimizer)


def layers_of(model: Any) -> Any:
    """The model's layers."""
    return inner(model).layers


def inner(model: Any) -> Any:
    """The stack with its embedding, below the unembedding and below PEFT's wrapper."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    return whole.model


def fully_sharded(model: Any, case: Case) -> Spread:
    """FSDP 2: every layer a unit, and a root, or units of embedding and unembedding beside it; under a mesh of two
    dimensions a copy for each row."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    size = case.layout.get("shard_size", case.world)
    shape = (case.world // size, size) if size < case.world else (case.world,)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replica", "shard")[-len(shape) :])
    wide = MixedPrecisionPolicy(reduce_dtype=torch.float32 if case.layout.get("reduced_wide") else None)
    if case.layout["fsdp_units"] == "layers-ends":
        fully_shard(inner(model).embed_tokens, mesh=mesh, mp_policy=wide)
    for layer in layers_of(model):
        fully_shard(layer, mesh=mesh, mp_policy=wide)
    if case.layout["fsdp_units"] == "layers-ends":
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        fully_shard(
            [inner(model).norm, whole.lm_head], mesh=mesh, mp_policy=wide, reshard_after_forward=False
        )
    fully_shard(model, mesh=mesh, mp_policy=wide)
    return Spread(model, _plain_loss(model), _adamw(model), alone=lambda: _unexchanged(model))


@contextmanager
def _unexchanged(model: Any) -> Iterator[None]:
    """As accelerate's no_sync has it of FSDP 2."""
    model.set_requires_gradient_sync(False)
    yield
    model.set_requires_gradient_sync(True)


def flat_sharded(model: Any, case: Case) -> Spread:
    """FSDP 1: every layer one flat parameter, and a root; its original parameters stand as views of these."""
    from functools import partial

    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    policy = partial(transformer_auto_wrap_policy, transformer_layer_cls={type(layers_of(model)[0])})
    made = FullyShardedDataParallel(
        model, auto_wrap_policy=policy, use_orig_params=True, device_id=torch.device("cpu")
    )
    return Spread(made, _plain_loss(made), _adamw(made), alone=made.no_sync)


def whole_sharded(model: Any, case: Case) -> Spread:
    """FSDP 1 without a policy: the whole model one flat parameter."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    made = FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    return Spread(made, _plain_loss(made), _adamw(made), alone=made.no_sync)


def pairs_apart(model: Any, case: Case) -> Spread:
    """FSDP 1 by PEFT's own policy, as transformers' Trainer hands it to accelerate: every layer a unit, and in it
    every factor of a pair one of its own."""
    from peft.utils.other import fsdp_auto_wrap_policy
    from torch.distributed.fsdp import FullyShardedDataParallel

    made = FullyShardedDataParallel(
        model, auto_wrap_policy=fsdp_auto_wrap_policy(model), use_orig_params=False,
        device_id=torch.device("cpu"),
    )  # fmt: skip
    return Spread(made, _plain_loss(made), _adamw(made), alone=made.no_sync)


def tensor_parallel(model: Any, case: Case) -> Spread:
    """DTensor's tensor parallelism, as transformers' plans and PEFT lay it out: of a pair the factor on the divided
    side. With `split_stream` norms and sums see the process's own positions."""
    from torch.distributed.tensor import Replicate, distribute_tensor
    from torch.distributed.tensor.parallel import loss_parallel, parallelize_module

    mesh = init_device_mesh("cpu", (case.world,))
    parts = bool(case.layout.get("split_stream"))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    parallelize_module(model, mesh, tensor_plan(model, parts))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)  # which a style makes anew

    def forward(ids: torch.Tensor) -> Any:
        given: dict[str, Any] = {}
        if parts:  # which the model's code would make by the part of the positions that it sees
            n, dtype = ids.shape[1], next(model.parameters()).dtype
            mask = torch.full((n, n), torch.finfo(dtype).min, dtype=dtype).triu(1)
            given = {"position_ids": torch.arange(n)[None], "attention_mask": mask[None, None]}
        logits = model(input_ids=ids, **given).logits
        labels = distribute_tensor(ids.flatten(), mesh, [Replicate()])
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels)

    return Spread(model, forward, _adamw(model), around=loss_parallel)


def tensor_plan(model: Any, parts: bool) -> dict[str, Any]:
    """A style for each module by its name."""
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        PrepareModuleInput,
        RowwiseParallel,
        SequenceParallel,
    )

    stream = Shard(1) if parts else Replicate()
    plan: dict[str, Any] = {}
    for name, module in model.named_modules():
        words = name.split(".")
        last = words[-1]
        matrix = next((w for w in words if w in (*COLUMNS, *ROWS)), "")
        linear = isinstance(module, torch.nn.Linear)
        if last == "embed_tokens":
            plan[name] = RowwiseParallel(input_layouts=Replicate(), output_layouts=stream)
        elif last == "lm_head":
            plan[name] = ColwiseParallel(
                input_layouts=stream, output_layouts=Shard(-1), use_local_output=False
            )
        elif linear and matrix in COLUMNS and "lora_A" not in words:
            plan[name] = ColwiseParallel()
        elif linear and matrix in ROWS and "lora_B" not in words:
            plan[name] = RowwiseParallel(output_layouts=stream)
        elif parts and (last.endswith("layernorm") or name.endswith("model.norm")):
            plan[name] = SequenceParallel(use_local_output=True)
        elif parts and last == "self_attn":
            plan[name] = PrepareModuleInput(
                input_kwarg_layouts={"hidden_states": Shard(1)},
                desired_input_kwarg_layouts={"hidden_states": Replicate()},
                use_local_output=True,
            )
        elif parts and last == "mlp":
            plan[name] = PrepareModuleInput(
                input_layouts=(Shard(1),), desired_input_layouts=(Replicate(),), use_local_output=True
            )
    return plan


WAYS: dict[str, Callable[[Any, Case], Spread]] = {
    "alone": alone, "ddp": data_parallel, "zero1": zero_one, "fsdp2": fully_sharded, "ends2": fully_sharded,
    "fsdp1": flat_sharded, "whole1": whole_sharded, "peft1": pairs_apart, "tensor": tensor_parallel,
}  # fmt: skip
