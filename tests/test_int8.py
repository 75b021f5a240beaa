"""Rates in int8, against figures that makers state, and which entry of data/int8.toml names which chip."""

from __future__ import annotations

import pytest

from planner import facts, hardware


@pytest.mark.parametrize(
    ("gpu", "tera"),
    [
        ("A100 SXM 80GB", 624), ("H100 SXM 80GB", 1979), ("H100 PCIe 80GB", 1513), ("T4", 130), ("L4", 242),
        ("RTX 3090", 284), ("RTX 4090", 661), ("RTX 6000 Ada", 728), ("RTX A6000", 310), ("Quadro RTX 8000", 261),
        ("MI250X", 383), ("MI300X", 2614.9), ("RX 7900 XTX", 123), ("RX 9070 XT", 389), ("GB300", 165), ("B300", 150),
    ],
)  # fmt: skip
def test_rates_are_the_makers(gpu: str, tera: float) -> None:
    assert hardware.matmul_flops_per_s(hardware.find(gpu), "int8") == pytest.approx(tera * 1e12, rel=0.02)


def test_every_entry_names_a_chip_and_every_card_of_the_two_makers_is_named() -> None:
    first = {
        a.name: next((r.id for r in hardware.int8_rates() if a.name.startswith(r.chips)), None)
        for a in facts.accelerators()
    }
    assert {r.id for r in hardware.int8_rates()} == set(first.values()) - {None}
    for rate in hardware.int8_rates():
        for chip in rate.chips:
            assert any(name.startswith(chip) for name in first), chip
    unnamed = {facts.accelerator(name).vendor for name, own in first.items() if own is None}
    assert not unnamed & {"NVIDIA", "AMD"}
