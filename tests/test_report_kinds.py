"""Reports of fits and of validations: their numbers are the program's, whatever names a sweep holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from planner import report
from planner.cli.main import cli
from planner.errors import InputError
from planner.learning_rate.fit import fit
from planner.learning_rate.sweep import read_sweep
from planner.report import dataset_report, fit_report, validation_report
from planner.report.document import Document, Figure, Number, numbers_of
from planner.report.gather import moment
from planner.report.make import render
from planner.report.numbers import Material
from planner.validate.kept import judge_all, load, setting_of
from tests.test_report import follow, read_back, text_of
from tools.plant_sweep import Planted, plant

RECORDS = Path(__file__).resolve().parent.parent / "data" / "runs" / "records.jsonl"
HOSTILE = '#eval("1") $x$ <b>&amp;</b> \\ */ [a](b) `c` \u202eabc\u202c ' + "long-" * 50


@pytest.fixture(autouse=True)
def _fixed_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planted sweep of both methods, one of whose models has a hostile name."""
    path = tmp_path_factory.mktemp("sweep") / "sweep.csv"
    runs = plant(Planted(models=6), 0)
    runs["model"] = runs["model"].replace("m3", HOSTILE)
    runs.to_csv(path, index=False)
    return path


def fitted(path: Path) -> tuple[dict[str, Any], Document]:
    """The material and the document of a fit."""
    read = read_sweep(path)
    material = fit_report.gather(fit(read, form="width_by_family+rank", draws=20), path, "lora-plan report")
    return material, fit_report.document(Material(material), moment(), ())


@cache
def validated() -> tuple[dict[str, Any], Document]:
    """The material and the document of the committed records."""
    records = load(RECORDS)
    material = validation_report.gather(records, setting_of(records), RECORDS, "lora-plan report")
    return material, validation_report.document(Material(material), moment(), ())


def shown(number: Number) -> tuple[float, float]:
    """A number as text says it, and half a unit of its last digit."""
    text = number.text.replace("\N{MINUS SIGN}", "-").replace(",", "")
    if text.endswith("%"):
        return read_back(text)
    digits, _, power = text.partition("e")
    places = len(digits.partition(".")[2])
    return float(text), 0.5 * 10.0 ** (int(power or 0) - places)


def check(material: dict[str, Any], document: Document) -> None:
    """Every number is the material's, and stands in the PDF."""
    text = text_of(render(document, "pdf", "letter", moment()))
    numbers = list(numbers_of(document))
    assert len(numbers) > 40
    for number in numbers:
        truth, (value, slack) = _at(material, number.path), shown(number)
        assert abs(value - truth) <= slack * 1.0001 + 1e-12 * abs(truth), number
        assert number.text in text, number


def _at(data: Any, path: tuple[str, ...]) -> float:
    for key in path:
        data = data[int(key)] if isinstance(data, list) else data[key]
    assert isinstance(data, (int, float))
    return data


def test_every_number_of_a_fit(sweep: Path) -> None:
    material, document = fitted(sweep)
    check(material, document)
    known = fit(sweep, form="width_by_family+rank", draws=20).to_dict()
    assert material["fit"]["terms"] == json.loads(json.dumps(known["terms"]))
    found = {row["term"]: row for row in material["terms"] if not row["of"]}
    assert found["m_lora"]["value"] == follow(known, ("terms", "m_lora", "value"))


def test_every_number_of_a_validation() -> None:
    material, document = validated()
    check(material, document)
    records = load(RECORDS)
    judged = {one.claim.id: one.to_dict() for one in judge_all(records, setting_of(records))}
    for claim in material["validation"]["claims"]:
        assert claim["verdict"] == judged[claim["id"]]["verdict"]
    text = text_of(render(document, "pdf", "a4", moment()))
    for name, claim in judged.items():
        assert name in text and re.search(rf"{name}\b.*{claim['verdict']}", text)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chats, one of them twice, and a broken row."""
    path = tmp_path_factory.mktemp("data") / "chats.jsonl"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Who is {n}?"},
                {"role": "assistant", "content": f"{n} " * (n + 3)},
            ]
        }
        for n in (*range(30), 3)
    ]
    path.write_text("\n".join([*map(json.dumps, rows), '{"messages": ']) + "\n", encoding="utf-8")
    return path


def test_every_number_of_a_data_set(data: Path) -> None:
    from planner.dataset import dataset

    found = dataset(data, loss=1.2).to_dict()
    material = dataset_report.gather(found, "lora-plan report")
    document = dataset_report.document(Material(material), moment(), ())
    text = text_of(render(document, "pdf", "a4", moment()))
    numbers = list(numbers_of(document))
    assert len(numbers) > 25 and all(number.text in text for number in numbers)
    for number in numbers:
        truth, (value, slack) = _at(material, number.path), read_back(number.text)
        assert abs(value - truth) <= slack * 1.0001, number
    assert (found["examples"], found["duplicates_exact"], found["broken"]) == (31, 1, 1)
    assert "chats.jsonl" in text and "Rows that could not be read" in text


def test_a_data_set_as_a_document(data: Path, tmp_path: Path) -> None:
    found = report(output=tmp_path / "data.html", data=str(data), nats=1.2)
    assert found["kind"] == "dataset" and found["figures"] == ["Information"]
    assert found["command"].startswith("lora-plan report --data ")
    out = tmp_path / "again.html"
    command = ["report", "--data", str(data), "--nats", "1.2", "-o", str(out)]
    assert CliRunner().invoke(cli, command, catch_exceptions=False).exit_code == 0
    assert out.read_bytes() == (tmp_path / "data.html").read_bytes()


def test_a_hostile_name_is_data(sweep: Path) -> None:
    _, document = fitted(sweep)
    text = text_of(render(document, "pdf", "a4", moment()))
    assert '#eval("1")' in text and "<b>&amp;</b>" in text
    page = render(document, "html", "a4", moment()).decode()
    assert "<b>" not in page and "&lt;b&gt;&amp;amp;&lt;/b&gt;" in page


@pytest.mark.parametrize("kind", ["sweep", "runs"])
def test_from_the_command_line(kind: str, sweep: Path, tmp_path: Path) -> None:
    source = str(sweep if kind == "sweep" else RECORDS)
    more = ["--json"] if kind == "runs" else []
    out = tmp_path / "report.html"
    result = CliRunner().invoke(
        cli, ["report", f"--{kind}", source, "-o", str(out), *more], catch_exceptions=False
    )
    assert result.exit_code == 0 and out.stat().st_size > 10_000
    first = out.read_bytes()
    report(output=out, **{kind: source})  # type: ignore[arg-type]
    assert out.read_bytes() == first
    page = first.decode()
    assert page.count("<svg") >= 2 and "http://" not in re.sub(r'xmlns[:\w]*="[^"]*"', "", page)
    if kind == "runs":
        found = json.loads(result.output)
        assert found["kind"] == "validation" and "Loss against learning rate" in found["figures"]


def test_figures_need_runs() -> None:
    from planner.report.figures import runs, verdicts

    assert runs.loss_by_rate([]) is runs.curves([], 1) is runs.early([]) is runs.rewards([]) is None
    assert (
        runs.by_batch([], "tiny")
        is verdicts.ratios({})
        is verdicts.capacity({})
        is verdicts.layers({})
        is None
    )
    bits = {"C11": {"predicted": 2.0, "details": {"bits_a_parameter": {"rank 1, all": 1.5}}}}
    drawn = verdicts.capacity(bits)
    assert isinstance(drawn, Figure) and "rank 1, all" in drawn.svg


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": "nowhere.jsonl"}, "nowhere"),
        ({"data": "nowhere.jsonl", "rank": 3}, "rank"),
        ({"runs": "nowhere"}, "a folder of run records or a .jsonl"),
        ({"runs": str(RECORDS), "sweep": "s.csv"}, "nothing beside sweep"),
        ({"runs": str(RECORDS), "rank": 3}, "nothing beside runs"),
        ({"sweep": "nowhere.csv"}, "a readable CSV"),
        ({"sweep": "data/sweeps/tinker_sft.csv", "rank": 3}, "an option of `lora-plan fit`"),
        ({"sweep": "s.csv", "model": "meta-llama/Llama-3.1-8B"}, "nothing beside sweep"),
    ],
)
def test_bad_input_is_one_error(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        report(output=tmp_path / "r.pdf", **given)
    assert not list(tmp_path.iterdir())


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("{}\n")
    with pytest.raises(Exception, match="line 1 has schema None"):
        load(path)
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match="runs"):
        load(path)


def test_a_validation_report_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from planner import report\n"
        f"report(output={str(tmp_path / 'r.md')!r}, runs={str(RECORDS)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert "Verdicts" in (tmp_path / "r.md").read_text(encoding="utf-8")
