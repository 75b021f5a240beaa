"""Seconds of making completions: the prompts in one pass, then a pass for each token over all sequences that go on.

    pass     = max(weights / (bandwidth x memory), FLOPs / (peak x matmul)) + caches / (bandwidth x memory)
               + dequantised bytes / their rate + all-reduces + the engine's own
    vLLM     : memory is data/decode.toml's; its own pass_s + sequences x sequence_s (CUDA graphs: no launches)
    generate : memory is the training step's; kernels x start, and where that is longer, kernels x host instead of all

vLLM reads each cached value once; transformers joins each token to its cache (a read and a write) and, for heads that
share keys and values under a mask, writes them out for every head and reads that. Experts are read where a token of
the batch chose them, each choice taken as even. What is neglected: convolutions' and state-space layers' states,
windows that chunk, sampling in transformers (some 40 kernels, within what hosts differ by), scheduling between waves.
GPUs that run one vLLM together read and compute a part each, and add up two hidden states a token and layer
(communication.py; vLLM's own all-reduce of small tensors is quicker); its gathering of logits is neglected.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache, lru_cache

from .. import flops
from ..adapter import Adapted
from ..dataclass import dataclass, replace
from ..errors import FactError
from ..fact_types import Accelerator
from ..facts import read_data, source_from
from ..hardware import Cluster, cluster, matmul_flops_per_s
from ..memory.cache import cached_values
from ..memory.engine import WIDTH, cache_parts, in_four_bits
from ..memory.states import is_quantised, quantised_bytes
from ..moments import Traffic
from ..schema import Architecture, Attend, Basis, Matrix, Source
from ..setup import Setup
from .communication import total_s
from .efficiency import Efficiency, reach_of
from .roofline import matmul_share
from .step import work_of

UNREAD = ("vision", "audio", "projector")  # matrices that text does not pass


@dataclass(frozen=True)
class Engine:
    """Constants of the engine that makes completions: the share of the bandwidth that it reaches, seconds of a pass
    and of each sequence in it that are not the GPU's arithmetic or memory. `graphs`: it launches none of its kernels
    one by one."""

    memory: float
    pass_s: float = 0.0
    sequence_s: float = 0.0
    graphs: bool = False


@dataclass(frozen=True)
class Decoding:
    """What data/decode.toml holds: vLLM's constants, and how far published steps of GRPO lie from the formula:
    `low` and `high` times it hold the share `coverage` of `sources` sources' `steps` as they were predicted first,
    and `held` of `judged` sources that had no part in it (each left out in turn, and later ones)."""

    vllm: Engine
    low: float
    high: float
    coverage: float
    sources: int
    steps: int
    held: float
    judged: int
    basis: Basis
    origin: tuple[tuple[str, Source], ...]


_INTERVAL = ("low", "high", "coverage", "sources", "steps", "held", "judged")


@cache
def decoding() -> Decoding:
    """The constants that ship. Raises FactError where one is missing, not positive, or has no source."""
    table = json.loads(read_data("compiled", "decode.json"))
    values: dict[str, float] = {}
    origin: list[tuple[str, Source]] = []
    for entry in table.get("constant", ()):
        name, value = str(entry.get("name")), entry.get("value")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise FactError(f"decode.toml: {name} is {value!r}, expected a number above 0.")
        values[name] = float(value)
        origin.append((name, source_from(entry.get("source"), f"decode.toml: {name}")))
    missing = sorted({"memory", "pass_s", "sequence_s", *_INTERVAL} ^ set(values))
    if missing:
        raise FactError(f"decode.toml: {', '.join(missing)} missing or not known.")
    vllm = Engine(values["memory"], values["pass_s"], values["sequence_s"], True)
    return Decoding(
        vllm,
        values["low"],
        values["high"],
        values["coverage"],
        int(values["sources"]),
        int(values["steps"]),
        values["held"],
        int(values["judged"]),
        table["basis"],
        tuple(origin),
    )


@dataclass(frozen=True)
class Load:
    """What a pass of one model moves and does, of one GPU: bytes of weights by the number of sequences (`weights`),
    FLOPs of a sequence, bytes dequantised, kernels, and how many times a cached byte moves. GPUs that run one model
    together move and do a `part`, of the cache a `cache_part`, and make `reduces` sums of hidden states."""

    arch: Architecture
    setup: Setup
    width: int
    token_flops: float
    dequantised_bytes: float
    kernels: float
    cache_times: float
    weights: tuple[tuple[float, int, int], ...] = ()
    part: float = 1.0
    cache_part: float = 1.0
    reduces: int = 0


def distinct(experts: int, active: int, sequences: float) -> float:
    """Experts that at least one of so many tokens chose: experts x (1 - (1 - active / experts)^sequences), choices
    taken as even and independent. Real routers prefer some, which reads fewer."""
    if experts <= active:
        return float(experts)
    return float(experts * (1.0 - (1.0 - active / experts) ** max(sequences, 0.0)))


def _passed(matrix: Matrix) -> bool:
    """Whether a token's pass reads the whole matrix: not an embedding that is looked up."""
    return matrix.role not in UNREAD and matrix.kind != "embedding"


def weight_bytes(arch: Architecture, setup: Setup, width: int, sequences: float) -> float:
    """Bytes of weights that a pass over so many sequences reads: width x d_in x d_out of each matrix that is
    multiplied, as stored where it is quantised, of experts those that are chosen; a tied unembedding too. Norms,
    biases (under 0.1%) and rows of the embedding are neglected."""
    return read_of(_weights(arch, setup, width), sequences)


def _weights(arch: Architecture, setup: Setup, width: int) -> tuple[tuple[float, int, int], ...]:
    """Bytes that every pass reads of an expert of each matrix, its experts and how many a token takes; of matrices
    without experts all together, as of one."""
    always, chosen = 0.0, []
    for matrix in arch.matrices:
        if not _passed(matrix):
            continue
        stored = is_quantised(matrix, setup) and setup.quantize.startswith("nf4")
        each = (
            quantised_bytes(matrix, setup.quantize) / matrix.experts
            if stored
            else width * matrix.d_in * matrix.d_out
        )
        if matrix.experts > matrix.experts_active:
            chosen.append((float(matrix.copies * each), matrix.experts, matrix.experts_active))
        else:
            always += matrix.copies * matrix.experts * each
    if arch.tied_embeddings and not any(m.role == "unembedding" for m in arch.matrices):
        always += width * arch.hidden_size * arch.vocab_size
    return ((always, 1, 1), *chosen)


def read_of(weights: Iterable[tuple[float, int, int]], sequences: float) -> float:
    """Bytes that a pass over so many sequences reads of such weights."""
    return sum(size * distinct(experts, active, sequences) for size, experts, active in weights)


@lru_cache(maxsize=128)
def cache_bytes(arch: Architecture, length: int, width: int) -> float:
    """Bytes of one sequence's cached keys and values at a length, windows respected."""
    return float(width * cached_values(arch, length))


def _times(arch: Architecture, engine: Engine, setup: Setup) -> float:
    """How often a pass moves a cached byte: once in vLLM. transformers reads and writes it as a token is joined (2),
    then reads it (1), under SDPA and eager attention after writing it out for every query head (1 + heads that
    share it, read as often)."""
    if engine.graphs:
        return 1.0
    shared = [
        op.n_heads // op.n_kv_heads for b in arch.blocks for op in b.operations if isinstance(op, Attend)
    ]
    repeats = max(shared, default=1)
    return 3.0 if repeats == 1 or setup.attention_kernel == "flash" else 3.0 + 2.0 * repeats


def load_of(arch: Architecture, setup: Setup, pairs: Iterable[Adapted], engine: Engine) -> Load:
    """The load of a model with the adapter beside it (transformers), or merged into it (vLLM: `pairs` empty)."""
    adapted = tuple(pairs)
    if engine.graphs and not in_four_bits(setup):  # vLLM holds 16 bits whatever the trainer's base
        setup = replace(setup, method="lora", quantize="none", upcast_small=False)
    together = setup.vllm_tensor_parallel
    alone = replace(
        setup, seq_len=1, prompt_tokens=0, micro_batch=1, accumulation=1, gpus=1, sharding="none", shard_size=None,
        expert_parallel=1, tensor_parallel=1, objective="sft", generation="transformers", vllm_memory=None,
        vllm_sleep=False, states_asleep="none", mean_completion=None, vllm_gpus=1, vllm_tensor_parallel=1,
        packing="full", reference="base", loss="full", checkpointing="none", input_grads=False,
    )  # fmt: skip
    work = work_of(arch, alone, adapted)
    dequantised = sum(s.bytes.at(1) for s in work.sweeps if s.phase == "forward" and s.what == "dequantise")
    macs = flops.step_macs(arch, flops.Step(1, 1), adapted).forward
    width = 4 if setup.weight_dtype == "float32" and not engine.graphs else 2
    return Load(
        arch, setup, width, float(flops.FLOPS_PER_MAC * macs), dequantised, work.operations["forward"],
        _times(arch, engine, setup), _weights(arch, setup, width), 1 / together, 1 / cache_parts(arch, together),
        2 * arch.n_layers if together > 1 else 0,
    )  # fmt: skip


@dataclass(frozen=True)
class Pace:
    """A GPU's rates for passes: bytes/s, FLOP/s of matrix products, bytes/s of dequantising; kernel times, s; seconds
    of a sum over GPUs and of each of its bytes."""

    bytes_per_s: float
    flops_per_s: float
    dequantise_bytes_per_s: float
    host_s: float
    start_s: float
    reduce_s: float = 0.0
    reduce_byte_s: float = 0.0


def pace_of(machine: Cluster, setup: Setup, engine: Engine, efficiency: Efficiency) -> Pace:
    """The rates of a machine's GPU under an engine. Raises InputError where the peak is not known."""
    gpu = machine.accelerator
    moving = (gpu.bandwidth_bytes_per_s or 0.0) * engine.memory
    clocks = (gpu.units or 0) * (gpu.tensor_clock_hz or 0.0) * reach_of(gpu.name)
    dequantising = min(moving, clocks * efficiency.dequantise) if clocks else moving
    dtype = "bfloat16" if engine.graphs and setup.compute_dtype == "float32" else setup.product_format
    call_s, byte_s = reducing(gpu, setup.vllm_tensor_parallel, efficiency)
    products = matmul_flops_per_s(gpu, dtype) * matmul_share(gpu, dtype, efficiency)
    return Pace(
        moving, products, dequantising, efficiency.host_s, efficiency.start_s, call_s, byte_s,
    )  # fmt: skip


def reducing(gpu: Accelerator, together: int, efficiency: Efficiency) -> tuple[float, float]:
    """Seconds of a sum over so many GPUs of one machine, and of each byte of the tensor."""
    if together == 1:
        return 0.0, 0.0
    machine = cluster(gpu, together, per_node=together)
    one, more = (
        total_s(
            (Traffic("sums of vLLM", "all_reduce", "tensor", together, size, 1),), machine, efficiency.link
        )
        for size in (0, 10**9)
    )
    return one, (more - one) / 1e9


def reduces_s(load: Load, pace: Pace, tokens: float) -> float:
    """Seconds of a pass's sums over the GPUs that make it together."""
    each = pace.reduce_s + WIDTH * tokens * load.arch.hidden_size * pace.reduce_byte_s
    return load.reduces * each


def pass_s(
    load: Load, pace: Pace, engine: Engine, sequences: float, cached: float, read: float | None = None
) -> float:
    """Seconds of a pass over so many sequences that together have `cached` bytes of keys and values; `read` are the
    bytes of weights that it reads, where they are known."""
    weights = (read_of(load.weights, sequences) if read is None else read) / pace.bytes_per_s
    products = load.part * max(weights, sequences * load.token_flops / pace.flops_per_s)
    moved = load.cache_part * load.cache_times * cached / pace.bytes_per_s
    busy = products + moved + load.part * load.dequantised_bytes / pace.dequantise_bytes_per_s
    busy += reduces_s(load, pace, sequences)
    if engine.graphs:
        return busy + engine.pass_s + sequences * engine.sequence_s
    return max(busy + load.kernels * pace.start_s, load.kernels * pace.host_s)
