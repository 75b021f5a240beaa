"""From the operations of a layer, what is trained and how it is run to its work.

The walk over operations follows automatic differentiation as planner/flops.py does, and the FLOPs of its products sum
to that count (a test compares the two); here each product keeps its own size, because small ones are bound by memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from ..adapter import Adapted, Pair
from ..adapter.whole import Whole
from ..choices import DTYPE_BYTES
from ..flops import chunk_sum, compressed_pairs, visible_pairs
from ..memory.traits import traits_of
from ..schema import Apply, Architecture, Attend, Block, Join, Keep, Matrix, Product, Recall, Scan
from ..setup import Setup
from ..trainers import one_of
from .styles import (
    CAPPED_SCORES,
    CAST,
    EAGER_SCORES,
    LAYERS,
    SORTED,
    Cost,
    Style,
    compiles_loss,
    loss_cost,
    norms,
    style_of,
    takes_mask,
    wide_between,
)
from .sums import Sums
from .work import Kind, Linear, Pass, Phase
from .work import Product as Matmul

# Bytes a stored weight of a quantised base, read when it is dequantised.
STORED = {"nf4": 0.5625, "nf4-double": 0.515875, "int8": 1.0, "fp8": 1.0}
# Bytes an output of a product under LLM.int8() beside the product, and kernels. Bytes: in the paper (arXiv
# 2208.07339, appendix on speed-ups) a forward product of d x 4d loses 1/0.86 - 1/1.67 = 0.56 of the 16-bit product's
# time at d = 4096 and 1/0.51 - 1/1.61 = 1.34 at 2048, about 2,400 / d; at an A100's 250 TFLOP/s and 1.35 TB/s that is
# 2,400 / d x 2d FLOPs = 26 bytes. Kernels: those of bitsandbytes' MatMul8bitLt, counted.
INT8_BYTES, INT8_KERNELS = 26.0, 15
# Bytes a weight before a gradient's product: converted and scaled. Trainers of 2023 ran bitsandbytes that also undid
# the weights' layout each time (0.37 to 0.44, autograd/_functions.py, undo_layout): LLaMA 13B on an A100 took 52.3 s
# a step of 32 micro-steps in 8 bits, 21.8 s in 16 (h2oai/h2ogpt, issue 128): 73 ps a weight, of which 4 are the
# conversion. What is left is the work of kernels that find each byte's place: they wait for integer units as
# dequantising does, at whose 0.31 TB/s on an A100 69 ps are 22 bytes. By memory alone, as it was taken before, an RTX
# 3090 would need 157 ps where whole steps take 100 and 125 (Chinese-Vicuna; model card Yoshiii/alpaca), an RTX 4090
# 146 where one takes 81 (tloen/alpaca-lora, issue 121).
INT8_WEIGHT_BYTES, INT8_LAYOUT_BYTES, INT8_LAYOUT = 7.0, 22.0, ("hf-trainer-4", "alpaca-lora-2023")
# Outputs of a product that a multiprocessor computes at a time, each way: 128 x 128 is the usual tile of the
# libraries' kernels (NVIDIA, Matrix Multiplication Background User's Guide).
TILE = 128
# What filling a tile's pipeline, four stages of 64 deep, and writing its outputs cost, as so many of the sum's terms.
FILL = 256
MLP_ROLES = ("mlp", "expert", "shared_expert")


def _product(m: Linear, k: float, n: float, width: float, out: float) -> tuple[Linear, Linear]:
    """FLOPs 2mkn and bytes of an m x k by k x n product, each operand once; m rows are linear in the batch."""
    return m.times(2 * k * n), m.times(k * width + n * out).plus(Linear(k * n * width))


@lru_cache(maxsize=4096)
def thin(m: Linear, k: float, n: float, width: float) -> Matmul:
    """A low-rank product: bound by memory, so that tiles do not count."""
    flops, moved = _product(m, k, n, width, width)
    return Matmul(flops, moved, flops)


@lru_cache(maxsize=4096)
def tiled(m: Linear, k: float, n: float, width: float, together: float = 1.0) -> Matmul:
    """A product whose kernel covers m x n outputs with whole square tiles of TILE, exactly for one sequence and on
    average for more:

        2 (k + FILL) (m + spare) ceil(n / TILE) TILE FLOPs,  and 2 (k + FILL) TILE^2 for each tile of a wave.

    `together` products share a kernel and so its last wave. What libraries pick instead where it is better (smaller
    tiles, splits along k) is left to the constant `wave`.
    """
    flops, moved = _product(m, k, n, width, width)
    spare = Linear(-(m.fixed + m.sequence) % TILE)
    covered = m.plus(spare).times(2 * (k + FILL) * (n + -n % TILE))
    return Matmul(flops, moved, covered, 2 * (k + FILL) * TILE**2 / together)


class Walk:
    """Gathers the work of the blocks of a model."""

    def __init__(
        self,
        arch: Architecture,
        setup: Setup,
        trained: Mapping[int, tuple[Adapted, ...]] | None,
        whole: Whole,
    ) -> None:
        self.arch, self.setup, self.trained, self.whole = arch, setup, trained, whole
        self.style: Style = style_of(setup)
        self.traits = traits_of(arch)
        self.width = DTYPE_BYTES[setup.compute_dtype]
        self.wide = wide_between(setup)
        self.stream_scale = 2.0 if setup.upcast_small and self.width == 2 else 1.0
        self.sums = Sums()
        self.split = setup.tensor_parallel
        self.recompute = setup.checkpointing != "none"
        self.selective, self.products = setup.checkpointing == "selective", 0
        self.kept: dict[str, bool] = {}
        pieces = [item for items in (trained or {}).values() for item in items]
        self.uniform = all(item.layers == item.matrix.layers for item in pieces) and not (
            whole.matrices or whole.biases
        )

    def rows(self, length: int) -> Linear:
        """Positions of a micro-batch of B sequences."""
        return Linear(0.0, length / self.setup.sequence_parallel)

    def passes(
        self, what: Pass, cost: Cost, elements: float, phases: float = 1.0, again: bool = False
    ) -> None:
        """Elementwise work on so many elements a sequence, and its recompute."""
        streamed = what in ("norm", "residual") or (self.wide and what in ("activation", "rotary", "scores"))
        scale = self.width / 2 * (self.stream_scale if streamed else 1.0)
        share = elements / self.setup.sequence_parallel
        self.sums.sweep(what, "forward", Linear(0.0, share * cost.forward_bytes * scale))
        back = cost.backward_bytes + (cost.forward_bytes if again else 0)
        self.sums.sweep(what, "backward", Linear(0.0, share * back * scale))
        self.sums.launch("forward", cost.forward_operations * phases)
        self.sums.launch("backward", (cost.backward_operations + cost.forward_operations * again) * phases)

    def adapted(self, index: int, layer: int) -> Adapted | None:
        """The pairs of a matrix in a layer."""
        items = self.trained.get(index, ()) if self.trained else ()
        return next((item for item in items if layer in item.layers), None)

    def block(self, block: Block, layer: int, length: int, memory: int, needs: list[bool]) -> bool:
        """Add one layer; whether its output needs a gradient."""
        again, self.products = self.recompute and block.stack in LAYERS, 0
        last = len(block.operations) - 1
        while last >= 0 and not isinstance(block.operations[last], (Apply, Product)):
            last -= 1
        for number, op in enumerate(block.operations):
            kept = again and not (block.open_end and number == last)
            if isinstance(op, Apply):
                needs.append(
                    self.apply(op, layer, memory if op.length == "memory" else length, needs, again, kept)
                )
            elif isinstance(op, Attend):
                needs.append(self.attend(op, length, memory, needs, again))
            elif isinstance(op, Join):
                needs.append(any(needs[source] for source in op.sources))
            elif isinstance(op, Keep):
                self.kept = {**self.kept, op.name: needs[op.source]}
                needs.append(needs[op.source])
            elif isinstance(op, Recall):
                needs.append(self.kept[op.name])
            else:
                needs.append(self.scan(op, length, needs, kept))
        self.elementwise(block, layer, length, again)
        return needs[block.out]

    def apply(self, op: Apply, layer: int, length: int, needs: list[bool], again: bool, kept: bool) -> bool:
        """A weight matrix: forward, recompute, gradients of input and weight, its pairs."""
        matrix, grad = self.arch.matrices[op.matrix], needs[op.source]
        layer = layer if op.layer is None else op.layer
        positions = length if self.recompute else max(length, op.at_least)
        rows = self.rows(positions * op.times // op.per + op.extra)
        experts = matrix.experts if op.all_experts else matrix.experts_active
        stopped = op.forward_only or length < op.gradient_from
        full = self.trained is None or layer in self.whole.matrices.get(op.matrix, ())
        frozen = not full or stopped
        item = None if op.bypassed else self.adapted(op.matrix, layer)
        counted = matrix.kind in ("linear", "conv1d") and matrix.role != "router"
        chosen = counted and self.chooses(matrix.bias)
        base_again = again and not chosen and (kept or (item is not None and not full))
        ahead = (
            self.in_int8 if frozen and self.quantised(matrix) and self.setup.quantize == "int8" else self.base
        )
        ahead(matrix, rows, experts, "forward")
        if base_again:
            ahead(matrix, rows, experts, "backward")
        if frozen and self.quantised(matrix):
            self.dequantise(matrix, 1, base_again, bool(grad and not stopped))
            if self.wide:
                elements = positions * (matrix.d_in + matrix.d_out / self.split) * experts
                self.passes("quantise", CAST, elements, 2.0, base_again)
        if not stopped:
            for _ in range(grad + full):
                self.base(matrix, rows, experts, "backward")
        if item is not None and not full:
            self.pairs(item, rows, grad, again, kept, stopped)
            return not stopped
        return not stopped and (full or grad or layer in self.whole.biases.get(op.matrix, ()))

    def chooses(self, biased: bool = False) -> bool:
        """Whether selective checkpointing keeps the result of the next product, as flops has it."""
        self.products += not biased
        return self.selective and (biased or self.products % 2 == 1)

    def base(self, matrix: Matrix, rows: Linear, experts: int, phase: Phase) -> None:
        """A product with the base matrix, each expert's apart; kernels of a library's own launch them as one. Where
        GPUs share the experts, each has fewer products of more positions: neglected."""
        n = matrix.experts if matrix.kind == "experts" else 1
        share = rows.times(experts / n)
        loops = n > 1 and self.setup.kernels in ("transformers", "litgpt", "pairs")
        dtype = "float32" if self.wide and not self.quantised(matrix) else self.setup.compute_dtype
        found = tiled(share, matrix.d_in, matrix.d_out / self.split, DTYPE_BYTES[dtype], 1 if loops else n)
        self.sums.gemm("base", phase, dtype, found, n)
        self.sums.launch(phase, self.style.module.forward_operations * (4 * n if loops else 1))

    def in_int8(self, matrix: Matrix, rows: Linear, experts: int, phase: Phase) -> None:
        """A forward product of LLM.int8(): positions and columns scaled and rounded, the product in int8, its int32
        result scaled back, outlying columns apart in 16 bits and added; the outliers' count comes back to the host
        each time. Bytes: INT8_BYTES for each output."""
        n = matrix.experts if matrix.kind == "experts" else 1
        share, d_out = rows.times(experts / n), matrix.d_out / self.split
        whole = tiled(share, matrix.d_in, d_out, self.width)
        found = Matmul(whole.flops, whole.bytes.times(1 / self.width), whole.tiled, whole.tile)
        self.sums.gemm("base", phase, "int8", found, n)
        self.sums.sweep("quantise", phase, share.times(n * d_out * INT8_BYTES))
        self.sums.launch(phase, n * INT8_KERNELS)

    def quantised(self, matrix: Matrix) -> bool:
        """Whether the base is held in fewer bits: linear layers but for the unembedding."""
        wide = matrix.role in ("embedding", "unembedding") or matrix.kind in ("embedding", "convolution")
        return self.setup.quantize != "none" and not wide

    def dequantise(self, matrix: Matrix, forward: int, again: int, grad: int) -> None:
        """Write the matrix in 16 bits from its stored form, once for each product that needs it: under LLM.int8()
        that of the input's gradient alone, whose weights are converted, then scaled."""
        size = matrix.d_in * matrix.d_out * matrix.experts / self.split
        if self.setup.quantize == "int8":
            self.sums.sweep("quantise", "backward", Linear(grad * size * INT8_WEIGHT_BYTES))
            if one_of(self.setup.trainer, INT8_LAYOUT):
                self.sums.sweep("dequantise", "backward", Linear(grad * size * INT8_LAYOUT_BYTES))
            self.sums.launch("backward", 2 * grad)
            return
        backward = again + grad
        moved = Linear(size * (STORED[self.setup.quantize] + self.width))
        self.sums.sweep("dequantise", "forward", moved.times(forward))
        self.sums.sweep("dequantise", "backward", moved.times(backward))
        kernels = 2 if self.setup.quantize == "nf4-double" else 1
        self.sums.launch("forward", forward * kernels)
        self.sums.launch("backward", backward * kernels)

    def pairs(self, item: Adapted, rows: Linear, grad: bool, again: bool, kept: bool, stopped: bool) -> None:
        """The low-rank products of a matrix and what joins them to its output."""
        for number, pair in enumerate(item.pairs):
            if pair.materialised:
                self.materialised(item.matrix, pair, rows, again)
                continue
            skipped = number == len(item.pairs) - 1 and not kept and not pair.magnitudes
            down, up = rows.times(pair.uses_in), rows.times(pair.uses_out)
            a = (down, float(pair.d_in), float(pair.rank))
            b = (up, float(pair.rank), float(pair.d_out))
            self.low_rank("forward", a, b)
            chosen = self.chooses(), self.chooses()
            if again:
                self.low_rank("backward", None if chosen[0] else a, None if skipped or chosen[1] else b)
            if not stopped:
                self.low_rank("backward", a if grad else None, b)
                self.low_rank("backward", a, b)
            if pair.magnitudes:
                self.norms_of(pair, again)
                if self.setup.lora_dropout > 0 and self.setup.drops:  # W of what dropout left
                    self.base(item.matrix, rows, item.matrix.experts_active, "forward")
                    for _ in range(again + grad * (not stopped)):
                        self.base(item.matrix, rows, item.matrix.experts_active, "backward")
            self.joined(pair, rows, again)

    def low_rank(
        self, phase: Phase, a: tuple[Linear, float, float] | None, b: tuple[Linear, float, float] | None
    ) -> None:
        """The products with A and B, in the format that the adapter computes in."""
        dtype = self.setup.compute_dtype if self.setup.under_autocast else self.setup.trained_dtype
        width = DTYPE_BYTES[dtype]
        for factor in (a, b):
            if factor is not None:
                self.sums.gemm("adapter", phase, dtype, thin(*factor, width))
                self.sums.launch(phase, 1)

    def materialised(self, matrix: Matrix, pair: Pair, rows: Linear, again: bool) -> None:
        """PEFT's product B A of every expert, forward (twice with several) and twice backward, and the gradient of
        the whole expert tensor."""
        one = 2.0 * matrix.d_in * matrix.d_out * pair.rank
        moved = Linear(self.width * matrix.d_in * matrix.d_out)
        n, dtype = matrix.experts, self.setup.compute_dtype
        forward = n * (2 if n > 1 else 1)
        found = Matmul(Linear(one), moved, Linear(one))
        self.sums.gemm("adapter", "forward", dtype, found, forward)
        self.sums.gemm("adapter", "backward", dtype, found, 2 * n + (forward if again else 0))
        self.base(matrix, rows, matrix.experts_active, "backward")

    def norms_of(self, pair: Pair, again: bool) -> None:
        """DoRA's norm of W + B A, B A applied to an identity, forward only."""
        flops = Linear(2.0 * pair.n_out * pair.rank * pair.d_in * (pair.d_in + pair.d_out))
        moved = Linear(3.0 * self.width * pair.n_out * pair.d_in * pair.d_out)
        for phase in ("forward", "backward") if again else ("forward",):
            self.sums.gemm("adapter", phase, self.setup.trained_dtype, Matmul(flops, moved, flops))
            self.sums.launch(phase, 8)

    def joined(self, pair: Pair, rows: Linear, again: bool) -> None:
        """Scaling, adding and casting around a pair: elementwise over the matrix's input and output."""
        setup, style = self.setup, self.style
        cost_in, cost_out = style.adapter_in, style.adapter
        if setup.trained_dtype == "float32" and self.width == 2:
            if setup.under_autocast:
                cost_in = Cost(cost_in.forward_bytes + 12, cost_in.backward_bytes + 12, 3, 5)
            else:
                cost_in = Cost(cost_in.forward_bytes + 6, cost_in.backward_bytes + 10, 2, 4)
                cost_out = Cost(cost_out.forward_bytes + 14, cost_out.backward_bytes + 10, 3, 4)
        if setup.lora_dropout:
            cost_in = Cost(
                cost_in.forward_bytes + 5, cost_in.backward_bytes + 5, cost_in.forward_operations + 1,
                cost_in.backward_operations + 1,
            )  # fmt: skip
        self.passes("adapter", cost_in, rows.sequence * self.setup.sequence_parallel * pair.d_in, 1.0, again)
        self.passes(
            "adapter", cost_out, rows.sequence * self.setup.sequence_parallel * pair.d_out, 1.0, again
        )

    def attend(self, op: Attend, length: int, memory: int, needs: list[bool], again: bool) -> bool:
        """Scores and values; a fused kernel skips what the mask hides and computes the scores again backward."""
        q, k, v = needs[op.q], needs[op.k], needs[op.v]
        keys = memory if op.memory else length // op.compress
        kernel = self.setup.attention_kernel
        eager, masked = kernel in ("eager", "math"), takes_mask(self.setup)
        masked = masked or (self.traits.mask_shared and kernel == "sdpa")
        pairs = float(op.pairs or length * keys)
        if not eager and op.compress > 1:
            pairs = float(compressed_pairs(length, op.compress))
        elif not (eager or masked or op.memory or op.pairs):
            pairs = float(visible_pairs(length, op.window, op.causal, op.chunked))
        heads = op.n_heads / self.split / self.setup.sequence_parallel
        forward = 2 * heads * (op.d_qk + op.d_v)
        backward = 2 * heads * (op.d_qk * (q + k) + op.d_v * ((q or k) + v))
        grad = q or k or v
        if not eager and grad:
            backward += 2 * heads * op.d_qk
        dtype = "float32" if self.wide else self.setup.compute_dtype
        io = (
            DTYPE_BYTES[dtype]
            * (length * op.n_heads * (op.d_qk + op.d_v) + 2 * keys * op.n_kv_heads * op.d_qk)
            / (self.split * self.setup.sequence_parallel)
        )
        kind: Kind = "base" if eager else "masked" if masked or dtype == "float32" else "attention"
        self.kernel(kind, "forward", dtype, forward * pairs, io)
        if again and not self.selective:
            self.kernel(kind, "backward", dtype, forward * pairs, io)
        if grad:
            self.kernel(kind, "backward", dtype, backward * pairs, 2 * io)
        if eager:
            scores = heads * pairs * self.setup.sequence_parallel
            self.passes("scores", EAGER_SCORES, scores, 1.0, again)
            if self.traits.capped_scores:
                self.passes("scores", CAPPED_SCORES, scores, 1.0, again)
        rotary = length * (op.n_heads + op.n_kv_heads) * op.d_qk / self.split
        self.passes("rotary", self.style.rotary, rotary, 1.0, again)
        return grad

    def kernel(self, kind: Kind, phase: Phase, dtype: str, flops: float, moved: float) -> None:
        """One attention kernel of a layer."""
        work = Linear(0.0, flops)
        self.sums.gemm(kind, phase, dtype, Matmul(work, Linear(0.0, moved), work))
        self.sums.launch(phase, 4)

    def scan(self, op: Scan | Product, length: int, needs: list[bool], again: bool) -> bool:
        """Products of activations inside state-space and linear-attention cores."""
        left, right = needs[op.left], needs[op.right]
        if isinstance(op, Product):
            forward = left_macs = right_macs = float(length * op.macs_per_position)
            right = right and not op.one_sided
        else:
            forward, left_macs, right_macs = (
                float(op.macs * chunk_sum(op, length, which))
                for which in (op.forward, op.left_grad, op.right_grad)
            )
        backward = left_macs * left + right_macs * right + (forward if again else 0)
        each: dict[Phase, float] = {"forward": forward, "backward": backward}
        for phase, macs in each.items():
            share = Linear(0.0, 2 * macs / self.split / self.setup.sequence_parallel)
            self.sums.gemm("scan", phase, self.setup.compute_dtype, Matmul(share, Linear(), share))
            self.sums.launch(phase, 2)
        return left or right

    def elementwise(self, block: Block, layer: int, length: int, again: bool) -> None:
        """Norms, activations and residual additions of a layer."""
        hidden, inner = self.arch.hidden_size, 0
        for size in norms(self.arch, block, layer):
            self.passes("norm", self.style.norm, length * size, 1.0, again)
        for op in block.operations:
            if isinstance(op, Apply):
                matrix = self.arch.matrices[op.matrix]
                if matrix.role in MLP_ROLES and matrix.d_out == hidden:
                    inner += matrix.d_in * matrix.experts_active
                    if matrix.kind == "experts":
                        self.passes("residual", SORTED, length * hidden * matrix.experts_active, 1.0, again)
                if matrix.role == "unembedding":
                    cost = loss_cost(self.setup.loss, compiles_loss(self.setup))
                    self.passes("loss", cost, length * matrix.d_out / self.split)
        if inner:
            self.passes("activation", self.style.activation, length * inner / self.split, 1.0, again)
        if block.stack in LAYERS:
            self.passes("residual", self.style.residual, 2 * length * hidden, 2.0, again)
