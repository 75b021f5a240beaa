"""Reports: what the PDF says is what the plan's JSON says, whatever a name holds, or nothing is written."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pypdf
import pytest
from click.testing import CliRunner

from planner import estimate, report
from planner.cli.main import cli
from planner.comparing import compare
from planner.errors import InputError, PlannerError
from planner.report.document import Document, Figure, Number, numbers_of
from planner.report.gather import gather, moment
from planner.report.make import compose, render

LLAMA, QWEN = "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": (LLAMA, {"tokens": 300_000_000}),
    "llama on h100": (LLAMA, {"tokens": 300_000_000, "gpu": "h100", "batch": 8, "checkpointing": True}),
    "qwen": (QWEN, {"rank": 30, "dataset": "alpaca"}),
    "rl, no gpu": (
        "google/gemma-3-1b-it",
        {"episodes": 320_000, "success_rate": 0.3, "layers": "all-linear"},
    ),
}
SCALES = {
    "": 1, "T": 1e12, "B": 1e9, "M": 1e6, "%": 1e-2, "times": 1, "bit": 1, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9,
    "Tbit": 1e12, "FLOP": 1, "MFLOP": 1e6, "GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15, "EFLOP": 1e18,
    "ZFLOP": 1e21, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "s": 1, "min": 60, "h": 3600,
    "days": 86400,
}  # fmt: skip
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


@pytest.fixture(autouse=True)
def _fixed_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@cache
def made(case: str) -> tuple[dict[str, Any], Document, str]:
    """The material of a case, its document without drawings, and the text of its PDF."""
    model, options = CASES[case]
    material = gather(model, options)
    document = compose(material, moment(), False)
    return material, document, text_of(render(document, "pdf", "a4", moment()))


def text_of(content: bytes) -> str:
    """The words of a PDF on one line, without the marks that only say where a line may break."""
    pages = pypdf.PdfReader(io.BytesIO(content)).pages
    text = " ".join(page.extract_text() for page in pages).replace("\u200b", "")
    return re.sub(r"[\s\u00a0]+", " ", text)


def follow(data: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of nested mappings and lists."""
    for key in path:
        data = data[int(key) if isinstance(data, list) else key]
    return data


def read_back(text: str) -> tuple[float, float]:
    """A shown number as its value, and half a unit of its last digit."""
    found = re.fullmatch(r"(\$?)([\d,]+)(\.\d+)?(?:e([+-]?\d+))? ?([A-Za-z%]*)", text)
    assert found, text
    _, whole, part, power, unit = found.groups()
    scale = SCALES[unit] * 10.0 ** int(power or 0)
    value = float(whole.replace(",", "") + (part or ""))
    return value * scale, 0.5 * scale * 10.0 ** -(len(part or ".") - 1)


@pytest.mark.parametrize("case", CASES)
def test_every_number_is_the_plans(case: str) -> None:
    material, document, text = made(case)
    numbers = list(numbers_of(document))
    assert len(numbers) > 100
    for number in numbers:
        truth = follow(material, number.path) / (follow(material, number.over) if number.over else 1)
        shown, slack = read_back(number.text)
        assert abs(shown - truth) <= slack * 1.0001 + 1e-12 * abs(truth), number
        assert number.text in text, number


@pytest.mark.parametrize("case", CASES)
def test_the_pdf_has_no_other_number(case: str) -> None:
    """Every run of digits in the PDF is a number of the plan, or stands in words that came with it or in our own."""
    material, document, text = made(case)
    known = {token for number in numbers_of(document) for token in NUMBER.findall(number.text)}
    strings = json.dumps(material, ensure_ascii=False, indent=1)
    known |= set(NUMBER.findall(strings)) | set(re.findall(r"\d+", strings))
    known |= {"2023", "14", "512", "2,048", "8,192", "32,768"}  # the date, and lengths in a header
    own = {"2", "3", "6", "10", "2000", "32", "80"}  # 2N², the law's constants, alpha 32, 80% of sweeps
    pages = {str(page) for page in range(1, 12)}
    strange = [token for token in NUMBER.findall(text) if token.strip(",") not in known | own | pages]
    assert not strange


def test_the_material_is_the_library() -> None:
    model, options = CASES["llama on h100"]
    material = made("llama on h100")[0]
    plan, direct = material["plan"], estimate(model, **options).to_dict()
    for section in (
        "model",
        "adapter",
        "flops",
        "information",
        "capacity",
        "learning_rate",
        "memory",
        "time",
        "cost",
    ):
        assert plan[section] == json.loads(json.dumps(direct[section])), section
    found = compare(model, ranks=[8, 32], methods="lora", **options).columns
    assert plan["memory"]["lora"]["per_gpu_bytes"] == found[1].memory.per_gpu_bytes
    regret = found[0].regret
    assert regret is not None and material["regret"]["8"]["value"] == regret.value


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    """In a fresh interpreter with other hashes as in this one, which has made other reports before."""
    endings = ("pdf", "html", "md")
    start = str(tmp_path / "1")
    code = (
        f"import planner\nfor ending in {endings!r}:\n"
        f"    planner.report({LLAMA!r}, {start!r} + '.' + ending, tokens=300_000_000, gpu='h100')"
    )
    env = {**os.environ, "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=env)
    for ending in endings:
        report(LLAMA, tmp_path / f"2.{ending}", tokens=300_000_000, gpu="h100")
        assert (tmp_path / f"1.{ending}").read_bytes() == (tmp_path / f"2.{ending}").read_bytes(), ending


HOSTILE = [
    "#panic(1) $x$ *b* _i_ `c` [l] <l> @r \\ // /* */ ~ -- --- ... \"q\" 'q' = H",
    "<script>alert(1)</script><img src=http://x.invalid/a>&amp; | a | b |",
    "שלום عالم model אבג-7B",
    "W" * 300,
    "a" * 150 + "/" + "b-" * 75,
    "line\nbreak\x00\x1b[31m\u202eturned\ud800 end",
    "漢字 🦙 क्षि",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_data(name: str) -> None:
    material = json.loads(json.dumps(made("llama")[0]))
    material["plan"]["model"]["id"] = name
    material["plan"]["warnings"] = [{"code": name, "message": name}]
    material["plan"]["sources"][0] |= {"title": name, "locator": name, "url": f"javascript:{name}"}
    material["command"] = f"lora-plan report --model '{name}'"
    from planner.report.wording import clean_data

    document = compose(clean_data(material), moment(), False)
    content = render(document, "pdf", "a4", moment())
    reader = pypdf.PdfReader(io.BytesIO(content))
    assert inside(reader)
    if name.isascii() and len(name) < 300 and name.isprintable():
        joined = text_of(content).replace(" ", "")
        assert joined.count(name.replace(" ", "")) >= 4
    page = Page()
    page.feed(render(document, "html", "a4", moment()).decode())
    assert not page.loaded and "script" not in page.tags
    assert b"javascript:" not in re.sub(rb">[^<]*<", b"><", render(document, "html", "a4", moment()))
    marked = render(document, "markdown", "a4", moment()).decode()
    assert "<script>" not in re.sub(r"```.*?```|`[^`]*`", "", marked, flags=re.DOTALL).replace("\\<", "")


@pytest.mark.parametrize("paper", ["a4", "letter"])
def test_the_page_that_decides_is_one_page(paper: str) -> None:
    material = json.loads(json.dumps(made("llama on h100")[0]))
    material["plan"]["model"]["id"] = "W" * 300
    material["plan"]["warnings"] = [{"code": "long", "message": "Much is said about little. " * 20}] * 9
    content = render(compose(material, moment(), False), "pdf", paper, moment())
    pages = [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages]
    assert "What could go wrong" in pages[0] and "Trainable parameters by rank" in pages[1]
    assert "Notes" in " ".join(pages[2:])  # the rest of the warnings, in full


def inside(reader: pypdf.PdfReader) -> bool:
    """Whether every piece of text starts and ends on its page."""
    for page in reader.pages:
        width = float(page.mediabox.width)
        starts: list[float] = []

        def note(text: str, cm: Any, tm: Any, font: Any, size: Any, found: list[float] = starts) -> None:
            if text.strip():
                found.append(tm[4] * cm[0] + cm[4])

        page.extract_text(visitor_text=note)
        if any(not 0 <= x <= width for x in starts):
            return False
    return True


class Page(HTMLParser):
    """What an HTML file would load, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note every address but those of links that a reader follows."""
        self.tags.add(tag)
        for key, value in attrs:
            outside = key in ("src", "href", "xlink:href", "data", "srcset", "poster", "action")
            if outside and tag != "a" and not str(value).startswith(("#", "data:")):
                self.loaded.append(f"{tag} {key}={value}")


def test_html_is_self_contained(tmp_path: Path) -> None:
    report(QWEN, tmp_path / "a.html", tokens="300M", gpu="h100")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert not page.loaded and not page.tags & {"script", "link", "iframe", "object"}
    assert {"svg", "table", "h1", "figcaption"} <= page.tags
    assert not re.findall(r"url\((?!#)[^)]*\)|@import|@font-face", text)
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert text.count('role="img"') == 5


def test_the_pdf_is_tagged_and_says_what_it_is(tmp_path: Path) -> None:
    found = report(LLAMA, tmp_path / "a.pdf", tokens="300M", gpu="h100", paper="letter")
    reader = pypdf.PdfReader(tmp_path / "a.pdf")
    assert reader.metadata is not None and reader.metadata.title == f"Fine-tuning {LLAMA}"
    marks: Any = reader.root_object["/MarkInfo"]
    assert marks["/Marked"]
    assert "pdfuaid" in reader.xmp_metadata.stream.get_data().decode()  # type: ignore[union-attr]
    assert [mark.title for mark in reader.outline] == found["sections"]  # type: ignore[union-attr]
    assert round(float(reader.pages[0].mediabox.width)) == 612
    first = re.sub(r"\s+", " ", reader.pages[0].extract_text())
    assert all(word in first for word in ("Decision", "Learning rate", "Cost", "What could go wrong"))
    assert "Trainable parameters by rank" not in first
    assert found["figures"] == [
        "Parameters",
        "Compute",
        "Information and capacity",
        "Learning rate",
        "Memory",
    ]


def test_a_batch_in_pieces_on_several_gpus_has_the_same_shares() -> None:
    spread = {"batch": 32, "gpu": "rtx4090", "gpus": 4, "accumulation": 8, "sharding": "fsdp"}
    assert (
        gather(LLAMA, {**spread, "rank": 8})["lengths"] == gather(LLAMA, {"batch": 32, "rank": 8})["lengths"]
    )


def test_a_figure_needs_its_data() -> None:
    material = json.loads(json.dumps(made("llama")[0]))
    material["plan"]["memory"], material["lengths"] = None, {}
    document = compose(material, moment(), True)
    names = [b.name for s in document.sections for b in s.blocks if isinstance(b, Figure)]
    assert names == ["Parameters", "Information and capacity", "Learning rate"]


def test_what_is_not_known_is_said() -> None:
    text = made("rl, no gpu")[2]
    assert "not part of this plan, so not known: time, cost" in text.lower()
    assert "best rate in reinforcement learning: median of 10 sweeps" in text
    material = json.loads(json.dumps(made("llama")[0]))
    material["plan"]["learning_rate"]["family_known"] = False
    text = text_of(render(compose(material, moment(), True), "pdf", "a4", moment()))
    assert "No model of this family was among those" in text
    for section in ("memory", "flops", "information"):
        material["plan"][section] = None
    empty = dict.fromkeys(("value", "low", "high", "full_finetune", "basis", "family"))
    material["plan"]["learning_rate"] |= {**empty, "reason": "the law does not know it"}
    text = text_of(render(compose(material, moment(), True), "pdf", "a4", moment()))
    assert "No learning rate: the law does not know it." in text
    assert "carries no estimate of memory" in text and "no exact FLOP count" in text


def test_a_simulation_stands_beside_the_estimate(tmp_path: Path) -> None:
    plan = estimate(LLAMA)
    setup = {"micro_batch": 1, "seq_len": 2048, "checkpointing": "none"}
    lora = {
        "peak_bytes": 28_012_345_678,
        "flops": 69 * 10**12,
        "trained_params": plan.adapter.params,
        "setup": setup,
    }
    (tmp_path / "s.json").write_text(json.dumps({"model": {"id": LLAMA}, "lora": lora}))
    report(LLAMA, tmp_path / "a.md", simulated=tmp_path / "s.json")
    text = (tmp_path / "a.md").read_text()
    assert "| Simulated |" in text and "26.1 GiB" in text and "69.0 TFLOP" in text
    with pytest.raises(InputError, match="whose seq-len is 512"):
        report(LLAMA, tmp_path / "b.md", simulated=tmp_path / "s.json", seq_len=512)
    (tmp_path / "s.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="simulate --json"):
        report(LLAMA, tmp_path / "b.md", simulated=tmp_path / "s.json")
    assert not (tmp_path / "b.md").exists()


def test_a_comparison_shows_each_plans_numbers() -> None:
    against: list[dict[str, Any]] = [{"rank": 8}, {"model": QWEN}]
    material = gather(LLAMA, {"tokens": 300_000_000}, against)
    document = compose(material, moment(), False)
    assert document.kind == "comparison"
    text = text_of(render(document, "pdf", "a4", moment()))
    for model, rank in (LLAMA, 8), (LLAMA, 32), (QWEN, 32):
        assert f"{estimate(model, rank=rank).adapter.params:,}" in text
    for number in numbers_of(document):
        truth = follow_any(material, number)
        shown, slack = read_back(number.text)
        assert abs(shown - truth) <= slack * 1.0001


def follow_any(material: Mapping[str, Any], number: Number) -> float:
    """The value of a number whose path may lead through a list."""

    def at(path: tuple[str, ...]) -> Any:
        data: Any = material
        for key in path:
            data = data[int(key)] if isinstance(data, list) else data[key]
        return data

    return float(at(number.path) / (at(number.over) if number.over else 1))


def run(*arguments: str) -> Any:
    """The command line."""
    return CliRunner().invoke(cli, ["report", *arguments])


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    place = tmp_path / "plan.md"
    found = json.loads(run("-m", LLAMA, "--tokens", "300M", "-o", str(place), "--json").output)
    assert found["output"] == str(place) and found["bytes"] == place.stat().st_size
    again = re.search(r"```shell\n(lora-plan report .*?)\n```", place.read_text(), flags=re.DOTALL)
    assert again and again[1] == f"lora-plan report --model {LLAMA} --tokens 300000000 -o plan.md"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("plan.docx", "ends in .pdf, .html or .md"),
        ("missing/plan.pdf", "a folder that exists"),
        ("folder.pdf", "not a folder"),
    ],
)
def test_a_bad_target_is_one_error(output: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "folder.pdf").mkdir()
    with pytest.raises(InputError, match=words):
        report(LLAMA, tmp_path / output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.pdf"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "plan.md"
    place.write_text("before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        report(LLAMA, place)
    assert place.read_text() == "before" and list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize(
    "options", [{"rnak": 8}, {"paper": "a3"}, {"gpu": "h1oo"}, {"against": [{"rankk": 8}]}, {"tokens": -1}]
)
def test_bad_options_are_named(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PlannerError, match=str(next(iter(options))).replace("against", "rankk")):
        report(LLAMA, tmp_path / "a.pdf", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("ending", "more", "drawn"), [("md", "", False), ("pdf", ", figures=False", False)])
def test_nothing_is_drawn_unasked(ending: str, more: str, drawn: bool, tmp_path: Path) -> None:
    code = (
        f"import planner, sys; planner.report({LLAMA!r}, {str(tmp_path / 'a.') + ending!r}{more}); "
        "print('matplotlib' in sys.modules, 'typst' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.split() == [str(drawn), str(ending == "pdf")]


NARROW = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
    "max_position_embeddings": 128, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip


def test_a_narrow_model_is_shown_at_the_ranks_that_it_has_room_for() -> None:
    material = gather(NARROW, {"rank": 4, "tokens": 10_000})
    assert list(material["ranks"]) == ["1", "4", "8", "16", "32", "64"]  # its widest smaller side is 64
    assert render(compose(material, moment(), False), "md", "a4", moment())
    with pytest.raises(InputError, match="rank"):
        gather(NARROW, {"rank": 128})
