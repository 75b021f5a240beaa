"""Reading learning-rate sweeps: the schema, the dialect of tinker-cookbook, and every way a file can be wrong."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from planner import facts
from planner.errors import InputError
from planner.learning_rate.families import family_of_name
from planner.learning_rate.sweep import read_sweep, write_sweep

GOOD = """model,family,hidden_size,method,rank,lr,loss
a,Llama,2048,lora,8,1e-4,0.9
a,llama,2048,lora,8,3e-4,0.8

a,llama,2048,full,,1e-5,0.85
a,llama,2048,full,0,3e-5,0.82
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_file(tmp_path: Path) -> None:
    sweep = read_sweep(write(tmp_path, GOOD))
    assert sweep.runs["line"].tolist() == [2, 3, 5, 6]  # the blank line counts
    assert set(sweep.runs["family"]) == {"llama"}
    assert sweep.runs["rank"].tolist() == [8, 8, 0, 0]
    assert len(sweep.finished) == 4 and not sweep.warnings


def test_a_frame_and_a_file_give_the_same(tmp_path: Path) -> None:
    frame = pd.read_csv(io.StringIO(GOOD))
    left, right = read_sweep(frame).runs, read_sweep(write(tmp_path, GOOD)).runs
    for column in ("model", "family", "hidden_size", "method", "rank", "lr", "loss"):
        assert left[column].tolist() == right[column].tolist()


def test_written_and_read_again(tmp_path: Path) -> None:
    sweep = read_sweep(facts.data_dir() / "sweeps" / "tinker_sft.csv")
    write_sweep(sweep, tmp_path / "again.csv")
    again = read_sweep(tmp_path / "again.csv")
    for column in ("model", "family", "hidden_size", "rank", "lr", "status"):
        assert sweep.runs[column].tolist() == again.runs[column].tolist()
    np.testing.assert_array_equal(sweep.runs["loss"], again.runs["loss"])


def test_the_shipped_sweep() -> None:
    sweep = read_sweep(facts.data_dir() / "sweeps" / "tinker_sft.csv")
    assert len(sweep.runs) == 527 and len(sweep.finished) == 422
    assert sweep.runs["model"].nunique() == 27
    families = {"llama", "qwen3", "qwen3.5", "deepseek", "kimi", "nemotron", "gpt-oss"}
    assert set(sweep.runs["family"]) == families


def edited(line: int, old: str, new: str) -> str:
    lines = GOOD.splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    return "\n".join(lines) + "\n"


HEAD = GOOD.splitlines()[0]
BAD = {
    "empty": ("", "empty"),
    "header only": (HEAD + "\n", "no runs"),
    "missing column": (GOOD.replace(",loss", ",los"), "no column loss"),
    "missing family": (GOOD.replace("family", "fam"), "no column family"),
    "duplicate header": (GOOD.replace("rank,", "lr,", 1), "column lr.*each column once"),
    "a thousand with a comma": (
        edited(2, "2048", "2.000").replace(",", ";").replace(".", ","),
        "line 2, column hidden_size: found '2,000'",
    ),
    "a thousand in quotation marks": (
        edited(2, "2048", '"2,048"'), "line 2, column hidden_size: found '2,048'.*write 2048",
    ),
    "a thousand with a space": (edited(2, "2048", "2 048"), "line 2, column hidden_size.*write 2048"),
    "a header twice in other cases": (GOOD.replace("rank,", "LR,", 1), "line 1, column .*each column once.*as well"),
    "a blank first line": ("\n" + GOOD, "first line is blank"),
    "a word for a rate": (edited(5, "1e-5", "1,5e-4"), "line 5"),
    "an open quotation": (edited(3, "0.8", '"0.8'), "quotation mark that is not closed"),
    "another word for the loss": (GOOD.replace(",loss", ",eval_loss"), "Rename eval_loss to loss"),
    "another word for the rate": (GOOD.replace(",lr,", ",learning_rate,"), "Rename learning_rate to lr"),
    "out of memory": (edited(5, "0.85", "OOM"), "line 5, column loss: found 'OOM'.*diverged or missing"),
    "a quoted decimal comma": (edited(5, "0.85", '"0,85"'), "line 5, column loss: found '0,85'.*semicolons"),
    "a status against the loss": (
        GOOD.replace("loss\n", "loss,status\n").replace("0.9\n", "diverged,ok\n"),
        "line 2, column status: found 'ok', expected diverged",
    ),
    "negative rate": (edited(3, "3e-4", "-3e-4"), "line 3, column lr.*-0.0003.*positive"),
    "zero rate": (edited(3, "3e-4", "0"), "line 3, column lr"),
    "empty rate": (edited(3, "3e-4", ""), "line 3, column lr: found ''.*field is empty"),
    "infinite rate": (edited(3, "3e-4", "inf"), "line 3, column lr"),
    "text in a number": (edited(5, "1e-5", "fast"), "line 5, column lr: found 'fast'.*a number"),
    "NaN loss": (edited(5, "0.85", "nan"), "line 5, column loss: found nan|line 5, column loss: found 'nan'"),
    "infinite loss": (edited(2, "0.9", "inf"), "line 2, column loss.*inf.*finite"),
    "minus infinity": (edited(2, "0.9", "-inf"), "line 2, column loss"),
    "empty loss": (edited(6, "0.82", ""), "line 6, column loss: found ''.*finite"),
    "negative loss": (edited(6, "0.82", "-0.82"), "line 6, column loss.*positive"),
    "empty model": (edited(2, "a,", ","), "line 2, column model"),
    "empty family": (edited(2, "Llama", " "), "line 2, column family"),
    "unknown method": (edited(2, "lora", "lroa"), "line 2, column method: found 'lroa'.*Did you mean lora"),
    "no rank": (edited(2, ",8,", ",,"), "line 2, column rank"),
    "half a rank": (edited(2, ",8,", ",8.5,"), "line 2, column rank: found 8.5|line 2, column rank"),
    "width of zero": (edited(2, "2048", "0"), "line 2, column hidden_size"),
    "two widths": (edited(3, "2048", "4096"), "line 3, column hidden_size.*2048, as in the model's other runs"),
    "two families": (edited(3, "llama", "qwen"), "line 3, column family.*llama"),
    "too many fields": (edited(3, "0.8", "0.8,9"), "line 3"),
    "too many in the first": (edited(2, "0.9", "0.9,9"), "line 2"),
    "too few fields": (edited(3, ",3e-4,0.8", ",3e-4"), "line 3, column loss"),
    "unknown status": (
        GOOD.replace("loss\n", "loss,status\n").replace("0.9\n", "0.9,dvierged\n"),
        "line 2, column status.*Did you mean diverged",
    ),
}  # fmt: skip


SPELLINGS = {
    "semicolons": GOOD.replace(",", ";"),
    "semicolons and decimal commas": GOOD.replace(",", ";").replace(".", ","),
    "tabs": GOOD.replace(",", "\t"),
    "tabs and decimal commas": GOOD.replace(",", "\t").replace(".", ","),
    "another case": GOOD.replace(HEAD, HEAD.upper()),
    "a byte-order mark": "\ufeff" + GOOD,
    "carriage returns": GOOD.replace("\n", "\r\n"),
    "quotation marks": "\n".join(",".join(f'"{x}"' for x in line.split(",")) for line in GOOD.splitlines()),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_other_spellings_are_the_same_sweep(case: str, tmp_path: Path) -> None:
    found = read_sweep(write(tmp_path, SPELLINGS[case])).runs.drop(columns="line")
    pd.testing.assert_frame_equal(found, read_sweep(write(tmp_path, GOOD)).runs.drop(columns="line"))


def test_words_for_a_loss_in_a_file_with_decimal_commas(tmp_path: Path) -> None:
    text = edited(5, "0.85", "Diverged").replace(",", ";").replace(".", ",")
    runs = read_sweep(write(tmp_path, text)).runs
    assert runs["status"].iloc[2] == "diverged" and math.isnan(runs["loss"].iloc[2])
    assert list(runs["loss"].iloc[:2]) == [0.9, 0.8]
    missing = read_sweep(write(tmp_path, edited(5, "0.85", "missing"))).runs
    assert missing["status"].iloc[2] == "missing"


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_files_are_named_by_line_and_column(case: str, tmp_path: Path) -> None:
    text, message = BAD[case]
    with pytest.raises(InputError, match=message):
        read_sweep(write(tmp_path, text))


def test_other_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_sweep(tmp_path / "none.csv")
    with pytest.raises(InputError, match="readable CSV"):
        read_sweep(tmp_path)
    (tmp_path / "sweep.csv").write_bytes(b"\xff\xff\x00\x01" * 10)
    with pytest.raises(InputError, match="line 1, column 1: found 'the byte 0xff'"):
        read_sweep(tmp_path / "sweep.csv")
    frame = pd.read_csv(io.StringIO(GOOD))
    frame.loc[1, "loss"] = float("nan")
    with pytest.raises(InputError, match="row 2, column loss"):
        read_sweep(frame)
    frame["loss"] = frame["loss"].fillna(1.0).astype(object)
    frame.loc[1, "loss"] = "low"
    with pytest.raises(InputError, match="row 2, column loss: found 'low'"):
        read_sweep(frame)


def test_runs_that_did_not_finish(tmp_path: Path) -> None:
    text = (
        GOOD.replace("loss\n", "loss,status\n")
        .replace("0.9\n", ",diverged\n")
        .replace("0.8\n", "nan,missing\n")
    )
    text = text.replace("0.85\n", "0.85,ok\n")
    sweep = read_sweep(write(tmp_path, text))
    assert sweep.runs["status"].tolist() == ["diverged", "missing", "ok", "ok"]
    assert sweep.runs["loss"].isna().tolist() == [True, True, False, False]
    bare = write(tmp_path, edited(5, "0.85", "inf"))
    assert read_sweep(bare, non_finite="diverged").runs["status"].tolist()[2] == "diverged"
    assert read_sweep(bare, non_finite="missing").runs["status"].tolist()[2] == "missing"
    with pytest.raises(InputError, match="non-finite"):
        read_sweep(bare, non_finite="drop")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("meta-llama/Llama-3.2-1B", "llama"),
        ("codellama/CodeLlama-7b-hf", "llama"),
        ("Qwen/Qwen3.5-9B-Base", "qwen3.5"),
        ("Qwen/Qwen3.6-35B-A3B", "qwen3.5"),
        ("Qwen/Qwen3-VL-30B-A3B-Instruct", "qwen3"),
        ("Qwen/Qwen2.5-7B", "qwen"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "llama"),
        ("deepseek-ai/DeepSeek-V3.1", "deepseek"),
        ("nvidia/Llama-3.1-Nemotron-70B-Instruct-HF", "llama"),
        ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", "nemotron"),
        ("moonshotai/Kimi-K2.5", "kimi"),
        ("openai/gpt-oss-20b", "gpt-oss"),
        ("01-ai/Yi-34B", "01-ai"),
        ("mistralai/Mixtral-8x7B-v0.1", "mistral"),
    ],
)
def test_families_by_name(name: str, family: str) -> None:
    assert family_of_name(name) == family
