"""The page without Gradio: choices and links, answers against the command line, downloads, hostile input."""

from __future__ import annotations

import io
import json
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import dataset, facts, units
from planner.cli import main
from planner.errors import InputError
from planner.web import downloads, figures, plan_views, state, uploads, views
from planner.web.answer import answer, dataset_names, gpu_names, guarded, model_names, plans
from planner.web.configs import MOST_LAYERS, model_of
from planner.web.sections import SECTIONS
from tools.small_models import data_files

LLAMA = "meta-llama/Llama-3.1-8B"
SMALL = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 100, "tie_word_embeddings": False,
}  # fmt: skip
CHOSEN: list[dict[str, Any]] = [
    {"tokens": "300M", "gpu": "h100", "batch": 4, "checkpointing": True},
    {"model": "Qwen/Qwen3-30B-A3B", "rank": 64, "experts": "shared-outer", "dataset": "tulu-3-sft-mixture"},
    {"model": "moonshotai/Kimi-K2-Instruct", "rank": 8, "gpu": "h200", "gpus": 16, "sharding": "fsdp", "batch": 16},
    {"model": "Qwen/Qwen3-8B", "rank": 1, "episodes": "320k", "success_rate": 0.3, "layers": "attention,mlp"},
    {"model": "openai/whisper-large-v3"},
    {"gpu": "rtx4090", "quantize": "nf4", "precision": "bf16", "alpha": 16.5, "seq_len": 512, "price": 0.5},
]  # fmt: skip


def answered(**values: Any) -> Any:
    """An answer that is no error."""
    found = answer(state.choices(values))
    assert found.error is None, found.error
    return found


def refused(values: dict[str, Any]) -> str:
    """The sentence by which values are refused, as fields or by the planner."""
    chosen, error = guarded(lambda: state.choices(values))
    return str(error if chosen is None else answer(chosen).error)


def words(html: str) -> str:
    """What a reader sees of HTML."""
    seen: list[str] = []
    parser = HTMLParser()
    parser.handle_data = seen.append  # type: ignore[method-assign,assignment]
    parser.feed(html)
    return " ".join(" ".join(seen).split())


# The same numbers as the command line


@pytest.mark.parametrize("values", CHOSEN, ids=str)
def test_the_json_is_that_of_the_command_shown(
    values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = answered(**values)
    words_of_command = re.split(r"\s+", found.command)
    assert words_of_command[:2] == ["lora-plan", "estimate"]
    with pytest.raises(SystemExit) as stopped:
        main([*words_of_command[1:], "--json"])
    assert not stopped.value.code
    printed = capsys.readouterr().out
    assert json.loads(printed) == json.loads(json.dumps(found.plan))
    assert json.loads(downloads.document("plan.json", found.chosen).content) == json.loads(printed)


def test_headline_and_tables_show_the_plan() -> None:
    found = answered(tokens="300M", gpu="h100", batch=4, checkpointing=True)
    head = words(views.headline(found))
    for shown in (
        LLAMA,
        "88,121,344",
        units.rate(found.plan["learning_rate"]["value"]),
        "✗ The data do not fit",
        "rank 55 would do",
    ):
        assert shown in head, shown
    assert "27,262,976" in words(views.parameters(found))
    assert f"{found.plan['flops']['break_even_rank']:,}" in words(views.compute(found))
    for view in (views.memory, views.time_and_cost, views.notes, views.learning_rate, views.capacity):
        assert words(view(found))


def test_figures_hold_the_numbers_of_the_plan() -> None:
    found = answered(tokens="300M", gpu="h100", batch=4)
    plan = found.plan
    bars = figures.parameters(found)["data"][0]
    assert dict(zip(bars["y"], bars["x"], strict=True)) == plan["adapter"]["layer_sets"]
    line, here, data, _, needed = figures.capacity(found)["data"]
    assert dict(zip(line["x"], line["y"], strict=True))[32] == plan["capacity"]["bits"] == here["y"][0]
    assert data["y"] == [300e6, 300e6] and needed["x"] == [plan["capacity"]["required_rank"]]
    drawn = figures.memory(found)
    assert drawn is not None
    lora = sum(trace["x"][0] for trace in drawn["data"] if trace["type"] == "bar")
    assert lora * 2**30 == pytest.approx(plan["memory"]["lora"]["per_gpu_bytes"])
    step = figures.step(found)
    assert step is not None
    assert {trace["name"] for trace in step["data"]} <= {
        name.replace("_", " ") for name in plan["time"]["step"]["parts"]
    }


def test_a_curve_is_what_estimates_at_other_ranks_say() -> None:
    found = answered(model="Qwen/Qwen3-30B-A3B", rank=30)
    for rank, bits in found.curve:
        if rank in (1, 30, 128):
            assert answered(model="Qwen/Qwen3-30B-A3B", rank=rank).plan["capacity"]["bits"] == bits


@pytest.mark.parametrize("values", CHOSEN, ids=str)
def test_every_section_is_made_of_every_plan(values: dict[str, Any]) -> None:
    found = answered(**values)
    for _, figure, view in SECTIONS:
        json.dumps(figure(found), allow_nan=False)
        assert view(found)


def test_plans_are_those_of_the_search() -> None:
    found = plans(state.choices({"tokens": "20M", "gpu": "h100", "budget": 20, "batch": 16}))
    assert found.error is None and found.found is not None
    assert "--budget 20" in found.command and "--batch 16" in found.command
    best = found.found["best"]
    shown = words(plan_views.plans(found))
    within = best["time"]["interval"]
    assert f"{within['held']:.0%} of {within['judged']} sources" in shown
    assert (
        f"rank {best['rank']} on {best['layers']}" in shown
        and f"{found.found['candidates']:,} plans" in shown
    )
    figure = figures.frontier(found)
    assert figure is not None
    assert sum(len(trace["x"]) for trace in figure["data"]) == len(found.found["frontier"]) + 1
    assert figure["data"][-1]["x"] == [best["cost"]["usd"]]


def test_plans_say_what_is_missing_or_does_not_fit() -> None:
    assert "data and GPU" in plan_views.plans(plans(state.choices({})))
    none = plans(state.choices({"model": "moonshotai/Kimi-K2-Instruct", "tokens": "1M", "gpu": "rtx4090"}))
    assert none.error and "nearest" in none.error and 'role="alert"' in plan_views.plans(none)


# Links

TEXT = st.text(st.characters(codec="utf-8"), max_size=30).map(str.strip)


@given(
    st.builds(
        state.Choices, model=TEXT, rank=st.integers(1, 10**6), alpha=st.floats(0.1, 1e3), layers=TEXT.filter(bool),
        tokens=TEXT, gpu=TEXT, gpus=st.integers(1, 4096), seq_len=st.none() | st.integers(1, 10**6),
        success_rate=st.none() | st.floats(0, 1), budget=st.none() | st.floats(0.5, 1e6), config=TEXT,
    )
)  # fmt: skip
def test_a_link_brings_the_choices_back(chosen: state.Choices) -> None:
    back = state.from_query(dict(parse_qsl(state.query(chosen), keep_blank_values=True)))
    kept = {name: getattr(back, name) for name in state.NAMES}
    for name, value in kept.items():
        if name == "model" and chosen.config:
            continue  # the config stands in for it
        wanted = getattr(chosen, name)
        assert value == pytest.approx(wanted, rel=1e-9) if isinstance(wanted, float) else value == wanted, (
            name
        )


def test_a_link_is_short_and_a_pasted_config_travels_in_it() -> None:
    assert state.query(state.choices({})) == f"model={LLAMA}"
    text = json.dumps(SMALL)
    link = state.query(state.choices({"config": text, "rank": 4}))
    assert "model=" not in link and len(link) < 400
    back = state.from_query(dict(parse_qsl(link)))
    assert back.config == text and answer(back).plan["model"]["hidden_size"] == 64  # type: ignore[index]


# Downloads


def test_documents_and_configs() -> None:
    chosen = state.choices({"rank": 8, "tokens": "300M"})
    page = downloads.document("plan.md", chosen).content.decode()
    assert "22,030,336" in page
    tuned = state.choices({"rank": 8, "tokens": "300M", "layers": "attention,mlp"})
    rewarded = state.choices({"rank": 8, "episodes": "10k", "layers": "attention,mlp"})
    made = []
    for target in downloads.exports():
        for each in (tuned, rewarded):  # a trainer is for one of them, or for both
            file, error = guarded(lambda t=target, c=each: downloads.export(t.name, c))  # type: ignore[misc]
            assert (file is None) != (error is None)
            made += [target.name] if file is not None and file.content else []
    assert {"peft", "trl-sft", "trl-grpo"} <= set(made)
    config = json.loads(downloads.export("peft", chosen).content)
    assert config["r"] == 8


def test_a_pasted_config_downloads_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wide = {**SMALL, "hidden_size": 1024, "intermediate_size": 2048, "vocab_size": 4096}
    chosen = state.choices({"config": json.dumps(wide), "rank": 4})
    assert "config.json" in downloads.document("plan.html", chosen).content.decode()
    assert not list(tmp_path.iterdir())


def test_several_files_are_packed_alike_each_time() -> None:
    one = downloads.packed("x", {"run.sh": "#!/bin/sh\n", "a.yaml": "b: 1\n"})
    assert one == downloads.packed("x", {"run.sh": "#!/bin/sh\n", "a.yaml": "b: 1\n"})
    with zipfile.ZipFile(io.BytesIO(one.content)) as archive:
        assert archive.namelist() == ["run.sh", "a.yaml"]


def test_every_export_of_the_registry_has_a_button() -> None:
    shown = plan_views.downloads(answered(rank=8))
    for target in downloads.exports():
        assert f'href="download/export/{target.name}?model={LLAMA}&amp;rank=8"' in shown
    for name in downloads.DOCUMENTS:
        assert f'href="download/{name}?' in shown


# Hostile input does nothing

HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


@pytest.mark.parametrize(
    "name", ["model", "layers", "experts", "dataset", "tokens", "gpu", "quantize", "sharding"]
)
def test_markup_is_shown_and_not_obeyed(name: str) -> None:
    found = answer(state.choices({name: HOSTILE}))
    assert found.error is not None and found.plan is None
    shown = views.headline(found)
    assert "<script" not in shown and "<img" not in shown and 'role="alert"' in shown


def test_markup_in_a_config_is_shown_and_not_obeyed() -> None:
    found = answered(config=json.dumps({**SMALL, "_name_or_path": HOSTILE}))
    pages = [views.headline(found), views.notes(found), plan_views.downloads(found)]
    assert all("<script" not in page and "<img" not in page for page in pages)
    assert HOSTILE in words(pages[0])


@pytest.mark.parametrize(
    "place", ["{file}", "{folder}", "../{name}", "file://{file}", "~", "/etc/passwd", "."]
)
def test_no_file_of_the_server_is_read(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SMALL), encoding="utf-8")
    asked = place.format(file=file, folder=tmp_path, name=file.name)
    found = answer(state.choices({"model": asked}))
    assert found.plan is None and "the catalogue has no model" in str(found.error)


def test_a_folder_beside_the_server_does_not_stand_in_for_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / LLAMA
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SMALL), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert answered().plan["model"]["hidden_size"] == 4096


def test_the_hub_is_asked_only_where_the_server_may(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(name: str, suggestion: str = "") -> str:
        asked.append(name)
        raise InputError("model", name, "a model")

    monkeypatch.setattr("planner.architecture.hub.hub_config", fetch)
    answer(state.choices({"model": "someone/not-in-the-catalogue"}))
    assert asked == []
    answer(state.choices({"model": "someone/not-in-the-catalogue"}), hub=True)
    assert asked == ["someone/not-in-the-catalogue"]


BAD_CONFIGS: list[tuple[str, str]] = [
    ("{", "JSON"), ("[1]", "JSON object"), ("null", "JSON object"), ("{}", "model_type"), ("[" * 5000, "JSON"),
    (json.dumps({**SMALL, "hidden_size": 10**400}), "hidden_size"),
    (json.dumps({**SMALL, "num_hidden_layers": 10**9}), f"{MOST_LAYERS:,}"),
    (json.dumps({**SMALL, "vocab_size": 10**15}), "vocab_size"),
    (json.dumps({**SMALL, "hidden_size": -64}), "hidden_size"),
    (json.dumps({**SMALL, "model_type": "../../x"}), "model types"),
    (json.dumps({**SMALL, "model_type": ["llama"]}), "model_type"),
    (json.dumps({"model_type": "no-such-type", "auto_map": {"AutoModel": "evil.py"}}), "model types"),
    (json.dumps({**SMALL, "x": json.loads("[" * 60 + "]" * 60)}), "nested"),
    ("x" * 200_001, "200,000"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "named"), BAD_CONFIGS, ids=lambda value: str(value)[:30])
def test_bad_configs_are_one_sentence(text: str, named: str) -> None:
    error = refused({"config": text})
    assert named in error and len(error) < 500


def test_no_config_makes_the_server_work_long() -> None:
    """Every whole number of one model of each builder, made as large as the page lets through."""
    for model in (
        "openai/gpt-oss-20b",
        "state-spaces/mamba-130m-hf",
        "google/gemma-3-4b-it",
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
    ):
        config = dict(model_of(state.choices({"model": model})).config)
        for key, value in config.items():
            if isinstance(value, int) and not isinstance(value, bool):
                large = MOST_LAYERS if "layer" in key else 10**12
                found = answer(state.choices({"config": json.dumps({**config, key: large})}))
                assert (found.plan is None) != (found.error is None)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"rank": "9" * 400}, "rank"), ({"rank": "nan"}, "rank"), ({"rank": 1e300}, "rank"), ({"rank": 0}, "rank"),
        ({"gpus": 10**30}, "gpus"), ({"batch": -1}, "batch"), ({"seq_len": 1.5}, "seq-len"),
        ({"alpha": "inf"}, "alpha"), ({"tokens": "9" * 290}, "tokens"), ({"model": "x" * 10_000}, "model"),
        ({"tokens": "5", "episodes": "5"}, "episodes"), ({"gpu": "h1oo"}, "gpu"),
        ({"price": -1, "gpu": "h100"}, "price"), ({"checkpointing": "perhaps"}, "checkpointing"),
    ],
)  # fmt: skip
def test_bad_values_are_one_sentence(values: dict[str, Any], named: str) -> None:
    error = refused(values)
    assert error.startswith(named) and "\n" not in error and len(error) < 400


@pytest.mark.parametrize(
    "query", [{"config": "AAAA"}, {"config": "ä"}, {"rank": "x"}, {"config": "A" * 10**6}]
)
def test_bad_links_are_refused(query: dict[str, str]) -> None:
    with pytest.raises(InputError):
        state.from_query(query)


def test_a_packed_config_cannot_swell() -> None:
    bomb = state._packed("0" * 50_000_000)
    with pytest.raises(InputError):
        state.from_query({"config": bomb})


def test_unforeseen_errors_are_named_and_logged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("inner words")

    monkeypatch.setattr("planner.web.answer.estimate", fail)
    found = answer(state.choices({}))
    assert "ZeroDivisionError" in str(found.error) and "inner words" not in str(found.error)
    assert "inner words" in capsys.readouterr().err


# What there is to choose from


def test_lists_to_choose_from() -> None:
    assert LLAMA in model_names() and len(model_names()) == len({*facts.model_ids(), *facts.model_aliases()})
    assert "H100 SXM 80GB" in gpu_names() and "alpaca" in dataset_names()


def test_a_data_file_is_counted_under_a_key_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    data_files(tmp_path)
    key = uploads.take(tmp_path / "messages.jsonl", "/tmp/../x/my data<b>.jsonl")
    found = answered(data=key, layers="attention,mlp")
    assert found.plan["information"]["units"] == dataset(tmp_path / "messages.jsonl").distinct.value
    assert "--data my_data_b_.jsonl" in found.command and f"data={key}" in found.query
    text = downloads.export("axolotl", found.chosen).content.decode()
    assert "path: my_data_b_.jsonl" in text and str(tmp_path) not in text and "chat_template" in text
    assert plans(state.choices({"data": key, "gpu": "h100", "layers": "attention,mlp"})).found is not None


@pytest.mark.parametrize("key", ["../../etc/passwd", "/etc/passwd", "nobody", "<script>", "%00", "a" * 300])
def test_a_link_names_no_file_by_its_data(key: str) -> None:
    assert "Choose the file again" in refused({"data": key})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", b"\x1f\x8b\x08\x00"),
        ("x.parquet", b"PAR1"),
        ("x.jsonl", b""),
        ("x.jsonl", b"{]\n"),
        ("x.sh", b"a"),
    ],
)
def test_files_that_are_no_data_are_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    place = tmp_path / name
    place.write_bytes(content)
    with pytest.raises(InputError) as raised:
        uploads.take(place, name)
    assert str(tmp_path) not in str(raised.value)


def test_only_the_newest_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_KEPT", 2)
    data_files(tmp_path)
    keys = [uploads.take(tmp_path / "texts.jsonl", "texts.jsonl") for _ in range(3)]
    with pytest.raises(InputError):
        uploads.report_of(keys[0])
    assert uploads.report_of(keys[2]).data == "texts.jsonl"
