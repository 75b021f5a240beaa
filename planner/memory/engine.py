"""vLLM on the GPUs that train: what it takes of a card, and how many completions its cache holds.

    taken     = share x the card's memory                      (gpu_memory_utilization: by definition)
    cache     = taken - weights - profiled - GRAPHS
    profiled  = WIDTH x PROFILED x (4 hidden + widest) + SAMPLED x sequences x vocabulary
    sequences = floor(cache / bytes of a sequence, its length rounded up to blocks of BLOCK tokens)

On `vllm_tensor_parallel` GPUs together each holds its part of the weights and of the heads' keys and values (a head
whole where the GPUs are more; DeepSeek's latent whole), and makes the completions of all of them.

When it starts vLLM runs a pass over PROFILED tokens without a cache, takes off what that needed, and fills the rest
of its share with cache. TRL's colocated vLLM holds a base of its own, in 16 bits or bitsandbytes' 4, into which each
step's merged weights are copied; Unsloth's model reads vLLM's ("shared"). Asleep, vLLM has given its weights and
cache back (of a shared base the cache alone); its graphs stay. Where no card is named, vLLM is taken to hold all
completions of a step at a time.

Neglected: that torch's allocator can hand the profiled pass's blocks to the trainer, who shares the process (up to 2%
of a card too much); blocks that a model of several kinds of layers cannot fill.
Sources: trl 1.16, trl/generation/vllm_generation.py (VLLMGeneration) and trainer/grpo_trainer.py; vLLM at 0012cf69,
vllm/v1/worker/gpu_worker.py (determine_available_memory, sleep), whose later versions take the graphs off too.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ..choices import Method, Quantize
from ..dataclass import dataclass
from ..errors import InputError
from ..objective_rules import SHARES_GPU
from ..schema import Architecture, Attend, Matrix
from ..setup import Setup
from .cache import LATENT, cached_values
from .states import base_weights

WIDTH = 2  # bytes of a value: vLLM computes and caches in 16 bits
BLOCK = 16  # tokens of a block of the cache
PROFILED = 4096  # max_num_batched_tokens, as TRL sets it
GRAPHS = 750_000_000  # CUDA graphs, and what a library takes beside torch; assumed, see docs/methods.md
SERVED = 0.9  # of a server's GPU: gpu_memory_utilization of `trl vllm-serve`
SAMPLED = 16  # bytes of an entry of the logits that are sampled from: float32 thrice, and the order of a sort
MOST = 1.0  # of a card


@dataclass(frozen=True)
class Engine:
    """vLLM on one GPU. `taken_bytes` while it makes completions, `asleep_bytes` while the trainer steps; both hold
    `weights_bytes` where these are not shared. `cache_bytes` hold `sequences` completions of `wanted`."""

    share: float | None  # None: no card is named
    shared: bool
    sleeps: bool
    taken_bytes: int
    asleep_bytes: int
    weights_bytes: int
    profiled_bytes: int
    graphs_bytes: int
    cache_bytes: int
    sequence_bytes: int
    wanted: int
    tensor_parallel: int = 1

    @property
    def sequences(self) -> int:
        """Completions, with their prompts, whose keys and values fit at a time."""
        return (
            min(self.wanted, self.cache_bytes // self.sequence_bytes) if self.sequence_bytes else self.wanted
        )

    @property
    def beside_bytes(self) -> int:
        """What it takes beside the trainer's own weights while it makes completions."""
        return self.taken_bytes - (self.weights_bytes if self.shared else 0)

    def bytes_for(self, sequences: int) -> int:
        """What holds so many completions at a time."""
        fixed = self.weights_bytes + self.profiled_bytes + self.graphs_bytes
        return fixed + sequences * self.sequence_bytes

    def share_for(self, sequences: int) -> float | None:
        """The share of the card that holds so many; None where no card is named."""
        return None if self.share is None else self.bytes_for(sequences) / (self.taken_bytes / self.share)

    def to_dict(self) -> dict[str, Any]:
        """The contract's `grpo.vllm`."""
        return {
            **vars(self), "sequences": self.sequences, "beside_bytes": self.beside_bytes,
            "share_for_all": self.share_for(self.wanted),
        }  # fmt: skip


def in_four_bits(setup: Setup) -> bool:
    """Whether vLLM's base is in four bits: beside a trainer's that is. A server has no option for it (trl 1.16,
    scripts/vllm_serve.py)."""
    return setup.quantize in ("nf4", "nf4-double") and setup.generation in SHARES_GPU


def engine_weights(arch: Architecture, setup: Setup) -> int:
    """Bytes of vLLM's base: 16 bits, or bitsandbytes' 4 where it runs beside a trainer whose base is held so."""
    own: Quantize = setup.quantize if in_four_bits(setup) else "none"
    method: Method = "lora" if own == "none" else "qlora"
    found = base_weights(arch, Setup(method=method, quantize=own))
    return sum(found.layers) + found.before + found.behind


def _reach(matrix: Matrix) -> int:
    """Values of a token that a matrix makes and reads."""
    return matrix.experts_active * (matrix.d_in + matrix.d_out)


def profiled_bytes(arch: Architecture, sequences: int, together: int = 1, tokens: int = PROFILED) -> int:
    """Bytes of the pass by which vLLM finds out what it needs: 2 bytes x its tokens x (4 hidden states and the
    widest layer's products, of these a GPU's part), and SAMPLED bytes for each entry of the logits of so many
    sequences."""
    inside = [
        m for m in arch.matrices if m.role not in ("embedding", "unembedding", "vision", "audio", "projector")
    ]
    widest = max((_reach(matrix) for matrix in inside), default=0)
    return (
        WIDTH * tokens * (4 * arch.hidden_size + -(-widest // together))
        + SAMPLED * sequences * arch.vocab_size
    )


def sequence_bytes(arch: Architecture, length: int) -> int:
    """Bytes of the keys and values of a sequence: WIDTH x what every layer caches of its tokens, in whole blocks."""
    return WIDTH * cached_values(arch, -(-length // BLOCK) * BLOCK)


def cache_parts(arch: Architecture, together: int) -> int:
    """Parts into which GPUs that run one vLLM together divide its cache: as many as there are of them, or heads of
    keys and values where these are fewer; a latent stands whole on each."""
    if together == 1:
        return 1
    heads = [op.n_kv_heads for b in arch.blocks for op in b.operations if isinstance(op, Attend)]
    latent = any(matrix.leaf in LATENT for matrix in arch.matrices)
    return 1 if latent else min([together, *heads])


def _on_a_gpu(arch: Architecture, setup: Setup, wanted: int) -> Engine:
    """What vLLM needs of a GPU for so many completions, before it is known what it takes."""
    together = setup.vllm_tensor_parallel
    return Engine(
        share=None, shared=setup.generation == "shared", sleeps=setup.vllm_sleep, taken_bytes=0, asleep_bytes=0,
        weights_bytes=-(-engine_weights(arch, setup) // together), graphs_bytes=GRAPHS, cache_bytes=0, wanted=wanted,
        profiled_bytes=profiled_bytes(arch, wanted, together), tensor_parallel=together,
        sequence_bytes=-(-sequence_bytes(arch, setup.seq_len) // cache_parts(arch, together)),
    )  # fmt: skip


def served(arch: Architecture, setup: Setup, room: int | None) -> Engine:
    """One vLLM of a server, on a GPU with so much room; without any it holds all. Raises InputError where its GPUs
    hold not even one completion."""
    engines = setup.vllm_gpus // setup.vllm_tensor_parallel
    found = _on_a_gpu(arch, setup, math.ceil(setup.global_batch / engines))
    taken = found.bytes_for(found.wanted) if room is None else int(SERVED * room)
    if taken < found.bytes_for(1):
        raise InputError(
            "vllm-tensor-parallel", found.tensor_parallel, "more GPUs for each vLLM of the server",
            f"One completion needs {found.bytes_for(1) / 2**30:.1f} GiB of each, of which vLLM takes "
            f"{taken / 2**30:.1f}.",
        )  # fmt: skip
    return replace(found, taken_bytes=taken, asleep_bytes=taken, cache_bytes=taken - found.bytes_for(0))


@lru_cache(maxsize=256)
def engine(arch: Architecture, setup: Setup) -> Engine | None:
    """vLLM beside this trainer; None where none runs on its GPUs. Raises InputError where its share holds not even
    one completion, naming the share that does."""
    if setup.generation not in SHARES_GPU:
        return None
    wanted = setup.micro_batch * setup.accumulation * setup.vllm_tensor_parallel
    found = _on_a_gpu(arch, setup, wanted)
    taken = round(setup.vllm_share * setup.gpu_bytes) if setup.gpu_bytes else found.bytes_for(wanted)
    kept = GRAPHS + (found.weights_bytes if found.shared else 0)
    done = replace(
        found, share=setup.vllm_share if setup.gpu_bytes else None, taken_bytes=taken,
        asleep_bytes=kept if setup.vllm_sleep else taken,
        cache_bytes=max(0, taken - found.bytes_for(0)),
    )  # fmt: skip
    if taken < found.bytes_for(1):
        _refuse(done, setup)
    return done


def _refuse(found: Engine, setup: Setup) -> None:
    """Raise InputError with the share that holds one completion."""
    gib, least = 2**30, found.bytes_for(1) / setup.gpu_bytes
    text = (
        f"It holds vLLM's weights ({found.weights_bytes / gib:.1f} GiB), what a pass needs "
        f"({(found.profiled_bytes + found.graphs_bytes) / gib:.1f} GiB) and a completion of {setup.seq_len:,} tokens."
    )
    more = f"at least {math.ceil(least * 100) / 100:.2f} of the GPU"
    if least > MOST:
        more = f"larger GPUs, or more for each vLLM (--vllm-tensor-parallel): it would take {least:.2f} of this one"
    raise InputError("vllm-memory", found.share, more, text)


def awake(found: Engine | None) -> int:
    """Bytes beside the trainer's own while completions are made."""
    return 0 if found is None else found.beside_bytes


def beside(found: Engine | None) -> int:
    """Bytes beside the trainer's own while it steps."""
    if found is None:
        return 0
    return found.asleep_bytes - (found.weights_bytes if found.shared else 0)
