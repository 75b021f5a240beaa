"""What is expected of the constants of speed before any step is looked at, and from where.

A fit on published steps starts here and is held here: each constant's logarithm is taken as normal about `value` with
`deviation`, so that a constant on which few sources bear stays near what others measured of that part alone.
"""

from __future__ import annotations

from typing import NamedTuple


class Prior(NamedTuple):
    """A constant before the fit: `deviation` is of its logarithm, `low` and `high` bound it."""

    value: float
    deviation: float
    low: float
    high: float
    why: str


PRIORS: dict[str, Prior] = {
    "matmul": Prior(0.9, 0.10, 0.3, 1.0, "products of a step reach nearly what the best ones do"),
    "wave": Prior(0.5, 0.50, 0.0, 1.0, "sizes fall anywhere between whole waves: half of one is idle on average"),
    "matmul_cards": Prior(0.9, 0.15, 0.3, 1.05, "as matmul; boosted above the clock at which the peak is stated"),
    "attention": Prior(
        0.6, 0.15, 0.2, 0.75, "FlashAttention-2 (arXiv 2307.08691): 50 to 73% of an A100's peak"
    ),
    "memory": Prior(0.88, 0.06, 0.5, 0.95, "copies on A100 and H100 reach 85 to 92% of the stated bandwidth"),
    "dequantise": Prior(2.5, 0.50, 0.2, 20.0, "nothing known: wide"),
    "link": Prior(
        0.75, 0.15, 0.2, 0.95,
        "nccl-tests on 8 A100s: 200 to 235 of 300 GB/s (NVIDIA/nccl-tests issues 100 and 149)",
    ),
    "overlap": Prior(0.5, 0.40, 0.0, 1.0, "nothing known: half"),
    "host_s": Prior(1.5e-5, 0.40, 5e-6, 6e-5, "PyTorch's dispatch, autograd and Python for a kernel: 5 to 30 us"),
    "start_s": Prior(3e-6, 0.50, 5e-7, 1e-5, "a kernel's start and end on the GPU: 2 to 5 us"),
    "unit_s": Prior(4e-4, 0.70, 1e-5, 1e-2, "FSDP's hooks, copies and waits for a unit: tenths of a ms"),
    "module_s": Prior(2e-4, 0.70, 1e-5, 1e-2, "ZeRO-3's hooks for a module: tenths of a ms"),
    "iteration_s": Prior(0.03, 0.70, 1e-3, 0.2, "nothing known: wide"),
}  # fmt: skip
