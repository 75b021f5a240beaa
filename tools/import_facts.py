"""Make the generated part of data/ from a folder of gathered facts.

    python tools/import_facts.py FACTS_FOLDER [--data data] [--date YYYY-MM-DD]
    python tools/import_facts.py --index-only

Reads `models/*.json`, `models/SOURCES.csv`, `models/ALIASES.csv`, the two accelerator tables and
`prices.csv`; writes `models/` (with `index.json`), `accelerators.toml` and `prices.toml`. `datasets.toml` and
`laws.toml` are kept by hand. `--index-only` rebuilds `models/index.json` from what data/ already holds.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from accelerator_names import NAMES, Names
from driver_memory import memory_of
from more_accelerators import kept
from more_prices import MORE_PRICES
from peer_access import no_peer_access

Row = Mapping[str, str]
ROOT = Path(__file__).resolve().parents[1]
UNNAMED = "a public file whose repository is not recorded"
CLEANED = (
    (r"pypi:([\w-]+)==([\w.]+)", r"PyPI package \1 \2"),
    (r"\bpypi ([\w-]+) ", r"PyPI package \1 "),
    (r"GitHub code index \(file without repository name\): [^(]*\(([^)]*)\).*", rf"{UNNAMED} (\1)"),
    (r"GitHub code index \(file without repository name\): .*", UNNAMED),
    (r" from index ids [\d, ]+", " from public files whose repository is not recorded"),
    (r" \(find_string id \d+\)", ""),
    (r" \((?:read via )?stored copy\)", ""),
    (r"^brief$", "known published total"),
)
URLS = {
    "ftuneai": "https://github.com/ritikmahy5/ftune",
    "llmfit": "https://github.com/AlexsJones/llmfit",
    "transformers": "https://github.com/huggingface/transformers",
    "keras-nlp": "https://github.com/keras-team/keras-hub",
}
PEAKS = ("bf16_dense", "fp16_dense", "tf32_dense", "fp32", "fp8_dense")


def clean(text: str) -> str:
    """The text without marks that mean nothing outside the gathering."""
    for pattern, replacement in CLEANED:
        text = re.sub(pattern, replacement, text.strip())
    return text


def text_of(value: Any) -> str:
    """A value as JSON, which for strings, lists of strings and numbers is TOML too."""
    return json.dumps(value, ensure_ascii=False)


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def address(text: str, fallback: str = "") -> str:
    """The address that a source text points to."""
    if (match := re.search(r"PyPI package ([\w-]+)", text)) and match[1] in URLS:
        return URLS[match[1]]
    if match := re.search(r"huggingface dataset ([\w-]+/[\w.-]+)", text):
        return f"https://huggingface.co/datasets/{match[1]}"
    if match := re.match(r"(?:github )?([A-Za-z][\w-]+/[\w.-]+?)(?=[:@ #]|$)", text):
        return f"https://github.com/{match[1]}"
    if match := re.search(r"\b((?:[a-z][\w-]*\.)+(?:com|net|org|ai|io|se)(?:/[\w./-]+)?)", text):
        return f"https://{match[1]}"
    return fallback


# Models


def core(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language part of a config, where it is nested."""
    for key in ("text_config", "llm_config", "language_config"):
        if isinstance(config.get(key), dict):
            return {**config, **config[key]}
    return config


def fingerprint(config: Mapping[str, Any], built: str) -> str:
    """Equal for configs of one architecture: type, widths, depth, heads, vocabulary and the built count."""
    fields = core(config)
    keys = (
        "hidden_size d_model n_embd num_hidden_layers n_layer num_layers num_attention_heads n_head "
        "num_key_value_heads intermediate_size ffn_dim d_ff vocab_size num_experts num_local_experts "
        "n_routed_experts"
    ).split()
    parts = [config.get("model_type"), built, *(fields.get(key) for key in keys)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def is_rounded(row: Row) -> bool:
    """Whether the published total is a rounded one, as in a model's name."""
    return "round" in row["published_from"]


def model_row(row: Row) -> dict[str, str]:
    """A row of SOURCES.csv for readers outside the gathering."""
    out = {key: clean(value) for key, value in row.items()}
    if is_rounded(row):
        out["status"] = "built; published only as a rounded total"
    return out


def model_source(model: str, text: str) -> list[str]:
    """Title, address and locator of the source of a model's config."""
    page = f"https://huggingface.co/{model}"
    url = address(text)
    if url:
        return [f"config of {model}", url, text]
    return [f"config of {model}", page, f"{text}; the address is the model's own page, for comparison"]


def build_index(folder: Path, compiled: str) -> dict[str, Any]:
    """What the package looks models up in, from the folder's two tables and configs."""
    models: dict[str, Any] = {}
    for row in rows(folder / "SOURCES.csv"):
        name = row["model"]
        config = json.loads((folder / f"{name.replace('/', '__')}.json").read_text(encoding="utf-8"))
        exact = bool(row["published_params"]) and not is_rounded(row)
        entry = {
            "published_params": int(row["published_params"]) if exact else None,
            "published_from": row["published_from"] if exact else "",
            "built_params": int(row["built_params"]) if row["built_params"] else None,
            "status": row["status"],
            "note": row["note"],
            "architecture": fingerprint(config, row["built_params"]),
            "model_type": str(config["model_type"]),
            "source": model_source(name, row["source"]),
        }
        models[name] = {key: value for key, value in entry.items() if value not in (None, "")}
    aliases = {row["alias"]: row["model"] for row in rows(folder / "ALIASES.csv")}
    return {"compiled": compiled, "models": models, "aliases": aliases}


def write_index(folder: Path, compiled: str) -> None:
    """Write `index.json`, one model a line so that a change shows as a line."""
    index = build_index(folder, compiled)

    def lines(table: Mapping[str, Any]) -> str:
        return ",\n".join(f"{text_of(key)}: {text_of(value)}" for key, value in table.items())

    models, aliases = lines(index["models"]), lines(index["aliases"])
    text = f'{{"compiled": "{compiled}",\n"models": {{\n{models}\n}},\n"aliases": {{\n{aliases}\n}}}}\n'
    (folder / "index.json").write_text(text, encoding="utf-8")


def write_tables(data: Path) -> None:
    """Write `compiled/`: the TOML tables as JSON, which the planner reads ten times faster."""
    (data / "compiled").mkdir(exist_ok=True)
    for path in sorted(data.glob("*.toml")):
        text = json.dumps(read_toml(path), ensure_ascii=False, indent=0)
        (data / "compiled" / f"{path.stem}.json").write_text(text + "\n", encoding="utf-8")


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(path.read_text(encoding="utf-8"))


def import_models(source: Path, target: Path, compiled: str) -> None:
    """Copy the configs and the two tables, with the sources spelled for readers outside the gathering."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.json"):
        old.unlink()
    for path in sorted(source.glob("*.json")):
        shutil.copyfile(path, target / path.name)
        (target / path.name).chmod(0o644)
    shutil.copyfile(source / "ALIASES.csv", target / "ALIASES.csv")
    (target / "ALIASES.csv").chmod(0o644)
    table = rows(source / "SOURCES.csv")
    with (target / "SOURCES.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(model_row(row) for row in table)
    write_index(target, compiled)


# Accelerators and prices


def source_of(text: str, compiled: str, date: str = "") -> dict[str, str]:
    """One part of a source cell as title, address, locator, date and kind."""
    text = clean(text)
    found = re.search(r"\d{4}-\d{2}(?:-\d{2})?", text) or re.search(r"\((20\d{2})\b", text)
    sheet = re.match(r"NVIDIA|docs\.cloud\.google", text)
    title = re.split(r" \(|: |@", text.removeprefix("github "), maxsplit=1)[0]
    return {
        "title": title,
        "url": address(text, "https://www.nvidia.com" if "NVIDIA" in text else ""),
        "locator": text,
        "date": date or (found[found.lastindex or 0] if found else compiled),
        "kind": "datasheet" if sheet else "documentation",
    }


def segments(cell: str) -> list[str]:
    """The parts of a source cell; semicolons inside parentheses do not part them."""
    return [part.strip() for part in re.split(r";\s*(?![^()]*\))", cell) if part.strip()]


def fma_check(notes: str) -> dict[str, Any]:
    """Clock, units and multiply-adds per unit and clock behind the 16-bit peak, where the notes give them."""
    pattern = r"(\d+) MHz x (\d+)(?: (?:SM|CU))? x (\d+)(?: FMA/(?:SM|CU)/cycle)? x 2 = [\d.]+"
    match = re.search(pattern, notes)
    if not match or "is not sourced" in notes or "not sourced (" in notes:
        return {}
    after = notes[match.end() :]
    verdict = "exception" if "DOES NOT HOLD" in after else "derived" if "circular" in notes else "holds"
    return {
        "tensor_clock_hz": int(match[1]) * 10**6,
        "units": int(match[2]),
        "fma_per_unit_per_clock": int(match[3]),
        "peak_check": verdict,
    }


def tera(value: str) -> str:
    """A figure in units of 1e12 as a TOML number."""
    return f"{float(value):g}e12"


def conflicts(first: Row, second: Row) -> list[str]:
    """Where the second gathering gives another figure (by more than 0.3 %)."""
    pairs = [
        ("memory_gb_marketed", "memory_gb_marketed", "memory", "GB"),
        ("memory_bandwidth_gb_per_s", "mem_bandwidth_gbs", "bandwidth", "GB/s"),
        ("bf16_dense_tflops", "bf16_dense_tflops", "bf16", "TFLOPS"),
        ("fp16_dense_tflops", "fp16_dense_tflops", "fp16", "TFLOPS"),
        ("tf32_dense_tflops", "tf32_dense_tflops", "tf32", "TFLOPS"),
        ("fp8_dense_tflops", "fp8_dense_tflops", "fp8", "TFLOPS"),
        ("tdp_w", "tdp_w", "power", "W"),
    ]
    found = []
    for one, two, label, unit in pairs:
        a, b = first.get(one, ""), second.get(two, "")
        if one.startswith("fp16") and a == first.get("bf16_dense_tflops"):
            continue  # said with bf16
        if a and b and abs(float(a) - float(b)) > 0.003 * float(a):
            found.append(f"another gathering gives {label} {b} {unit}")
    return found


def note_of(names: Names, first: Row, second: Row) -> str:
    """What to mind: conflicts, derived cells and departures from the clock formula."""
    own = first.get("notes") or second.get("notes", "")
    left_out = r"^peak check|int8|stas00 lists|verify before use"
    parts = [part for part in segments(clean(own)) if not re.search(left_out, part)]
    if "DOES NOT HOLD" in own:
        parts.append("the published peak lies below clock x units x multiply-adds and is kept as published")
    if first:
        parts += conflicts(first, second)
    return "; ".join([*parts, names.note] if names.note else parts)


def figures(names: Names, first: Row, second: Row) -> dict[str, str]:
    """The figures of one accelerator as TOML values, units as suffixes; absent where no source has one."""

    def cell(one: str, two: str) -> str:
        return first.get(one) or second.get(two) or ""

    out: dict[str, str] = {}
    marketed = cell("memory_gb_marketed", "memory_gb_marketed")
    if marketed:
        out["memory_gb_marketed"] = f"{float(marketed):g}"
        out["memory_bytes"] = str(memory_of(names.name, names.vendor, float(marketed))[0])
    if bandwidth := cell("memory_bandwidth_gb_per_s", "mem_bandwidth_gbs"):
        out["bandwidth_bytes_per_s"] = f"{float(bandwidth):g}e9"
    for peak in PEAKS:
        if rate := cell(f"{peak}_tflops", f"{peak}_tflops"):
            out[f"{peak}_flops_per_s"] = tera(rate)
    if value := second.get("measured_max_bf16_matmul_tflops"):
        out["bf16_matmul_measured_flops_per_s"] = tera(value)
    one_way = second.get("interconnect_gbs_unidirectional_per_gpu", "")
    both = first.get("interconnect_gb_per_s_bidirectional")
    if both:
        one_way = f"{float(both) / 2:g}"
    if one_way:
        out["interconnect"] = json.dumps(cell("interconnect", "interconnect"))
        out["interconnect_bytes_per_s_each_way"] = f"{float(one_way):g}e9"
    if no_peer_access(names.name):
        out["pcie_peer_access"] = "false"
    if power := cell("tdp_w", "tdp_w"):
        out["tdp_w"] = power
    return out


def inline(table: Mapping[str, str]) -> str:
    """A TOML inline table of strings."""
    return "{ " + ", ".join(f"{key} = {text_of(value)}" for key, value in table.items()) + " }"


def accelerator_entry(names: Names, first: Row, second: Row, compiled: str) -> str:
    """One [[accelerator]] of the TOML file."""
    cells = [*segments(first.get("source", "")), *segments(second.get("sources", ""))]
    sources = list(dict.fromkeys(clean(part) for part in cells))
    aliases = dict.fromkeys([*names.aliases, names.first, names.second, *names.prices])
    lines = ["[[accelerator]]", f"name = {json.dumps(names.name)}", f"vendor = {json.dumps(names.vendor)}"]
    listed = [alias for alias in aliases if alias and alias != names.name]
    lines.append(f"aliases = {json.dumps(listed)}")
    lines += [f"{key} = {value}" for key, value in figures(names, first, second).items()]
    check = fma_check(first.get("notes", ""))
    lines += [f"{key} = {json.dumps(value)}" for key, value in check.items()]
    if note := note_of(names, first, second):
        lines.append(f"note = {text_of(note)}")
    lines.append(f"source = {inline(source_of(sources[0], compiled))}")
    marketed = first.get("memory_gb_marketed") or second.get("memory_gb_marketed")
    found = memory_of(names.name, names.vendor, float(marketed))[1] if marketed else ""
    more = [*sources[1:], *filter(None, (found, no_peer_access(names.name)))]
    if more:
        lines.append(f"more_sources = {text_of(more)}")
    return "\n".join(lines)


def import_accelerators(folder: Path, target: Path, compiled: str) -> None:
    """Merge the two gatherings into accelerators.toml."""
    first = {row["name"]: row for row in rows(folder / "accelerators.csv")}
    second = {row["accelerator"]: row for row in rows(folder / "accelerators_second_gathering.csv")}
    left = (first.keys() - {n.first for n in NAMES}) | (second.keys() - {n.second for n in NAMES})
    if left:
        raise SystemExit(f"accelerator_names.py does not know {sorted(left)}")
    head = (
        "# Generated by tools/import_facts.py. Dense peaks (no sparsity), at training's accumulation.\n"
        "# memory_bytes is what programs find (tools/driver_memory.py). A figure without a source is absent.\n"
    )
    entries = [
        accelerator_entry(n, first.get(n.first, {}), second.get(n.second, {}), compiled) for n in NAMES
    ]
    path = target / "accelerators.toml"
    more = kept(path.read_text(encoding="utf-8")) if path.exists() else ""
    path.write_text(
        head + "\n" + "\n\n".join(entries) + "\n" + (f"\n{more}" if more else ""), encoding="utf-8"
    )


def import_prices(folder: Path, target: Path, compiled: str) -> None:
    """Write prices.toml: list prices per accelerator and hour, each dated."""
    names = {price: n.name for n in NAMES for price in (n.name, *n.prices)}
    entries = []
    for row in rows(folder / "prices.csv"):
        source = source_of(row["source"], compiled, row["date"])
        lines = [f"{k} = {json.dumps(row[k])}" for k in ("provider", "kind", "date")]
        lines.insert(0, f"accelerator = {json.dumps(names[row['accelerator']])}")
        lines.append(f"usd_per_gpu_hour = {float(row['usd_per_gpu_hour']):g}")
        entries.append("\n".join(["[[price]]", *lines, f"source = {inline(source)}"]))
    for name, provider, price, stated in MORE_PRICES:
        lines = [
            f"accelerator = {json.dumps(name)}",
            f"provider = {json.dumps(provider)}",
            'kind = "on-demand"',
        ]
        lines += [f"date = {json.dumps(stated['date'])}", f"usd_per_gpu_hour = {price:g}"]
        entries.append("\n".join(["[[price]]", *lines, f"source = {inline(stated)}"]))
    head = "# Generated by tools/import_facts.py. List prices in USD, each true on its date only.\n"
    (target / "prices.toml").write_text(head + "\n" + "\n\n".join(entries) + "\n", encoding="utf-8")


def main(arguments: Iterable[str] | None = None) -> None:
    """Read the command line and write the files."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("facts", nargs="?", type=Path, help="folder of gathered facts")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder to write (default: data/)")
    parser.add_argument("--date", default="2026-11-24", help="when the facts were compiled")
    parser.add_argument(
        "--index-only", action="store_true", help="only rebuild models/index.json and compiled/"
    )
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.index_only:
        write_index(options.data / "models", options.date)
        write_tables(options.data)
        return
    if options.facts is None:
        parser.error("name the folder of facts")
    import_models(options.facts / "models", options.data / "models", options.date)
    import_accelerators(options.facts, options.data, options.date)
    import_prices(options.facts, options.data, options.date)
    write_tables(options.data)


if __name__ == "__main__":
    main()
