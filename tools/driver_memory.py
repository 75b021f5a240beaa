"""How much memory a program finds on a GPU: as PyTorch reports it in errors that people have quoted.

Memory is sold in GB and built in GiB; the driver keeps a part, and error correction of GDDR6 a sixteenth. Where
nobody has quoted a card, its memory is the GiB it is sold as times the least share quoted of its kind. Cards of other
makers count as 10^9 bytes a GB.
"""

from __future__ import annotations

GIB = 2**30
OF_SMI = 79.11 / 81559  # GiB that PyTorch reports for a MiB that nvidia-smi does, of an H100
# GiB by our name, and where they were quoted: "GPU 0 has a total capacity of ... GiB", or nvidia-smi's MiB.
QUOTED: dict[str, tuple[float, str]] = {
    "T4": (14.75, "hpcaitech/Open-Sora issue 697"),
    "V100 SXM2 32GB": (31.74, "liucongg/ChatGLM-Finetuning issue 73"),
    "A30": (23.53, "google/RB-Modulation issue 5"),
    "A100 SXM 40GB": (39.50, "TianheWu/CoSeR issue 10"),
    "A100 SXM 80GB": (79.25, "levihsu/OOTDiffusion issue 235"),
    "H100 SXM 80GB": (79.11, "vllm-project/vllm issue 27508"),
    "L40S": (44.53, "Wan-Video/Wan2.1 issue 205"),
    "RTX 3090": (23.50, "XChenZ/havatar issue 6"),
    "RTX 4090": (23.64, "ali-vilab/VGen issue 104"),
    "RTX A4000": (15.61, "DengKaiCQ/VGGT-Long issue 6"),
    "GB200": (OF_SMI * 189471, "ai-dynamo/aiconfigurator systems/gb200.yaml: nvidia-smi's 189471 MiB"),
    "GB300": (OF_SMI * 284208, "ai-dynamo/aiconfigurator systems/gb300.yaml: nvidia-smi's 284208 MiB"),
    "B300 SXM 288GB": (
        OF_SMI * 275040,
        "ai-dynamo/aiconfigurator systems/b300_sxm.yaml: nvidia-smi's 275040 MiB",
    ),
}
# The least share of the GiB sold that was quoted of each kind, and the card it was quoted of.
HBM, CORRECTED, GEFORCE, WORKSTATION = (
    (0.9875, "A100 40GB"),
    (0.9219, "T4"),
    (0.9792, "RTX 3090"),
    (0.9756, "RTX A4000"),
)
_HBM = ("V100", "P100", "A100", "A800", "H100", "H200", "H800", "H20", "GH200", "B200")
_CORRECTED = ("T4", "A10", "A10G", "A2", "A40", "L4", "L40", "L40S", "L20")
_WORKSTATION = (
    "RTX A",
    "RTX 2000",
    "RTX 4000",
    "RTX 4500",
    "RTX 5000",
    "RTX 6000",
    "RTX PRO",
    "Quadro",
    "TITAN",
)


def share_of(name: str, vendor: str) -> tuple[float, str] | None:
    """The share of its GiB that a card of this kind has for programs, and the card that says so."""
    if vendor != "NVIDIA" or name == "GB10":
        return None
    if name.split()[0] in _HBM:
        return HBM
    if name in _CORRECTED:
        return CORRECTED
    return WORKSTATION if name.startswith(_WORKSTATION) else GEFORCE


def memory_of(name: str, vendor: str, sold_gb: float) -> tuple[int, str]:
    """Bytes that a program finds, and what that rests on."""
    if name in QUOTED:
        gib, where = QUOTED[name]
        return round(gib * GIB), f"memory that programs find: {where}"
    share = share_of(name, vendor)
    if share is None:
        return round(sold_gb * 1e9), ""
    return round(share[0] * sold_gb * GIB), f"memory that programs find: the share quoted of {share[1]}"
