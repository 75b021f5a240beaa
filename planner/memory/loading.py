"""What comes before the first step: the base is loaded, quantised, prepared, and spread over GPUs.

`Setup.loading` says how the base gets onto a GPU, of which nothing is said where it is "unknown":

    host              in the host's memory, and moved from there as it is held
    in-turn           tensor by tensor, each quantised as it comes
    in-turn-ahead     so too, after one block of half of the unquantised weights was taken and given back
    together          all tensors in 16 bits at once, quantised one by one
    made-there        each matrix in 16 bits on the GPU, quantised by torchao in pieces of a million values
    made-there-whole  so too, each matrix as a whole, as torchao 0.1 does

`Setup.placing` says how parameters get to where they are held in training:

    whole             the model is whole on every GPU before it is divided: ZeRO-3 without zero.Init, and what
                      bitsandbytes quantises under transformers 5
    shards            no GPU ever holds more than its shard and the unit that is being divided
    broadcast         DDP sends the first process's parameters in flat buckets, which are used again
    broadcast-kept    so too, but the allocator keeps all buckets apart until the GPU has caught up (torch before 2.8)

What is quantised under ZeRO-3 or FSDP is loaded in ways that differ from version to version: nothing is said of it
but where it is "whole".
Sources: transformers 5.3.0 and 5.4.0, core_model_loading.py (convert_and_load_state_dict_in_model, spawn_materialize)
and integrations/bitsandbytes.py (Bnb4bitQuantize); 4.57.1, modeling_utils.py (caching_allocator_warmup) and
quantizers/base.py (get_accelerator_warm_up_factor); PEFT 0.17.1, utils/other.py (prepare_model_for_kbit_training);
TRL 0.24.0, models/utils.py (prepare_peft_model); torchtune 0.1.1, utils/_register_nf4_dispatch_ops.py; torchao 0.1
and 0.8.0, dtypes/nf4tensor.py (from_tensor, convert_to_norm_float_weight, quantize_tensor_nearest); DeepSpeed 0.11.1,
runtime/engine.py (_configure_distributed_model) and zero/partition_parameters.py (partition); torch,
csrc/distributed/c10d/comm.cpp (broadcast_coalesced), ProcessGroupNCCL.cpp (pull request 148590, of 2.8) and
distributed/fsdp/_init_utils.py (_init_param_handle_from_params).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from ..choices import DTYPE_BYTES
from ..dataclass import dataclass
from ..moments import BEFORE, MemoryEstimate, Phase
from ..schema import Architecture, Matrix, Notice
from ..setup import Setup
from .passes import FLOAT32
from .sharding import in_one, one_stream, units
from .stages import Stage, count_layers
from .states import Weights, base_weights, ceil_div, is_quantised, kept_wide, quantised_bytes, share
from .step import Place
from .stretch import Held

IN_PLACE = ("nf4", "nf4-double", "int8")  # formats of bitsandbytes, whose models PEFT prepares
PUT_THERE = ("in-turn", "in-turn-ahead", "together")  # by transformers, onto the GPU
PIECE = 2**20  # values that torchao quantises at a time
COMPARED = (
    64  # bytes a value: its differences from NF4's 16 numbers and their absolute values, two bytes each
)
SCALED = 4  # of a matrix in 16 bits and its scaled copy
BUCKET_BYTES = 250 * 2**20  # DDP's first broadcast (broadcast_bucket_size)


@dataclass(frozen=True)
class Before:
    """Moments before the first step, and the most bytes that the allocator has taken until then."""

    places: tuple[Place, ...] = ()
    reserved: int = 0


NOTHING = Before()


def before_steps(arch: Architecture, setup: Setup, weights: Weights, stage: Stage, own: int) -> Before:
    """What comes before the first step on a GPU of a stage; `own` are the bytes of its part of the adapter. Nothing
    where it is not known how the program loads."""
    if setup.parameters_sharded and setup.shards > 1:
        return _divided(arch, setup, weights, stage, own)
    if setup.loading == "unknown":
        return NOTHING
    found = _on_one(arch, setup, weights, stage)
    several = setup.data_parallel * setup.sequence_parallel > 1
    if setup.sharding == "ddp" and several and setup.placing.startswith("broadcast"):
        found.append(_broadcast(arch, setup, weights, stage, own))
    return _together(found)


def _on_one(arch: Architecture, setup: Setup, weights: Weights, stage: Stage) -> list[Before]:
    """Loading, and preparing where there is any, on a GPU that holds all of its stage."""
    found = [_loading(arch, setup, weights, stage)]
    return [*found, _preparing(arch, setup, stage)] if _is_prepared(setup) else found


def _together(found: Sequence[Before]) -> Before:
    return Before(tuple(p for each in found for p in each.places), max(each.reserved for each in found))


def _divided(arch: Architecture, setup: Setup, weights: Weights, stage: Stage, own: int) -> Before:
    """Of parameters that are divided among GPUs."""
    if setup.quantize != "none":
        known = setup.placing == "whole" and setup.loading in PUT_THERE
        return _together(_on_one(arch, setup, weights, stage)) if known else NOTHING
    if setup.placing not in ("whole", "shards"):
        return NOTHING
    whole = setup.placing == "whole" and setup.sharding == "zero3"
    return _whole(arch, setup, weights, stage, own) if whole else _shards(arch, setup, weights, stage, own)


def _moment(phase: Phase, where: str, extra: str, weights: int, own: int, more: int, kept: int = 0) -> Before:
    """A moment at which `weights` and the adapter's `own` bytes are held, and `more` of what a label of `extra` is;
    the allocator has taken `kept` beyond these."""
    held: Held = {"weights": weights, "adapter": own, extra: more}
    return Before((Place(phase, where, held, {}),), weights + own + more + kept)


# Loading and quantising


def _loading(arch: Architecture, setup: Setup, weights: Weights, stage: Stage) -> Before:
    """The base as it gets onto a GPU."""
    if setup.quantize == "none" or setup.loading == "host":
        return _moment("loading", "weights", "unquantised", weights.of(stage), 0, 0)
    loaded, one = loaded_bytes(arch, setup, stage), largest_quantised(arch, setup)
    if setup.loading == "together":
        every = unquantised_bytes(arch, setup, stage)
        return _moment("loading", "all tensors", "unquantised", 0, 0, every)
    if setup.loading == "made-there-whole":
        more = torchao_bytes(one, whole=True)
        others = sum(torchao_bytes(n, whole=True) for n in _other_sizes(arch, setup))
        return _moment("loading", "largest matrix", "unquantised", loaded, 0, more, others)
    if setup.loading == "made-there":
        return _moment("loading", "largest matrix", "unquantised", loaded, 0, torchao_bytes(one, whole=False))
    width = DTYPE_BYTES[setup.weight_dtype]
    ahead = unquantised_bytes(arch, setup, stage) // 2 if setup.loading == "in-turn-ahead" else 0
    kept = max(0, ahead - loaded - width * one)
    return _moment("loading", "largest matrix", "unquantised", loaded, 0, width * one, kept)


def loaded_bytes(arch: Architecture, setup: Setup, stage: Stage) -> int:
    """Bytes of the base on a GPU of a stage when it is loaded: what is quantised in its format, the rest in the type
    that it is loaded in."""
    return base_weights(arch, replace(setup, upcast_small=False)).of(stage)


def unquantised_bytes(arch: Architecture, setup: Setup, stage: Stage) -> int:
    """Bytes of all weights of a stage in the type that they are loaded in: w x n for n of w bytes each.

    The most that transformers 5.0 to 5.3 may hold: threads put tensors onto the GPU while others are quantised and
    freed. Measured of Qwen2.5-7B 0.95 of it (pull request 44576), of Qwen3.5-27B 0.92.
    """
    return base_weights(arch, replace(setup, method="lora", quantize="none", upcast_small=False)).of(stage)


def largest_quantised(arch: Architecture, setup: Setup) -> int:
    """Values of the largest matrix that is quantised by itself; of experts, one."""
    return max(_sizes(arch, setup), default=0)


def _other_sizes(arch: Architecture, setup: Setup) -> list[int]:
    """Values of matrices that are quantised, each size once, without the largest."""
    return sorted(set(_sizes(arch, setup)))[:-1]


def _sizes(arch: Architecture, setup: Setup) -> Iterator[int]:
    for matrix in arch.matrices:
        if is_quantised(matrix, setup) and not matrix.tied:
            yield ceil_div(matrix.d_in * matrix.d_out, setup.tensor_parallel)


def torchao_bytes(values: int, *, whole: bool) -> int:
    """Bytes that torchao takes to quantise a matrix of so many `values`, the matrix in 16 bits among them: 68 x
    values where all are compared at once, else 5 x values + 64 x min(2^20, values).

    The matrix and its values divided by their blocks' scales, two bytes each, then in pieces a byte for the numbers
    found so far; differences of each value from NF4's 16 numbers and their absolute values (2 x 16 x 2). Neglects
    scales, 0.08 bytes a value.
    """
    if whole:
        return (SCALED + COMPARED) * values
    return (SCALED + 1) * values + COMPARED * min(PIECE, values)


# Preparing


def _is_prepared(setup: Setup) -> bool:
    """Whether PEFT prepares a base that is quantised on the GPU."""
    widened = setup.upcast_small or setup.prepared_wide
    return widened and setup.quantize in IN_PLACE and setup.loading in PUT_THERE


def _preparing(arch: Architecture, setup: Setup, stage: Stage) -> Before:
    """Whatever is not quantised is made float32, parameter by parameter. The copy that it replaces is freed, but too
    small for the next float32 one, so that the allocator has taken both of each."""
    loaded, rows = loaded_bytes(arch, setup, stage), narrow_tensors(arch, setup, stage)
    most = widening_bytes(rows)
    return _moment("preparing", "float32 copies", "widened", loaded, 0, most, 2 * sum(rows) - most)


def widening_bytes(narrow: list[int]) -> int:
    """The most bytes on top while 16-bit tensors become float32 one after another: max over i of
    n_1 + ... + n_i + n_i, since each grows by its own size once the old one is gone, and holds both until then."""
    done = most = 0
    for size in narrow:
        most = max(most, done + 2 * size)
        done += size
    return most


def narrow_tensors(arch: Architecture, setup: Setup, stage: Stage) -> list[int]:
    """Bytes of the 16-bit tensors of a stage that nothing quantises, in the order of a model's parameters. Norms and
    biases are left out, below 0.1%."""
    width = DTYPE_BYTES[setup.weight_dtype]
    return [] if width == FLOAT32 else _tensors(arch, setup, stage, width)


def _tensors(
    arch: Architecture, setup: Setup, stage: Stage, width: int, *, quantised: bool = False
) -> list[int]:
    """Bytes of the tensors of a stage of `width` bytes a value, or of those that are quantised: what stands before
    the layers, layer by layer, what stands behind them."""
    last = max(1, count_layers(arch))
    places: list[tuple[int, int]] = []
    for matrix in arch.matrices:
        if matrix.tied or is_quantised(matrix, setup) != quantised or kept_wide(matrix, setup):
            continue
        size = matrix.d_in * matrix.d_out * matrix.experts * width
        size = quantised_bytes(matrix, setup.quantize) if quantised else size
        size = ceil_div(
            size, setup.tensor_parallel * (setup.expert_parallel if matrix.kind == "experts" else 1)
        )
        places += [(place, size) for place in _places(matrix, stage, last)]
    return [size for _, size in sorted(places, key=lambda each: each[0])]


def _places(matrix: Matrix, stage: Stage, last: int) -> Iterator[int]:
    """Where copies of a matrix stand in a stage: -1 before the layers, `last` behind them."""
    if "{}" in matrix.name:
        for layer in matrix.layers:
            if stage.first <= layer < stage.end:
                yield layer
            elif layer >= last and stage.stem:
                yield -1
    elif stage.head if matrix.role == "unembedding" else stage.stem:
        yield from [last if matrix.role == "unembedding" else -1] * matrix.copies


# Placing


def _broadcast(arch: Architecture, setup: Setup, weights: Weights, stage: Stage, own: int) -> Before:
    """DDP sends every parameter, frozen ones too, in flat copies, two of them on their way at a time. Before torch
    2.8 their blocks wait for the GPU, while the host, which is far ahead, takes new ones: all of them are taken,
    about as large as the parameters, unless there is no room."""
    held = weights.of(stage)
    width = FLOAT32 if setup.upcast_small else DTYPE_BYTES[setup.weight_dtype]
    norm = arch.hidden_size * width  # the last one, which makes a bucket with what follows it
    rest = _tensors(arch, setup, stage, width)
    flat = flat_copies([*rest[:-1], norm, *rest[-1:]])
    flat += flat_copies(_tensors(arch, setup, stage, width, quantised=True))
    two = max((a + b for a, b in pairwise([0, *flat])), default=0)
    kept = sum(flat) + own - two if setup.placing == "broadcast-kept" else 0
    return _moment("placing", "first broadcast", "flat", held, own, two, max(0, kept))


def flat_copies(tensors: Sequence[int]) -> list[int]:
    """Bytes of the flat copies of tensors of one type: buckets are filled in order until they have BUCKET_BYTES, so
    that they are larger by up to a tensor; one that is a bucket by itself is sent as it is, 0 here."""
    found, filled, number = [], 0, 0
    for size in tensors:
        filled, number = filled + size, number + 1
        if filled >= BUCKET_BYTES:
            found.append(filled if number > 1 else 0)
            filled = number = 0
    return [*found, filled] if number > 1 else found


def largest_tensor(arch: Architecture, setup: Setup) -> int:
    """Bytes of the largest tensor in the type that it is held in, unquantised."""
    width = DTYPE_BYTES[setup.weight_dtype]
    sizes = (m.d_in * m.d_out * m.experts * width for m in arch.matrices if not m.tied)
    return ceil_div(max(sizes, default=0), setup.tensor_parallel)


def _whole(arch: Architecture, setup: Setup, weights: Weights, stage: Stage, own: int) -> Before:
    """All parameters on every GPU, in the type that is computed in, and the shard of the first one to be divided.
    Nothing gives the blocks back where parameters are offloaded; else DeepSpeed empties the allocator's cache once
    it has divided them (stage3.py, defragment)."""
    whole = weights.of(stage) + own * setup.shards
    first = share(largest_tensor(arch, setup), setup.shards)
    return _moment("placing", "the whole model", "undivided", 0, 0, whole + first)


def _shards(arch: Architecture, setup: Setup, weights: Weights, stage: Stage, own: int) -> Before:
    """A GPU's shards and the unit that is divided last: under FSDP 1 a unit as it comes and in a flat copy, under
    FSDP 2 and zero.Init a tensor, whole and as it is sent."""
    held = 0 if setup.offload in ("parameters", "all") else share(weights.of(stage), setup.shards)
    found, wider = units(arch, setup), DTYPE_BYTES[setup.weight_dtype] / DTYPE_BYTES[setup.compute_dtype]
    flat = setup.sharding.startswith("fsdp") and not one_stream(setup)
    largest = found.total if in_one(setup) else max(found.layer, found.outside)
    one = round(largest * wider) if flat else largest_tensor(arch, setup)
    return _moment("placing", "shards", "undivided", held, own, 2 * one)


# What to do about it

LOADING_CODES = ("loading-peak", "loading-kept")
REMEDIES = {
    "together": "transformers 5.0 to 5.3 put all weights onto the GPU in 16 bits while they are quantised one by "
    "one: 5.4 and later take them in turn, as HF_DEACTIVATE_ASYNC_LOAD=1 makes these do.",
    "made-there-whole": "torchao 0.1 compares a whole matrix with NF4's 16 numbers at once: torchtune 0.2 and later "
    "do so in pieces.",
    "preparing": "PEFT's prepare_model_for_kbit_training makes float32 copies of embeddings and unembedding: TRL "
    "from 0.25 on widens norms alone.",
    "quantised-whole": "transformers 5 puts a base that bitsandbytes quantises whole onto every GPU, under FSDP and "
    "ZeRO-3 too, unless from_pretrained is given device_map={'': 'cpu'}, which quantises it in the host's memory "
    "(bitsandbytes 0.46 and later).",
    "whole": "Without zero.Init DeepSpeed puts the whole model onto every GPU before it is divided: build it under "
    "deepspeed.zero.Init, as transformers does where TrainingArguments with the ZeRO-3 config are made first.",
    "broadcast": "DDP's first broadcast holds two flat copies of about 250 MB.",
    "broadcast-kept": "DDP's first broadcast holds two flat copies, and torch before 2.8 keeps the blocks of all of "
    "them: later versions use them again.",
    "shards": "The unit that is divided last is large beside a GPU's shards: smaller units hold less.",
}


def loading_notices(found: MemoryEstimate) -> Iterator[Notice]:
    """What to do where the peak, or all that the allocator ever takes, comes before the first step."""
    top = found.loading_peak
    if top is None:
        return
    setup = found.setup
    key = {"preparing": "preparing", "placing": setup.placing}.get(top.phase, setup.loading)
    if top.phase != "placing" and setup.parameters_sharded and setup.loading != "together":
        key = "quantised-whole"
    why = REMEDIES.get(key, "")
    if found.peak.phase in BEFORE:
        yield Notice(LOADING_CODES[0], f"Most is held before the first step. {why}".strip())
    elif found.before_bytes >= found.reserved_bytes > 0:
        yield Notice(
            LOADING_CODES[1],
            f"What nvidia-smi shows was taken before the first step, and stays with torch's allocator. {why}".strip(),
        )
