"""The tables in data/: complete sources, consistent figures, an index that agrees with its tables."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from planner import fact_types, facts
from planner.errors import FactError, InputError, UnknownModelError
from planner.schema import Source

ROOT = Path(__file__).resolve().parents[1]
GOOD = {"title": "t", "url": "https://example.org", "locator": "l", "date": "2026-01", "kind": "paper"}


def table(name: str) -> list[dict[str, str]]:
    with (facts.data_dir() / "models" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def importer() -> ModuleType:
    """tools/import_facts.py as a module."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        spec = importlib.util.spec_from_file_location("import_facts", ROOT / "tools" / "import_facts.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.pop(0)


def sourced() -> list[tuple[str, Source]]:
    rows = [(fact.name, fact.source) for fact in facts.accelerators()]
    rows += [(fact.name, fact.source) for fact in facts.datasets()]
    rows += [(price.accelerator, price.source) for price in facts.prices()]
    rows += [(law.id, law.source) for law in facts.laws()]
    return rows + [(name, facts.model(name).source) for name in facts.model_ids()]


def test_every_fact_has_a_complete_source() -> None:
    rows = sourced()
    assert len(rows) > 600
    for name, source in rows:
        for value in (source.title, source.url, source.locator, source.date, source.kind):
            assert value.strip(), name
        assert source.url.startswith("https://"), name
        assert re.fullmatch(r"20\d\d(-\d\d){0,2}", source.date), name


def test_counts() -> None:
    assert len(facts.model_ids()) == 500
    assert len(facts.model_aliases()) == 513
    assert len(facts.accelerators()) >= 130
    assert len(facts.prices()) == 63
    assert len(facts.datasets()) == 21
    assert len(facts.laws()) == 5


def test_no_text_names_a_gathering_place() -> None:
    for path in facts.data_dir().rglob("*"):
        if path.suffix in (".csv", ".toml", ".md") or path.name == "index.json":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"\bindex ids?\b|stored copy", text), path


# Models


def test_the_tables_agree_with_their_toml() -> None:
    """After editing a TOML table run tools/import_facts.py --index-only."""
    paths = sorted(facts.data_dir().glob("*.toml"))
    assert len(paths) >= 5
    for path in paths:
        compiled = json.loads(facts.read_data("compiled", f"{path.stem}.json"))
        assert compiled == importer().read_toml(path), path.name


def test_one_model_is_read_as_from_the_whole_index() -> None:
    for name, raw in facts.model_index()["models"].items():
        assert facts.is_model(name) and facts.model(name).model_type == raw["model_type"]
        assert facts.model(name).source.date == facts.model_index()["compiled"]
    assert not facts.is_model("meta-llama") and not facts.is_model("compiled")


def test_the_index_agrees_with_its_tables() -> None:
    index = json.loads((facts.data_dir() / "models" / "index.json").read_text(encoding="utf-8"))
    assert importer().build_index(facts.data_dir() / "models", index["compiled"]) == index


def test_every_model_has_a_config_and_every_config_a_row() -> None:
    files = {path.name for path in (facts.data_dir() / "models").glob("*.json")} - {"index.json"}
    assert files == {facts.model_config_path(name).name for name in facts.model_ids()}
    for name in facts.model_ids():
        config = json.loads(facts.model_config_path(name).read_text(encoding="utf-8"))
        assert isinstance(config["model_type"], str), name


def test_the_model_tables_are_whole() -> None:
    rows = table("SOURCES.csv")
    columns = "model source published_params published_from built_params status note".split()
    assert list(rows[0]) == columns
    assert [row["model"] for row in rows] == list(facts.model_ids())
    for row in rows:
        assert row["source"].strip() and row["status"].strip(), row["model"]
        assert bool(row["published_params"]) == bool(row["published_from"]), row["model"]
        if row["status"] == "exact":
            assert row["published_params"] == row["built_params"], row["model"]
    for row in table("ALIASES.csv"):
        assert row["model"] in facts.model_ids(), row["alias"]
        assert row["alias"] not in facts.model_ids()


def test_names_that_differ_only_by_case_mean_one_model() -> None:
    meant: dict[str, str] = {name.lower(): name for name in facts.model_ids()}
    assert len(meant) == len(facts.model_ids())
    for alias, name in facts.model_aliases().items():
        assert meant.setdefault(alias.lower(), name) == name


def test_rounded_totals_are_not_offered_as_counts() -> None:
    assert facts.model("facebook/opt-13b").published_params is None
    assert "rounded" in facts.model("facebook/opt-13b").status


def test_one_architecture_has_one_fingerprint() -> None:
    same = ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B")
    assert len({facts.model(name).architecture for name in same}) == 1
    assert facts.model("Qwen/Qwen3-8B").architecture != facts.model(same[0]).architecture


def test_a_known_total() -> None:
    fact = facts.model("meta-llama/Llama-3.1-8B")
    assert fact.published_params == fact.built_params == 8_030_261_248


def test_an_unknown_model_gets_near_names() -> None:
    with pytest.raises(UnknownModelError, match=r"Did you mean .*meta-llama/Llama-3\.1-8B"):
        facts.model("meta-llama/Llama-3.1-8b")


# Accelerators


def test_the_peaks_follow_from_clock_and_units() -> None:
    """16-bit peak = clock x units x multiply-adds per unit and clock x 2, within 2 %."""
    checked = 0
    for fact in facts.accelerators():
        peak = fact.bf16_dense_flops_per_s or fact.fp16_dense_flops_per_s
        if fact.tensor_clock_hz is None:
            continue
        assert peak and fact.units and fact.fma_per_unit_per_clock
        ratio = 2 * fact.tensor_clock_hz * fact.units * fact.fma_per_unit_per_clock / peak
        if fact.peak_check == "exception":
            assert ratio > 1.02 and "kept as published" in fact.note, fact.name
        else:
            assert ratio == pytest.approx(1, abs=0.02), fact.name
        checked += 1
    assert checked >= 100
    assert {f.name for f in facts.accelerators() if f.peak_check == "exception"} == {
        "H100 NVL 94GB",
        "B200 SXM 180GB",
    }


@pytest.mark.parametrize(
    ("name", "bf16", "bandwidth", "memory_bytes"),
    [  # from the makers' data sheets
        ("H100 SXM 80GB", 989e12, 3350e9, 80 * 10**9),
        ("A100 SXM 80GB", 312e12, 2039e9, 80 * 10**9),
        ("H200 SXM 141GB", 989e12, 4800e9, 141 * 10**9),
        ("RTX 4090", 165.2e12, 1008e9, 24 * 10**9),
        ("MI300X", 1307.4e12, 5300e9, 192 * 10**9),
    ],
)
def test_known_figures(name: str, bf16: float, bandwidth: float, memory_bytes: int) -> None:
    fact = facts.accelerator(name)
    assert fact.bf16_dense_flops_per_s == bf16
    assert fact.bandwidth_bytes_per_s == bandwidth
    assert fact.memory_bytes == memory_bytes


@pytest.mark.parametrize(
    ("name", "tflops", "gb_per_s"),
    [  # from the makers' data sheets, a quarter of fp8 with sparsity where they give that
        ("A40", 149.7, 696), ("A30", 165, 933), ("RTX A5000", 222.2 / 2, 768), ("RTX 5000 Ada", 1044.4 / 4, 576),
        ("Quadro RTX 5000", 89.2, 448), ("TITAN RTX", 130.5, 672), ("RTX 2080 Ti", 53.8, 616), ("H800", 989, 3350),
        ("MI210", 181, 1638), ("MI250", 362.1, 3277), ("RX 7900 XTX", 122.8, 960), ("RX 9070 XT", 195, 640),
    ],
)  # fmt: skip
def test_derived_peaks_are_the_makers(name: str, tflops: float, gb_per_s: float) -> None:
    fact = facts.accelerator(name)
    assert fact.fp16_dense_flops_per_s == pytest.approx(tflops * 1e12, rel=0.003)
    assert fact.bandwidth_bytes_per_s == pytest.approx(gb_per_s * 1e9, rel=0.008)


def test_memory_is_what_is_marketed() -> None:
    for fact in facts.accelerators():
        if fact.memory_bytes is None:
            assert fact.memory_gb_marketed is None
            continue
        assert fact.memory_gb_marketed
        assert fact.memory_bytes == fact.memory_gb_marketed * 1e9


def test_peaks_are_dense() -> None:
    """fp8 is at most twice bf16 and tf32 at most bf16; a sparse figure would show as four times or equal."""
    for fact in facts.accelerators():
        bf16 = fact.bf16_dense_flops_per_s
        if bf16 and fact.fp8_dense_flops_per_s:
            assert fact.fp8_dense_flops_per_s / bf16 < 2.05, fact.name
        if bf16 and fact.tf32_dense_flops_per_s:
            assert fact.tf32_dense_flops_per_s / bf16 < 0.52, fact.name


def test_conflicts_are_said() -> None:
    assert "another gathering gives bf16 62.5 TFLOPS" in facts.accelerator("A10G").note
    assert facts.accelerator("A10G").bf16_dense_flops_per_s == 70e12


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("h100", "H100 SXM 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM 80GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80GB"),
        ("a100_sxm4_40gb", "A100 SXM 40GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla T4", "T4"),
        ("mi300x", "MI300X"),
        ("tpu-v5e", "TPU v5e"),
        ("3060", "RTX 3060 12GB"),
        ("3090 ti", "RTX 3090 Ti"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Laptop"),
        ("AMD Radeon RX 7900 XTX", "RX 7900 XTX"),
        ("DGX Spark", "GB10"),
        ("4000 ada", "RTX 4000 Ada"),
    ],
)
def test_accelerators_go_by_many_names(spelling: str, name: str) -> None:
    assert facts.accelerator(spelling).name == name


@pytest.mark.parametrize("bad", ["", "  ", "H1000", None, 5, "---"])
def test_an_unknown_accelerator_is_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="accelerator"):
        facts.accelerator(bad)


def test_near_names_are_offered() -> None:
    with pytest.raises(InputError, match="Did you mean .*H100"):
        facts.accelerator("H1000")
    with pytest.raises(InputError, match="Did you mean .*alpaca"):
        facts.dataset("alpacca")
    with pytest.raises(InputError, match="Did you mean .*tinker-cookbook-2025-11"):
        facts.law("tinker-cookbook-2025-12")


# Prices, datasets, laws


def test_prices_are_dated_and_belong_to_an_accelerator() -> None:
    names = {fact.name for fact in facts.accelerators()}
    for price in facts.prices():
        assert price.accelerator in names
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", price.date)
        assert 0.05 < price.usd_per_gpu_hour < 50
        assert price.kind in ("on-demand", "spot")


def test_prices_come_newest_first() -> None:
    dates = [price.date for price in facts.prices_of("H100")]
    assert len(dates) >= 9 and dates == sorted(dates, reverse=True)
    assert all(price.kind == "spot" for price in facts.prices_of("H100", "spot"))


def test_datasets_have_figures_that_fit_together() -> None:
    for fact in facts.datasets():
        if fact.kind == "rl":
            assert (fact.episodes or fact.examples) and not fact.total_tokens
            continue
        assert fact.examples and fact.tokenizer
        if fact.total_tokens and fact.loss_tokens:
            assert fact.loss_tokens < fact.total_tokens, fact.name
        if fact.total_tokens:
            assert 20 < fact.total_tokens / fact.examples < 20_000, fact.name


@pytest.mark.parametrize(
    ("name", "average", "examples"),
    [("alpaca", 64.6, 52002), ("dolly", 91.3, 15011), ("tulu3", 308.76, 939344), ("no_robots", 184.72, 9500)],
)
def test_loss_tokens_are_average_times_examples(name: str, average: float, examples: int) -> None:
    assert facts.dataset(name).loss_tokens == round(average * examples)


@pytest.mark.parametrize(
    ("name", "prompt", "completion"),
    [("flan-3m", 727.49, 54.83), ("openhermes-2.5", 152.38, 249.12), ("mathinstruct", 81.53, 172.78)],
)
def test_loss_tokens_are_a_share_of_the_total(name: str, prompt: float, completion: float) -> None:
    fact = facts.dataset(name)
    assert fact.total_tokens
    assert fact.loss_tokens == round(fact.total_tokens * completion / (prompt + completion))


def test_the_articles_episodes() -> None:
    assert facts.dataset("math-rl-article").episodes == 10_000 * 32 == 320_000
    assert facts.dataset("deepseek-r1-zero").episodes == 10_400 * 32 * 16 == 5_324_800


def test_the_laws() -> None:
    article = facts.law("lora-without-regret-2025-09")
    assert article.status == "incomplete" and article.base is None and article.lora_multiplier == 9.8
    tinker = facts.law("tinker-cookbook-2025-11")
    assert tinker.status == "complete" and tinker.base == 5e-5 and tinker.lora_multiplier == 10
    rate = tinker.base * tinker.lora_multiplier * (tinker.reference_width / 4096) ** tinker.exponents["llama"]
    assert rate == pytest.approx(2.856e-4, rel=2e-4)
    assert dict(tinker.exponents) == {"llama": 0.781, "qwen": 0.0775}


# Checks


@pytest.mark.parametrize("key", list(GOOD))
@pytest.mark.parametrize("value", [None, "", "  ", 3])
def test_a_fact_without_a_complete_source_is_refused(key: str, value: object) -> None:
    with pytest.raises(FactError, match=f"x has no {key}"):
        facts.source_from({**GOOD, key: value}, "x")


@pytest.mark.parametrize("change", [{"kind": "rumour"}, {"date": "last week"}])
def test_an_odd_source_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(FactError):
        facts.source_from({**GOOD, **change}, "x")


@pytest.mark.parametrize(
    "change",
    [{"source": None}, {"usd_per_gpu_hour": -1.0}, {"usd_per_gpu_hour": float("nan")}, {"colour": "red"}],
)
def test_an_odd_entry_is_refused(change: dict[str, Any]) -> None:
    entry = {
        "accelerator": "T4",
        "provider": "p",
        "usd_per_gpu_hour": 1.0,
        "kind": "spot",
        "date": "2026-01-01",
    }
    facts.parse_entry(fact_types.Price, {**entry, "source": GOOD}, "x")
    with pytest.raises(FactError, match="x"):
        facts.parse_entry(fact_types.Price, {**entry, "source": GOOD, **change}, "x")


def test_the_folders_are_found() -> None:
    assert (facts.data_dir() / "models" / "index.json").is_file()
    assert facts.reports_dir().is_dir()


def test_a_lookup_imports_the_standard_library_only() -> None:
    code = (
        "import sys; from planner import facts; from planner.architecture.resolve import resolve;"
        "resolve('meta-llama/Llama-3.1-8B'); facts.accelerator('H100');"
        "print([m for m in ('torch', 'transformers', 'numpy', 'huggingface_hub', 'csv') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
