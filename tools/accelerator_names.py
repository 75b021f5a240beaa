"""How accelerators are called: the product's name, the rows of the gathered tables, other spellings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """One accelerator; `first` and `second` are its rows in the two gatherings, `prices` in the prices."""

    name: str
    vendor: str
    first: str = ""
    second: str = ""
    prices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    note: str = ""


def _nvidia(name: str, first: str, second: str, prices: str, aliases: str, note: str = "") -> Names:
    cut = [tuple(part.strip() for part in text.split(",") if part.strip()) for text in (prices, aliases)]
    return Names(name, "NVIDIA", first, second, cut[0], cut[1], note)


def _apple(chip: str, first: str = "") -> Names:
    return Names(f"Apple {chip}", "Apple", first, f"Apple {chip}", (), (chip,))


NAMES = (
    _nvidia("T4", "T4", "NVIDIA T4", "T4 16GB", "Tesla T4"),
    _nvidia(
        "V100 SXM2 16GB", "V100-SXM2 16GB", "NVIDIA V100 SXM2 16GB", "V100 16GB", "V100, Tesla V100-SXM2-16GB"
    ),
    _nvidia(
        "V100 SXM2 32GB",
        "V100-SXM2 32GB",
        "NVIDIA V100 SXM2 32GB",
        "",
        "V100 32GB, Tesla V100-SXM2-32GB",
    ),
    _nvidia(
        "A10G",
        "A10G",
        "NVIDIA A10G",
        "",
        "A10G 24GB",
        "70 TFLOPS follows from clock x units, and public logs show a 300 W cap, so these are kept",
    ),
    _nvidia("A10", "A10", "", "A10 24GB", ""),
    _nvidia("L4", "L4", "NVIDIA L4", "L4 24GB", ""),
    _nvidia("L40", "L40", "", "L40 48GB", ""),
    _nvidia("L40S", "L40S", "NVIDIA L40S", "L40S 48GB", ""),
    _nvidia("RTX 3060 12GB", "RTX 3060 12GB", "", "", "RTX 3060, GeForce RTX 3060"),
    _nvidia("RTX 3090", "RTX 3090", "NVIDIA RTX 3090", "RTX 3090 24GB", "3090, GeForce RTX 3090"),
    _nvidia("RTX 4070 Ti Super", "RTX 4070 Ti Super", "", "", "4070 Ti Super, GeForce RTX 4070 Ti SUPER"),
    _nvidia("RTX 4080", "RTX 4080", "", "RTX 4080 16GB", "4080, GeForce RTX 4080"),
    _nvidia("RTX 4090", "RTX 4090", "NVIDIA RTX 4090", "RTX 4090 24GB", "4090, GeForce RTX 4090"),
    _nvidia("RTX 5080", "RTX 5080", "", "", "5080, GeForce RTX 5080, RTX 5080 16GB"),
    _nvidia("RTX 5090", "RTX 5090", "NVIDIA RTX 5090", "RTX 5090 32GB", "5090, GeForce RTX 5090"),
    _nvidia("RTX A6000", "RTX A6000", "NVIDIA RTX A6000", "RTX A6000 48GB", "A6000"),
    _nvidia("RTX 6000 Ada", "RTX 6000 Ada", "NVIDIA RTX 6000 Ada", "", "RTX 6000 Ada Generation"),
    _nvidia(
        "RTX PRO 6000 Blackwell Workstation",
        "RTX PRO 6000 Blackwell (Workstation)",
        "NVIDIA RTX PRO 6000 Blackwell",
        "",
        "RTX PRO 6000, RTX PRO 6000 Blackwell Workstation Edition",
    ),
    _nvidia(
        "RTX PRO 6000 Blackwell Server",
        "RTX PRO 6000 Blackwell (Server)",
        "",
        "RTX PRO 6000 Blackwell Server 96GB",
        "RTX PRO 6000 Blackwell Server Edition",
    ),
    _nvidia("A100 SXM 40GB", "A100 40GB SXM4", "NVIDIA A100 40GB SXM4", "", "A100 40GB, A100-SXM4-40GB"),
    _nvidia(
        "A100 SXM 80GB",
        "A100 80GB SXM4",
        "NVIDIA A100 80GB SXM4",
        "",
        "A100, A100 80GB, A100-SXM4-80GB",
    ),
    _nvidia("A100 PCIe 40GB", "A100 40GB PCIe", "NVIDIA A100 40GB PCIe", "", "A100 PCIe-40GB"),
    _nvidia("A100 PCIe 80GB", "A100 80GB PCIe", "NVIDIA A100 80GB PCIe", "", "A100 PCIe"),
    _nvidia(
        "H100 SXM 80GB",
        "H100 SXM5 80GB",
        "NVIDIA H100 SXM",
        "",
        "H100, H100 80GB, H100 80GB HBM3, H100 SXM5",
    ),
    _nvidia("H100 PCIe 80GB", "H100 PCIe 80GB", "NVIDIA H100 PCIe", "", "H100 PCIe"),
    _nvidia("H100 NVL 94GB", "H100 NVL 94GB", "NVIDIA H100 NVL", "", "H100 NVL"),
    _nvidia("H200 SXM 141GB", "H200 SXM 141GB", "NVIDIA H200 SXM", "", "H200, H200 141GB"),
    _nvidia("H20 96GB", "H20 96GB", "", "", "H20"),
    _nvidia("GH200 96GB", "", "NVIDIA GH200 SXM (96GB)", "", "GH200, GH200 120GB, GH200 480GB"),
    _nvidia("B200 SXM 180GB", "B200 SXM", "NVIDIA B200 SXM", "B200 180GB", "B200"),
    _nvidia("GB200", "GB200 (per GPU)", "NVIDIA GB200 (per GPU)", "", ""),
    _nvidia("B300 SXM 288GB", "B300 SXM", "NVIDIA B300 SXM", "B300 288GB", "B300"),
    _nvidia("GB300", "GB300 (per GPU)", "NVIDIA GB300 (per GPU)", "", ""),
    Names("MI250X", "AMD", "MI250X", "AMD MI250X (2 GCDs)", (), ("Instinct MI250X",)),
    Names("MI300X", "AMD", "MI300X", "AMD MI300X", ("MI300X 192GB",), ("Instinct MI300X",)),
    Names("MI325X", "AMD", "MI325X", "AMD MI325X", (), ("Instinct MI325X",)),
    Names("MI355X", "AMD", "MI355X", "AMD MI355X", (), ("Instinct MI355X",)),
    Names("TPU v4", "Google", "TPU v4", "Google TPU v4"),
    Names("TPU v5e", "Google", "TPU v5e", "Google TPU v5e"),
    Names("TPU v5p", "Google", "TPU v5p", "Google TPU v5p"),
    Names("TPU v6e", "Google", "TPU v6e (Trillium)", "Google TPU v6e (Trillium)", (), ("Trillium",)),
    Names("Gaudi 2", "Intel", "Gaudi 2", "Intel Gaudi2"),
    Names("Gaudi 3", "Intel", "Gaudi 3", "Intel Gaudi3"),
    _apple("M1"),
    _apple("M1 Pro"),
    _apple("M1 Max"),
    _apple("M1 Ultra"),
    _apple("M2"),
    _apple("M2 Pro"),
    _apple("M2 Max"),
    _apple("M2 Ultra"),
    _apple("M3"),
    _apple("M3 Pro"),
    _apple("M3 Max"),
    _apple("M3 Ultra", "Apple M3 Ultra (80-core GPU)"),
    _apple("M4"),
    _apple("M4 Pro"),
    _apple("M4 Max", "Apple M4 Max (40-core GPU)"),
    _apple("M5"),
    _apple("M5 Pro"),
    _apple("M5 Max"),
)
