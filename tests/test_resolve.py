"""Names, paths and mappings to configs: the catalogue, copies of its models, local files."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors

from planner import facts
from planner.architecture import hub
from planner.architecture import resolve as resolving
from planner.architecture.resolve import resolve
from planner.errors import (
    ConfigError,
    HubError,
    InputError,
    PlannerError,
    UnknownModelError,
)

from .hub_fakes import LLAMA, cached, fail, write
from .hub_fakes import no_hub as no_hub

pytestmark = pytest.mark.usefixtures("no_hub")


# Catalogue


@pytest.mark.parametrize(
    ("name", "model_id", "target"),
    [
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("META-LLAMA/llama-3.1-8b", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        (" Qwen/Qwen3-8B ", "Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("Llama-3.1-8B", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("llama_3.1_8b", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("gpt2", "gpt2", "openai-community/gpt2"),
        ("GPT2", "gpt2", "openai-community/gpt2"),
        ("bert-base-uncased", "bert-base-uncased", "google-bert/bert-base-uncased"),
        ("HuggingFaceH4/zephyr-7b-beta", "HuggingFaceH4/zephyr-7b-beta", "mistralai/Mistral-7B-v0.1"),
        ("zephyr-7b-beta", "HuggingFaceH4/zephyr-7b-beta", "mistralai/Mistral-7B-v0.1"),
        ("llama-3-8b-instruct", "meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct"),
        ("llama-2-7b-chat", "meta-llama/Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-chat-hf"),
    ],
)
def test_names_of_the_catalogue(name: str, model_id: str, target: str) -> None:
    found = resolve(name)
    assert (found.model_id, found.catalogue_id, found.origin) == (model_id, target, "catalogue")
    assert found.notices == ()
    assert found.config == json.loads(facts.model_config_path(target).read_text())
    assert found.sources == (facts.model(target).source,)


def test_every_name_resolves_silently() -> None:
    for name in (*facts.model_ids(), *facts.model_aliases()):
        found = resolve(name)
        assert (found.model_id.lower(), found.notices) == (name.lower(), ())
        assert resolve(name.upper()).catalogue_id == found.catalogue_id


def test_every_bare_name_resolves_to_the_same_architecture() -> None:
    for name in facts.model_ids():
        found = resolve(name.split("/")[-1])
        assert found.catalogue_id
        assert facts.model(found.catalogue_id).architecture == facts.model(name).architecture


def test_the_published_total_comes_with_its_note() -> None:
    found = resolve("meta-llama/Llama-3.1-8B")
    assert found.published_params == 8_030_261_248
    assert "exact" in found.published_note
    assert "router" in resolve("deepseek-ai/DeepSeek-V3").published_note


def test_a_caller_may_change_the_config_it_got() -> None:
    first = resolve("gpt2").config
    assert isinstance(first, dict)
    first["n_layer"] = 0
    assert resolve("gpt2").config["n_layer"] == 12


def test_an_ambiguous_bare_name_lists_its_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"twin": ("Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B")}
    monkeypatch.setattr(resolving, "_by_bare_name", lambda: known)
    with pytest.raises(InputError, match=r"one of Qwen/Qwen3-8B, meta-llama/Llama-3\.1-8B"):
        resolve("twin")
    with pytest.raises(InputError):
        resolve("twin-AWQ")
    asked: list[str] = []
    monkeypatch.setattr(resolving, "_from_hub_file", lambda name, path: asked.append(name))
    monkeypatch.setattr(hub, "hub_config", lambda name, hint: "path")
    resolve("someone/twin")
    assert asked == ["someone/twin"]


# Copies


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("unsloth/Qwen3-14B-bnb-4bit", "Qwen/Qwen3-14B"),
        ("unsloth/Qwen3-14B-unsloth-bnb-4bit", "Qwen/Qwen3-14B"),
        ("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit", "meta-llama/Meta-Llama-3.1-8B-Instruct"),
        ("mlx-community/Qwen2.5-7B-Instruct-4bit", "Qwen/Qwen2.5-7B-Instruct"),
        ("mlx-community/Qwen2.5-7B-Instruct-8bit", "Qwen/Qwen2.5-7B-Instruct"),
        ("mlx-community/Qwen3-8B-4bit-DWQ", "Qwen/Qwen3-8B"),
        ("mlx-community/Qwen3-8B-bf16", "Qwen/Qwen3-8B"),
        ("lmstudio-community/Qwen2.5-7B-Instruct-MLX-4bit", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen3-8B-AWQ", "Qwen/Qwen3-8B"),
        ("Qwen/Qwen3-30B-A3B-FP8", "Qwen/Qwen3-30B-A3B"),
        ("Qwen/Qwen3-8B-GGUF", "Qwen/Qwen3-8B"),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", "meta-llama/Meta-Llama-3.1-8B-Instruct"),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4", "meta-llama/Meta-Llama-3.1-8B-Instruct"),
        ("neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8", "meta-llama/Meta-Llama-3.1-8B-Instruct"),
        ("RedHatAI/Qwen3-8B-FP8-dynamic", "Qwen/Qwen3-8B"),
        ("RedHatAI/Qwen3-8B-FP8-block", "Qwen/Qwen3-8B"),
        ("RedHatAI/Llama-3.2-1B-Instruct-quantized.w8a8", "meta-llama/Llama-3.2-1B-Instruct"),
        ("RedHatAI/Llama-3.2-1B-Instruct-quantized.w4a16", "meta-llama/Llama-3.2-1B-Instruct"),
        ("RedHatAI/Llama-3.2-1B-Instruct-W4A16-G128", "meta-llama/Llama-3.2-1B-Instruct"),
        ("nvidia/Llama-3.3-70B-Instruct-NVFP4", "meta-llama/Llama-3.3-70B-Instruct"),
        ("amd/Llama-3.1-8B-Instruct-FP8-KV", "meta-llama/Llama-3.1-8B-Instruct"),
        ("someone/Llama-3.1-8B-Instruct-MXFP4", "meta-llama/Llama-3.1-8B-Instruct"),
        ("someone/Llama-3.1-8B-Instruct-int4", "meta-llama/Llama-3.1-8B-Instruct"),
        ("someone/Llama-3.1-8B-Instruct-nf4", "meta-llama/Llama-3.1-8B-Instruct"),
        ("someone/Llama-3.1-8B-Instruct-HQQ", "meta-llama/Llama-3.1-8B-Instruct"),
        ("turboderp/Llama-3.1-8B-Instruct-exl2", "meta-llama/Llama-3.1-8B-Instruct"),
        ("someone/Llama-3.1-8B-Instruct-exl2-4.25bpw", "meta-llama/Llama-3.1-8B-Instruct"),
        ("someone/Llama-3.2-3B-Instruct-Q4_K_M-GGUF", "meta-llama/Llama-3.2-3B-Instruct"),
        ("someone/Llama-3.2-3B-Instruct-IQ3_XXS", "meta-llama/Llama-3.2-3B-Instruct"),
        ("google/gemma-3-27b-it-qat-q4_0-gguf", "google/gemma-3-27b-it"),
        ("TheBloke/Mistral-7B-Instruct-v0.2-GPTQ", "mistralai/Mistral-7B-Instruct-v0.2"),
        ("TheBloke/Llama-2-70B-GPTQ", "meta-llama/Llama-2-70b-hf"),
        ("TheBloke/Llama-2-7B-Chat-AWQ", "meta-llama/Llama-2-7b-chat-hf"),
        ("bartowski/Qwen_Qwen3-8B-GGUF", "Qwen/Qwen3-8B"),
        ("NousResearch/Llama-3.1-70B", "meta-llama/Llama-3.1-70B"),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-FP8", "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"),
        ("Llama-3.1-8B-Instruct-AWQ", "meta-llama/Llama-3.1-8B-Instruct"),
    ],
)
def test_copies_of_known_models(name: str, target: str) -> None:
    found = resolve(name)
    assert (found.model_id, found.catalogue_id, found.origin) == (name, target, "catalogue")
    assert [notice.code for notice in found.notices] == ["assumed-architecture"]
    assert target in found.notices[0].message and name in found.notices[0].message


@pytest.mark.parametrize(
    "name",
    [
        "someone/Qwen3-8B-pruned",
        "someone/Llama-3.1-8B-Instruct-abliterated-4bit",
        "someone/Qwen3-9B-4bit",
        "a/4bit",
    ],
)
def test_a_name_with_more_than_a_copys_suffix_is_not_assumed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, errors.LocalEntryNotFoundError("gone"))
    with pytest.raises(HubError, match=name):
        resolve(name)


def test_a_cached_config_goes_before_an_assumption(tmp_path: Path) -> None:
    cached(tmp_path, "unsloth/Qwen3-14B-bnb-4bit", {**LLAMA, "quantization_config": {"bits": 4}})
    found = resolve("unsloth/Qwen3-14B-bnb-4bit")
    assert found.origin == "hub" and found.notices == ()
    assert found.config["hidden_size"] == 8 and found.config["quantization_config"] == {"bits": 4}


# Unknown names


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Llama-3.1-8b-instrct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("qwen3-8", "Qwen/Qwen3-8B"),
        ("gpt3", "gpt2"),
    ],
)
def test_an_unknown_bare_name_gets_near_names_without_asking_the_hub(name: str, near: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        resolve(name)
    assert near in str(caught.value) and "Did you mean" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "   ", "a\x00b", "gpt2\n", "\x1b[31mgpt2", "x" * 301, "a/" + "b" * 400, 5, None, ["gpt2"]]
)
def test_names_that_cannot_be_names(name: Any) -> None:
    with pytest.raises(InputError, match="model"):
        resolve(name)


@pytest.mark.parametrize(
    "name", ["a/b/c", "--x/y", "a//b", "ü/x", "http://example.org/model", "a b", "*", "-", "org/"]
)
def test_odd_names_are_unknown(name: str) -> None:
    with pytest.raises(UnknownModelError):
        resolve(name)


# Mappings


def test_a_mapping_is_a_config() -> None:
    found = resolve(LLAMA)
    assert (found.origin, found.model_id, found.config) == ("config", "config", LLAMA)
    assert resolve({**LLAMA, "_name_or_path": "me/mine"}).model_id == "me/mine"


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": None},
        {"model_type": ""},
        {"model_type": 3},
        {"model_type": ["llama"]},
        {"architectures": ["X"]},
    ],
)
def test_a_config_must_say_its_model_type(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="model_type"):
        resolve(config)


# Files


def test_a_file_a_folder_and_a_path_object(tmp_path: Path) -> None:
    path = write(tmp_path / "config.json", json.dumps({**LLAMA, "quantization_config": {"bits": 4}}))
    for given in (path, tmp_path, str(path), str(tmp_path)):
        found = resolve(given)
        assert found.origin == "local" and found.model_id == str(tmp_path)
        assert found.config["quantization_config"] == {"bits": 4}
        assert found.sources[0].url == path.as_uri()
    other = write(tmp_path / "other.json", json.dumps(LLAMA))
    assert resolve(other).model_id == str(other)


def test_relative_and_home_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "config.json", json.dumps(LLAMA))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in (".", "./config.json", "config.json", "~", "~/config.json"):
        assert resolve(given).origin == "local"


def test_a_folder_hides_a_name_only_if_it_holds_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    assert resolve("gpt2").origin == "catalogue"
    write(tmp_path / "gpt2" / "config.json", json.dumps(LLAMA))
    assert resolve("gpt2").origin == "local"
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConfigError, match="no config.json"):
        resolve("nothing")


def test_byte_order_mark_and_unicode(tmp_path: Path) -> None:
    text = json.dumps({**LLAMA, "note": "größer"}, ensure_ascii=False)
    assert resolve(write(tmp_path / "c.json", b"\xef\xbb\xbf" + text.encode())).config["note"] == "größer"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ('{"model_type": "llama",\n  oops}', "line 2, column 3"),
        ("[1, 2]", "holds list"),
        ("null", "holds NoneType"),
        ('"llama"', "holds str"),
        ("{}", "no model_type"),
        ('{"architectures": ["LlamaForCausalLM"]}', "no model_type .*LlamaForCausalLM"),
        ('{"peft_type": "LORA", "base_model_name_or_path": "gpt2"}', "adapter.*gpt2"),
        (b"\x80\x04\x95binary", "not UTF-8"),
        (b"GGUF\x00\xff\xfe", "not UTF-8"),
        ("[" * 200_000, "nested too deeply"),
        ('{"model_type": "llama", "n": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, content: str | bytes, message: str) -> None:
    if "9" * 5000 in str(content) and sys.version_info < (3, 11):
        pytest.skip("long numbers are read there")
    with pytest.raises(ConfigError, match=message):
        resolve(write(tmp_path / "config.json", content))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for given in (tmp_path / "no.json", tmp_path / "no" / "config.json", "./no", "no.json", "~/no/such"):
        with pytest.raises(ConfigError, match="does not exist"):
            resolve(given)
    with pytest.raises(ConfigError, match="no config.json"):
        resolve(tmp_path)
    write(tmp_path / "adapter_config.json", "{}")
    with pytest.raises(ConfigError, match="adapter"):
        resolve(tmp_path)
    with pytest.raises(ConfigError):
        resolve(write(tmp_path / "file", "x") / "config.json")
    with pytest.raises(ConfigError):
        resolve("./" + "x" * 5000)


def test_a_huge_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2 * 10**9)
    start = time.process_time()
    with pytest.raises(ConfigError, match="2,000 MB, so it is not a config"):
        resolve(path)
    assert time.process_time() - start < 0.5


def test_pipes_devices_and_loops_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    os.symlink(tmp_path / "loop.json", tmp_path / "loop.json")
    for given in (tmp_path / "config.json", tmp_path, "/dev/zero", tmp_path / "loop.json"):
        with pytest.raises(ConfigError):
            resolve(given)


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "config.json", json.dumps(LLAMA))

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # chmod does not stop root
    with pytest.raises(ConfigError, match="permission denied"):
        resolve(path)
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ConfigError, match="permission denied"):
        resolve(path)


def test_every_failure_is_one_of_ours() -> None:
    """Whatever the input, the error is of the package's family."""
    for odd in (
        "",
        "\x00",
        "💥",
        "a" * 1000,
        "../..",
        "~nobody/x",
        "C:\\x",
        "config.json",
        b"gpt2",
        3.5,
        object(),
    ):
        with pytest.raises(PlannerError):
            resolve(odd)  # type: ignore[arg-type]
