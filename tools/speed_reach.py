"""What single large products reach of an accelerator's 16-bit peak, and a T4's in float32, as published."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_ML = {
    "title": "Stas Bekman, Machine Learning Engineering: Maximum Achievable Matmul FLOPS",
    "url": "https://github.com/stas00/ml-engineering/blob/master/compute/accelerator/README.md", "date": "2026-09",
    "locator": "table of BF16, mean of 100 iterations", "kind": "measured",
}  # fmt: skip
_T4 = {
    "title": "About GPU peak performance", "date": "2023-08",
    "url": "https://forums.developer.nvidia.com/t/about-gpu-peak-performance/264462",
    "locator": "24 TFLOP/s of 4096 x 4096 products in float16, capped by power", "kind": "measured",
}  # fmt: skip
_T4_FLOAT32 = {
    "title": "zzc0721/torch-performance-test-data", "date": "2025-10",
    "url": "https://github.com/zzc0721/torch-performance-test-data/blob/0785868/database.md",
    "locator": "best float32 product of 1,024 to 10,240 rows on two T4: 4.17 (Colab) and 4.43 TFLOP/s (Kaggle); 4 in "
    "the README of chsasank/device-benchmarks; the one in the middle",
    "kind": "measured",
}  # fmt: skip
# Workstation cards whose tensor cores are not halved, as GeForce's are, so that power holds them down: products in
# bfloat16, the mean of two cards each. An RTX 6000 Ada has the L40S' chip (269.2 TFLOP/s at 350 W) at 300 W: as many
# a joule.
_PRODUCTS = {
    "title": "zzc0721/torch-performance-test-data",
    "url": "https://github.com/zzc0721/torch-performance-test-data/blob/0785868/database.md",
    "date": "2026-04",
    "kind": "measured",
}
_WORKSTATIONS: dict[str, tuple[tuple[float, ...], float, int]] = {
    "RTX PRO 6000 Blackwell Workstation": ((418.0, 368.4), 503.8, 160),
    "RTX PRO 6000 Blackwell Server": ((409.4, 417.3), 467.8, 161),
}
# Laptops' GeForce cards, whose listed clock is that of the least power a maker may give them: products in bfloat16
# that owners sent in, and the peak in data/accelerators.toml. Left out: one whose float16 and bfloat16 differ by two
# fifths (RTX 4070 Laptop), and chips that the table lacks.
_LAPTOPS: dict[str, tuple[tuple[float, ...], float]] = {
    "RTX 3060 Laptop": ((25.85,), 21.9), "RTX 3070 Laptop": ((33.14,), 31.9), "RTX 4060 Laptop": ((30.87,), 23.2),
    "RTX 4080 Laptop": ((49.11,), 49.4), "RTX 5070 Ti Laptop": ((59.21,), 34.1), "RTX 5080 Laptop": ((77.11,), 46.1),
    "RTX 5090 Laptop": ((97.13, 83.78), 63.6),
}  # fmt: skip
# TFLOP/s reached and the peak in data/accelerators.toml.
_MEASURED = {
    "A100 SXM 40GB": (271.2, 312), "A100 SXM 80GB": (271.2, 312), "A100 PCIe 40GB": (252.9, 312),
    "A100 PCIe 80GB": (252.9, 312), "H100 SXM 80GB": (794.5, 989), "H200 SXM 141GB": (794.5, 989),
    "GH200 96GB": (828.6, 989), "B200 SXM 180GB": (1745.0, 2250), "B300 SXM 288GB": (1769.0, 2250),
    "GB200": (1822.0, 2500), "Gaudi 2": (418.7, 432), "Gaudi 3": (1243.0, 1677), "MI300X": (668.4, 1307.4),
    "MI325X": (784.9, 1307.4), "MI355X": (1565.0, 2500),
}  # fmt: skip
# Cards of the H100's process whose board draws so little that their clock must fall: as many FLOPs a joule as an
# H100 at 700 W, which is 794.5 / 700 TFLOP/s a watt. Watts and peak.
_BY_POWER = {"H100 PCIe 80GB": (350, 756), "H100 NVL 94GB": (400, 835)}
_PER_WATT = 794.5 / 700
# The A10 has the RTX A6000's chip at half its power: as many FLOPs a joule, and torchtune's rows imply its peak of
# 154.8 TFLOP/s at 300 W. A table of cuBLAS on an A10 ("Matmul Implementations") has 35.3 of 62.5 in TF32, 0.57.
_A10_WATTS, _A10_PEAK, _A6000_PER_WATT = 150, 125, 154.8 / 300


def reached() -> Iterator[dict[str, Any]]:
    """Entries of data/speed.toml; "others" is the median of what was measured."""
    for name, (rate, peak) in _MEASURED.items():
        yield {"accelerator": name, "share": round(rate / peak, 3), "source": _ML}
    yield {"accelerator": "T4", "share": round(24 / 65, 3), "source": _T4}
    share = round(4.17 / 8.1, 3)
    yield {"accelerator": "T4", "format": "float32", "share": share, "source": _T4_FLOAT32}
    how = {**_T4, "kind": "assumed", "locator": "the T4's share, for the other card of 70 W"}
    yield {"accelerator": "L4", "share": round(24 / 65, 3), "source": how}
    for name, (watts, peak) in _BY_POWER.items():
        how = {
            **_ML,
            "kind": "assumed",
            "locator": f"H100 SXM: 794.5 TFLOP/s at 700 W; at {watts} W as many a joule",
        }
        yield {"accelerator": name, "share": round(min(1.0, watts * _PER_WATT / peak), 3), "source": how}
    for name, (rates, peak, issue) in _WORKSTATIONS.items():
        where = (
            f"best bfloat16 product: {rates[0]:g} TFLOP/s, and {rates[1]:g} in the repository's issue {issue}"
        )
        how = {**_PRODUCTS, "locator": where}
        yield {"accelerator": name, "share": round(sum(rates) / len(rates) / peak, 3), "source": how}
    for name, (rates, peak) in _LAPTOPS.items():
        told = " and ".join(f"{rate:g}" for rate in rates)
        how = {
            **_PRODUCTS,
            "url": "https://github.com/zzc0721/torch-performance-test-data/blob/9d82827/database.md",
            "locator": f"best bfloat16 product of a laptop's: {told} TFLOP/s, above the peak at its listed clock",
        }
        yield {
            "accelerator": name, "format": "clock", "share": round(sum(rates) / len(rates) / peak, 3), "source": how,
        }  # fmt: skip
    where = "L40S, the same chip: 269.2 TFLOP/s at 350 W; at 300 W as many a joule"
    how = {**_PRODUCTS, "kind": "assumed", "locator": where}
    yield {"accelerator": "RTX 6000 Ada", "share": round(269.2 * 300 / 350 / 364.2, 3), "source": how}
    how = {
        "title": "pytorch/torchtune README", "url": "https://github.com/pytorch/torchtune", "date": "2024-06",
        "locator": "RTX A6000: all of its peak at 300 W (data/measured/SPEED.md); at 150 W as many FLOPs a joule",
        "kind": "assumed",
    }  # fmt: skip
    yield {"accelerator": "A10", "share": round(_A10_WATTS * _A6000_PER_WATT / _A10_PEAK, 3), "source": how}
    shares = sorted(rate / peak for rate, peak in _MEASURED.values())
    how = {**_ML, "kind": "assumed", "locator": "median of the table, for accelerators that it lacks"}
    yield {"accelerator": "others", "share": round(shares[len(shares) // 2], 3), "source": how}
