"""Setup: how a fine-tune is run, in the words of trainers, and checked. Memory, speed, search and simulation read it.

A `Setup` says what one GPU does in one micro-step (`micro_batch` sequences of `seq_len` tokens) and how many
GPUs share the work: gpus = data_parallel x tensor_parallel x pipeline_parallel x sequence_parallel. Sharding
(ZeRO, FSDP) acts over the data-parallel GPUs; expert parallelism spreads experts over them too.

For searches: at fixed choices and counts of GPUs every item of every moment of memory is linear in the micro-batch
and in the rank, and moments keep their names and number, so that a few evaluations give all coefficients.
"""

from __future__ import annotations

from typing import Any

from .choices import (
    Asleep,
    AttentionKernel,
    Checkpointing,
    Deferred,
    Dtype,
    EvalCache,
    FsdpUnits,
    Generation,
    Kernels,
    Loading,
    Loss,
    Method,
    Objective,
    Offload,
    Optimizer,
    OptimizerKernel,
    Packing,
    Placing,
    Precision,
    Quantize,
    ReduceBuckets,
    Reference,
    Sharding,
)  # fmt: skip
from .dataclass import dataclass
from .errors import InputError
from .objective_rules import COMPARED, SEQUENCES, VLLM_SHARES, check_objective
from .setup_rules import check_setup

SHARDS_PARAMETERS = ("zero3", "fsdp", "fsdp-hybrid")
SHARDS_GRADIENTS = ("zero2", *SHARDS_PARAMETERS)
SHARDS_OPTIMIZER = ("zero1", *SHARDS_GRADIENTS)


@dataclass(frozen=True)
class Setup:
    """How a fine-tune is run: words of `choices`, counts and switches, each of one GPU where nothing else is said.

    What is trained, and in which types:
    `method`: an adapter, one on a quantised base, or all weights. `quantize`: how the base is held under "qlora".
    `quantize_experts`: tensors of experts too, which transformers 5 with bitsandbytes does not quantise.
    `precision`: how the weights are held and computed with; "bf16-master" keeps float32 copies of what is trained in
        the optimizer (`masters`), "autocast" holds float32 and computes in bfloat16. `autocast`: 16-bit weights run
        under it too.
    `tf32`: float32 products run as TF32 where a chip has it (torch.backends.cuda.matmul.allow_tf32): no byte changes.
    `adapter_dtype`: the adapter's; None: float32 under autocast (PEFT casts it so), else that of the weights.
    `base_dtype`: 16 bits of the other kind that the base is held in, cast by autocast for each product (None: none).
    `upcast_small`: norms and what is not quantised in float32, as PEFT's prepare_model_for_kbit_training leaves them.
    `upcast_norms`: norms alone (TRL's before 1.0), which makes the stream float32. `lora_dropout`: a pair's.
    `frozen_towers`: full fine-tuning leaves those of images and sounds, and their projectors, as they are.

    A micro-step:
    `micro_batch` sequences of `seq_len` tokens, `accumulation` of them in a step. `packing`: they are "full", or
        shorter ones are "padded" (with a mask) or "packed" (documents apart by lengths under flash, else by a mask).
    `lengths_vary`: batches differ in length (`seq_len` is the longest): the allocator keeps blocks of many sizes, but
        for `expandable_segments`, mapped where they are wanted (PYTORCH_ALLOC_CONF). `length_records`: how often, by
        the data (`Samples.records`), in micro-steps of 1, 2, 4, ... sequences; none where they are not known.
    `checkpointing`: layers run again in the backward pass; `reentrant`: by torch's older way; `offload_buffers`: as
        many hidden states as stand on the GPU all along for what is brought back (Unsloth's).
    `input_grads`: the embedding's output needs a gradient, as HF has it with checkpointing; None follows that.
    `attention_kernel`: who computes attention; `kernels`: whose elementwise code runs, which decides what is kept.
    `quantised_inputs_kept`: products with a quantised matrix keep what they read, as bitsandbytes' 4-bit ones did
        before 0.43.2; `before_held`: to the end of the next forward pass, as the loop holds its last loss.
    `squares_kept`: RMSNorm keeps the squares of what it reads, as torch's mean did before 2.2. `copy_shared`: all
        products make a quantised matrix whole in one buffer (Unsloth's). `fused_heads`: heads are made as one, of
        which values stay a view; grouped ones are copied for every query's head.
    `cache_held`: every layer's keys and values are held to the end of the forward pass, in a cache that checkpointing
        did not switch off; None: where the model's own code of then did so.
    `loss`: how logits become a loss; `loss_chunk` tokens at a time in a chunked one ("split": positions of
        every sequence; "chunked-vocabulary": all tokens, and so many entries of the vocabulary).
    `outputs_held`: the loop keeps the model's output, logits among it, until the backward pass has ended.
    `outputs_widened`: under autocast it is handed float32 copies of 16-bit logits, as accelerate makes them.

    What is learnt:
    `objective`: of an example its tokens ("sft"), a preference between two sequences ("dpo", "orpo"), whether one is
        wanted ("kto"), or completions of prompts by their rewards ("grpo").
    `reference`: what it is held against: the "base" (the model without its adapter, in full a copy, in the
        host if `reference_offloaded`), run without gradients (GRPO's before the step), "precomputed", or "none".
    `prompt_tokens` of a sequence are its prompt, the rest its completion. `mean_completion`: tokens of a completion
        on average; None: all as long as `seq_len` lets them be.
    `generation`: the trained model makes completions ("transformers"), a "server" on other GPUs, or a vLLM on those
        that train, with a base of its own ("colocate", as TRL's) or with weights that the trainer reads ("shared", as
        Unsloth's). It takes the share `vllm_memory` of `gpu_bytes` (None: 0.3 as TRL, shared 0.5 as Unsloth), and
        with `vllm_sleep` gives it back before the step; `states_asleep` wait in the host while it runs. A server has
        `vllm_gpus`, `vllm_tensor_parallel` a vLLM.
    `eval_batch`: sequences of an evaluation between steps, 0 where there is none. `eval_cache`: its forward pass
        (and a step's, where no layers run again) fills a cache, "kept", or "widened" to float32 on the way out.

    Gradients and the optimizer:
    `optimizer`, and `optimizer_kernel`: how AdamW runs: fused (HF's Trainer), foreach (torch's default on CUDA) or a
        loop over tensors. `optimizer_in_backward`: it steps as soon as a gradient is there, which then goes.
    `main_grads`: gradients are added up in a float32 buffer that stands all along, whole on each GPU, as Megatron's.
    `deferred_gradients`: FSDP exchanges none before the last micro-step: held whole, as computed or in float32.
    `reduced_wide`: FSDP 2 reduces gradients in float32, whatever they are made in (its policy's reduce_dtype).
    `gradients_kept`: they are set to zero after a step, not dropped, as torch's zero_grad did before 2.0.
    `gradients_late`: they are dropped behind the next forward pass alone, where zero_grad stands before backward().

    Several GPUs:
    `gpus`, of which `tensor_parallel` share matrices, `pipeline_parallel` layers, `sequence_parallel` sequences
        (Ulysses; `keys_gathered`: each holds all keys and values, as under torch's) and `expert_parallel` experts.
        `split_stream`: hidden states between matrices are divided among those that share these (Megatron's).
    `sharding`: how states are spread over the others. `shard_size` GPUs share a copy under "fsdp-hybrid" (None: all).
    `fsdp_units`: what FSDP gathers as a unit: "pairs", as PEFT's policy has it, each factor of each pair apart from
        its layer, so that no layer is gathered while another runs; "flat", FSDP 1 with a layer in one flat parameter,
        whose gradient is as large as the layer, frozen or not; "layers", FSDP 2, and "layers-ends" with embedding
        and unembedding units of their own where they are not tied; "modules", FSDP 1 with every matrix
        a unit, as a policy by size with a small limit makes it; "whole", without a policy, with the model as one.
    `gathered_kept`: without checkpointing ZeRO-3's gathered weights stay for the way back, as by torch's Linear.
    `reduce_buckets`: through what ZeRO reduces gradients: "fitted", as large as they are at the most; "one", of
        DeepSpeed's default size, however few parameters are trained; "two", under ZeRO-1 and 2 with overlap_comm.
    `offload`: states, or also parameters, are in the host's memory. `trainer`: the profile that filled the fields.
    `workspace_bytes`: what a thread's products work in, by the kind of GPU (`hardware.workspace_bytes`).

    Before the first step (`memory.loading` has what each word means):
    `loading`: how the base gets onto a GPU, `placing`: how parameters are spread over several; `prepared_wide`: all
        that is not quantised is float32 for a while.
    """

    method: Method = "lora"
    precision: Precision = "bf16"
    optimizer: Optimizer = "adamw"
    checkpointing: Checkpointing = "none"
    reentrant: bool = False
    offload_buffers: int = 0
    attention_kernel: AttentionKernel = "sdpa"
    micro_batch: int = 1
    seq_len: int = 2048
    accumulation: int = 1
    packing: Packing = "full"
    lengths_vary: bool = False
    length_records: tuple[float, ...] = ()
    expandable_segments: bool = False
    loss: Loss = "full"
    loss_chunk: int = 4096
    objective: Objective = "sft"
    reference: Reference = "base"
    generation: Generation = "transformers"
    prompt_tokens: int = 0
    reference_offloaded: bool = False
    vllm_memory: float | None = None
    vllm_sleep: bool = False
    states_asleep: Asleep = "none"
    gpu_bytes: int = 0
    vllm_gpus: int = 1
    vllm_tensor_parallel: int = 1
    mean_completion: int | None = None
    eval_batch: int = 0
    eval_cache: EvalCache = "none"
    quantize: Quantize = "none"
    adapter_dtype: Dtype | None = None
    base_dtype: Dtype | None = None
    autocast: bool = False
    tf32: bool = False
    kernels: Kernels = "transformers"
    lora_dropout: float = 0.0
    upcast_small: bool = False
    quantize_experts: bool = False
    upcast_norms: bool = False
    frozen_towers: bool = False
    outputs_held: bool = False
    outputs_widened: bool = False
    cache_held: bool | None = None
    quantised_inputs_kept: bool = False
    before_held: bool = False
    fused_heads: bool = False
    squares_kept: bool = False
    copy_shared: bool = False
    input_grads: bool | None = None
    optimizer_kernel: OptimizerKernel = "fused"
    optimizer_in_backward: bool = False
    main_grads: bool = False
    deferred_gradients: Deferred = "none"
    reduced_wide: bool = False
    gradients_kept: bool = False
    gradients_late: bool = False
    gpus: int = 1
    sharding: Sharding = "none"
    fsdp_units: FsdpUnits = "pairs"
    gathered_kept: bool = False
    reduce_buckets: ReduceBuckets = "fitted"
    shard_size: int | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    expert_parallel: int = 1
    sequence_parallel: int = 1
    split_stream: bool = False
    keys_gathered: bool = False
    offload: Offload = "none"
    loading: Loading = "unknown"
    prepared_wide: bool = False
    placing: Placing = "unknown"
    trainer: str = "plain"
    workspace_bytes: int = 8_519_680

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the field and what would do."""
        check_setup(self)
        check_objective(self)

    @property
    def data_parallel(self) -> int:
        """GPUs that each see other sequences."""
        return self.gpus // (self.tensor_parallel * self.pipeline_parallel * self.sequence_parallel)

    @property
    def global_batch(self) -> int:
        """Sequences in an optimizer step."""
        return self.micro_batch * self.accumulation * self.data_parallel

    @property
    def shards(self) -> int:
        """GPUs over which states are sharded: the data- and sequence-parallel ones (hybrid: one group of them)."""
        if self.sharding in ("none", "ddp"):
            return 1
        spread = self.data_parallel * self.sequence_parallel
        return self.shard_size or spread if self.sharding == "fsdp-hybrid" else spread

    def expert_shards(self, over: int) -> int:
        """Over how many GPUs an expert is sharded where other states are over `over`: those that hold the same
        experts, since expert-parallel GPUs are among them."""
        return max(1, over // self.expert_parallel)

    @property
    def sequences(self) -> int:
        """Sequences of a micro-step: chosen and rejected ones together where examples are pairs."""
        return self.micro_batch * SEQUENCES.get(self.objective, 1)

    @property
    def tokens(self) -> int:
        """Tokens of a micro-step on one GPU."""
        return self.sequences * self.seq_len // self.sequence_parallel

    @property
    def vllm_share(self) -> float:
        """The share of a GPU's memory that a vLLM beside the trainer takes."""
        return VLLM_SHARES.get(self.generation, 0.0) if self.vllm_memory is None else self.vllm_memory

    @property
    def runs_reference(self) -> bool:
        """Whether a reference runs in every micro-step."""
        return self.objective in (*COMPARED, "grpo") and self.reference == "base"

    @property
    def reference_inside(self) -> bool:
        """Whether it runs between the forward and the backward pass; GRPO's runs before both."""
        return self.runs_reference and self.objective != "grpo"

    @property
    def drops(self) -> bool:
        """Whether dropout is on: trainers of preferences switch it off."""
        return self.objective in ("sft", "grpo")

    @property
    def copies_base(self) -> bool:
        """Whether a second copy of the weights is held as the reference."""
        return self.runs_reference and self.method == "full" and not self.reference_offloaded

    @property
    def under_autocast(self) -> bool:
        """Whether operations choose their precision under autocast."""
        return self.autocast or self.precision == "autocast"

    @property
    def compute_dtype(self) -> Dtype:
        """What matrix products run in."""
        if self.precision == "fp32":
            return "float32"
        return "float16" if self.precision == "fp16" else "bfloat16"

    @property
    def product_format(self) -> str:
        """The format that matrix products are counted in."""
        return "tfloat32" if self.tf32 and self.compute_dtype == "float32" else self.compute_dtype

    @property
    def weight_dtype(self) -> Dtype:
        """What base weights are held in where they are not quantised."""
        held: Dtype = "float32" if self.precision in ("fp32", "autocast") else self.compute_dtype
        return self.base_dtype or held

    @property
    def trained_dtype(self) -> Dtype:
        """What trained parameters (the adapter's, or all) are held in."""
        if self.method == "full":
            return self.weight_dtype
        return self.adapter_dtype or ("float32" if self.under_autocast else self.weight_dtype)

    @property
    def masters(self) -> bool:
        """Whether the optimizer keeps float32 copies of what is trained: DeepSpeed's of all 16 bits under ZeRO, where
        full fine-tuning does not say that bfloat16 is all (deepspeed/runtime/zero/stage_1_and_2.py,
        single_partition_of_fp32_groups; stage3.py, fp32_partitioned_groups_flat)."""
        if self.precision == "bf16-master":
            return True
        narrow = self.sharding.startswith("zero") and self.trained_dtype != "float32"
        return narrow and (self.method != "full" or self.precision == "fp16")

    @property
    def needs_input_grads(self) -> bool:
        """Whether the embedding's output needs a gradient though nothing below it is trained."""
        return self.checkpointing != "none" if self.input_grads is None else self.input_grads

    @property
    def states_sharded(self) -> bool:
        """Whether optimizer states are sharded."""
        return self.sharding in SHARDS_OPTIMIZER

    @property
    def gradients_sharded(self) -> bool:
        """Whether gradients are sharded."""
        return self.sharding in SHARDS_GRADIENTS

    @property
    def parameters_sharded(self) -> bool:
        """Whether parameters are sharded and gathered for use."""
        return self.sharding in SHARDS_PARAMETERS

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return {**vars(self), "length_records": list(self.length_records)}


def split_batch(batch: int, *, data_parallel: int, accumulation: int) -> int:
    """Sequences of a GPU's micro-step where a step has `batch`: batch / (data_parallel x accumulation).

    Raises InputError naming the nearest batch that can be split so.
    """
    pieces = data_parallel * accumulation
    if batch % pieces == 0:
        return batch // pieces
    near = sorted({max(1, batch // pieces) * pieces, (batch // pieces + 1) * pieces})
    raise InputError(
        "batch", batch, f"a multiple of {pieces} ({data_parallel} data-parallel GPUs x {accumulation} micro-steps)",
        f"The nearest is {' or '.join(map(str, near))}.",
    )  # fmt: skip
