"""Cards whose driver lets none read another's memory over PCIe: what they send each other goes through the host's.

GeForce cards since the RTX 20 series (of which NCCL's lead says so in NVIDIA/nccl-tests issue 287), and the A10G as
AWS, which alone has it, passes it into its machines; workstation and data centre cards have it. Where NCCL uses it is
another matter: among cards of one PCIe switch, and between any two of an AMD host (NVIDIA/nccl, src/graph/paths.cc,
ncclTopoCheckP2p).
"""

from __future__ import annotations

import re

_TURING = "tensorflow/tensorflow issue 24677 (two RTX 2080 Ti without their bridge)"
_SAID = {
    "2": _TURING,
    "3": "NVIDIA/nccl issue 1127 (eight RTX 3090)",
    "4": "huggingface/accelerate issue 2328 and tinygrad/open-gpu-kernel-modules issue 17 (eight RTX 4090)",
    "5": "tinygrad/open-gpu-kernel-modules issue 29 (RTX 5090)",
}
_OTHERS = {
    "TITAN RTX": _TURING,
    "A10G": "NVIDIA/TensorRT-LLM issue 1034 (AWS g5.48xlarge: peer access is not supported)",
}


def no_peer_access(name: str) -> str:
    """Who says that cards of this name have no access to each other over PCIe; empty where they have it."""
    if name in _OTHERS:
        return f"no peer access over PCIe: {_OTHERS[name]}"
    found = re.match(r"RTX ([2345])0\d0\b(?! Ada)", name)
    return f"no peer access over PCIe: {_SAID[found[1]]}" if found else ""
