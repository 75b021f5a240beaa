"""Architectures without a builder, read off transformers' own build; and both routes against each other."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import PlannerError, estimate, facts
from planner.architecture import cache, meta
from planner.architecture.build import BUILDERS, build, build_natively
from planner.architecture.meta import recorder
from planner.errors import ConfigError, MissingDependencyError, UnsupportedArchitectureError
from planner.schema import Architecture

from . import oracle

pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parent.parent
HELIUM: dict[str, Any] = {
    "model_type": "helium", "architectures": ["HeliumForCausalLM"], "hidden_size": 48, "intermediate_size": 80,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 100,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def read_without_cache(config: dict[str, Any]) -> Architecture:
    from planner.architecture.meta.inventory import read
    from planner.architecture.meta.model import build_model

    return read(build_model(config), config, "transformers")


# ------------------------------------------------------------------------------------------- the two routes


def table(arch: Architecture) -> Counter[tuple[Any, ...]]:
    """An inventory's matrices as comparable rows, copies counted."""
    rows: Counter[tuple[Any, ...]] = Counter()
    for m in arch.matrices:
        side = m.outer if m.kind == "experts" else ""
        rows[m.name, m.role, m.kind, m.d_in, m.d_out, m.experts, m.experts_active, m.bias, m.tied, side] += (
            m.copies
        )
    return rows


def first_of_each_type() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in facts.model_ids():
        found.setdefault(facts.model(name).model_type, name)
    return {model_type: name for model_type, name in found.items() if model_type in BUILDERS}


# What differs on purpose, and why.
NOT_COMPARED = {
    "chatglm": "remote code only", "internlm": "remote code only", "internlm2": "remote code only",
    "minicpm": "remote code only", "mimo": "remote code only", "nemotron-nas": "remote code only",
    "kimi_k2": "loads as deepseek_v3",
    "dbrx": "transformers refuses the hub's config",
    "zamba": "the builder knows that a 3-D tensor over heads is a matrix",
    "gemma3": "transformers' projector does not say which side of its matrix is the input",
    "clip": "two towers of equal standing",
    "mistral": "the first model is a bare MistralModel, whose modules have no prefix",
}  # fmt: skip
COMPARED = {t: name for t, name in first_of_each_type().items() if t not in NOT_COMPARED}


@pytest.mark.parametrize("model_type", COMPARED)
def test_builder_and_meta_agree_matrix_by_matrix(model_type: str) -> None:
    config = json.loads(facts.model_config_path(COMPARED[model_type]).read_text(encoding="utf-8"))
    if (
        model_type != "glm4v"
    ):  # of which transformers takes no number of layers from where the hub's config has it
        config = oracle.shorter(config)
    ours, read = build_natively(config), read_without_cache(config)
    assert table(ours) == table(read)
    assert ours.params == read.params and ours.params_active == read.params_active
    same = ("hidden_size", "n_layers", "vocab_size", "model_type")
    assert [getattr(ours, name) for name in same] == [getattr(read, name) for name in same]


# ------------------------------------------------------------------------------- types that have no builder

SAMPLE = {
    "helium": "HeliumForCausalLM", "afmoe": "AfmoeForCausalLM", "longcat_flash": "LongcatFlashForCausalLM",
    "mamba2": "Mamba2ForCausalLM", "recurrent_gemma": "RecurrentGemmaForCausalLM", "jetmoe": "JetMoeForCausalLM",
    "xlnet": "XLNetLMHeadModel", "rwkv": "RwkvForCausalLM", "codegen": "CodeGenForCausalLM",
    "bart": "BartForConditionalGeneration", "switch_transformers": "SwitchTransformersForConditionalGeneration",
    "deberta-v2": "DebertaV2ForMaskedLM", "modernbert": "ModernBertForMaskedLM", "albert": "AlbertForMaskedLM",
    "llava_next": "LlavaNextForConditionalGeneration", "idefics2": "Idefics2ForConditionalGeneration",
    "blip-2": "Blip2ForConditionalGeneration", "internvl": "InternVLForConditionalGeneration",
}  # fmt: skip


def default_config(model_type: str) -> dict[str, Any]:
    from transformers import AutoConfig

    made = AutoConfig.for_model(model_type).to_dict()
    made |= {"model_type": model_type, "architectures": [SAMPLE[model_type]]}
    found: dict[str, Any] = json.loads(json.dumps(made, default=str))
    return found


@functools.cache
def built(model_type: str) -> Architecture:
    """A default model of a type, built once for all tests."""
    return build(default_config(model_type))


@pytest.mark.parametrize("model_type", [t for t in SAMPLE if t not in BUILDERS])
def test_every_parameter_of_a_default_model_is_counted_once(model_type: str) -> None:
    arch, model = built(model_type), oracle.meta_model(default_config(model_type))
    assert arch.params == oracle.params(model)
    assert arch.params_active <= arch.params
    linear = {name for name, m in model.named_modules() if type(m).__name__ in ("Linear", "Conv1D")}
    ours = {
        m.name.replace("{}", str(n))
        for m in arch.matrices
        if m.kind in ("linear", "conv1d")
        for n in m.layers
    }
    assert ours == linear


@given(
    st.integers(1, 3), st.sampled_from([(1, 1), (2, 1), (4, 2)]), st.integers(3, 9), st.booleans(), st.booleans(),
    st.integers(9, 70),
)  # fmt: skip
def test_random_small_models_equal_the_library(
    layers: int, heads: tuple[int, int], half: int, tied: bool, bias: bool, width: int
) -> None:
    config = {
        **HELIUM, "num_hidden_layers": layers, "num_attention_heads": heads[0], "num_key_value_heads": heads[1],
        "head_dim": 2 * half, "tie_word_embeddings": tied, "attention_bias": bias, "intermediate_size": width,
    }  # fmt: skip
    arch, model = read_without_cache(config), oracle.meta_model(config)
    assert oracle.our_inventory(arch) == oracle.their_inventory(model)
    assert arch.params == oracle.params(model) and arch.tied_embeddings == tied


@pytest.mark.parametrize("model_type", ["helium", "longcat_flash", "deberta-v2", "blip-2"])
def test_forms_that_are_remembered_are_those_that_torch_finds(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = default_config(model_type)
    known = read_without_cache(config)
    monkeypatch.setattr(recorder, "result", lambda func, args, kwargs: func(*args, **kwargs))
    assert same(known, read_without_cache(config))


COVERAGE = ROOT / "docs" / "coverage.md"


def covered() -> dict[tuple[str, str], list[str]]:
    """The rows of docs/coverage.md by model type and class."""
    rows: dict[tuple[str, str], list[str]] = {}
    for line in COVERAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 8:
            rows[cells[0], cells[1]] = cells
    return rows


@pytest.mark.parametrize("model_type", SAMPLE)
def test_the_coverage_page_says_what_the_program_counts(model_type: str) -> None:
    _, _, route, params, equal, _, _, flops = covered()[model_type, SAMPLE[model_type]]
    arch = built(model_type)
    assert equal == "equal" and params == f"{arch.params:,}"
    assert route == ("builder" if arch.built_by is None else "meta")
    assert flops == ("none" if arch.flops_gap else "exact")


def test_the_readme_states_the_share_that_the_page_has() -> None:
    page = COVERAGE.read_text(encoding="utf-8")
    causal = re.search(
        r"(\d+) of (\d+) build \((\d+) by a builder, \d+ through.*; exact FLOPs for (\d+)\.", page
    )
    assert causal is not None
    built, known, by_builder, exact = map(int, causal.groups())
    readme = (COVERAGE.parent.parent / "README.md").read_text(encoding="utf-8")
    assert f"Builders count {by_builder} of the {known} causal language models" in readme
    assert f"{built - exact} of them without a FLOP count" in readme


def test_roles_are_those_of_the_structure() -> None:
    roles = {m.name: m.role for m in meta.architecture(default_config("afmoe")).matrices}
    layer = "model.layers.{}."
    assert roles["model.embed_tokens"] == "embedding" and roles["lm_head"] == "unembedding"
    assert roles[layer + "self_attn.q_proj"] == "attention"
    assert roles[layer + "mlp.router.gate"] == "router"
    assert roles[layer + "mlp.experts.gate_up_proj"] == "expert"
    assert roles[layer + "mlp.shared_experts.up_proj"] == "shared_expert"
    llava = {m.role for m in meta.architecture(default_config("llava_next")).matrices}
    assert llava == {"vision", "projector", "embedding", "attention", "mlp", "unembedding"}


def test_an_estimate_says_where_its_inventory_comes_from() -> None:
    plan = estimate(HELIUM, rank=4, layers="all-linear").to_dict()
    notice = next(w for w in plan["warnings"] if w["code"] == "built-by-transformers")
    assert f"transformers {meta.transformers_version()}" in notice["message"]
    assert any("transformers" in json.dumps(source) for source in plan["sources"])
    assert plan["adapter"]["params"] == 4 * 2 * (48 + 48 + 2 * (48 + 24) + 48 + 48 + 3 * (48 + 80))


def test_a_class_that_the_builder_refuses_is_built_by_transformers() -> None:
    config = {"model_type": "bert", "architectures": ["BertForTokenClassification"]}
    assert build(config).params == 108_893_186  # bert-base without a pooler, with a head for two labels


# -------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_hidden_layers": 10**6}, "num_hidden_layers"), ({"hidden_size": 2**40}, "hidden_size"),
        ({"hidden_size": float("nan")}, "hidden_size"), ({"head_dim": "x"}, "head_dim"),
        ({"hidden_size": [1]}, "hidden_size"), ({"vocab_size": -1}, "vocab_size"),
        ({"num_labels": 10**9}, "num_labels"), ({"intermediate_size": 2**31 - 1}, "intermediate_size"),
        ({"layer_types": ["nonsense"]}, "layer_types|helium"), ({"num_attention_heads": 0}, "num_attention_heads"),
    ],
    ids=str,
)  # fmt: skip
def test_a_config_out_of_reach_is_one_line_at_once(change: dict[str, Any], named: str) -> None:
    build(HELIUM)  # the import of torch is not what is timed
    start = time.process_time()
    with pytest.raises(ConfigError, match=named) as caught:
        build({**HELIUM, **change})
    assert time.process_time() - start < 2
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_deep_nesting_and_odd_keys_are_refused() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(PlannerError, match="nested"):
        build({**HELIUM, "a": deep})
    with pytest.raises(ConfigError, match="text"):
        build({**HELIUM, "sub": {3: 4}})


def test_an_unknown_type_names_both_that_do_not_know_it() -> None:
    with pytest.raises(
        UnsupportedArchitectureError, match=r"no builder .* and transformers .* does not know it"
    ):
        build({**HELIUM, "model_type": "made_up_by_this_test"})


def test_no_code_of_a_repository_is_run_and_nothing_is_fetched() -> None:
    evil = {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
            "attn_implementation": "evil/kernels", "_attn_implementation": "evil/kernels",
            "quantization_config": {"quant_method": "evil"}, "trust_remote_code": True}  # fmt: skip
    with mock.patch(
        "transformers.dynamic_module_utils.get_class_from_dynamic_module", side_effect=AssertionError
    ):
        assert build({**HELIUM, **evil}).params == build(HELIUM).params


def test_without_torch_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'pip install "lora-plan\[validate\]"'):
        build(HELIUM)


# ----------------------------------------------------------------------------------------------------- cache


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"))


def same(a: Architecture, b: Architecture) -> bool:
    return all(getattr(a, name) == getattr(b, name) for name in Architecture.__dataclass_fields__)


@pytest.mark.parametrize("model_type", ["jetmoe", "blip-2"])
def test_what_is_kept_comes_back_whole(model_type: str, own_cache: Path) -> None:
    config = default_config(model_type)
    first, second = build(config), build(config)
    assert len(files(own_cache)) == 1 and first is not second
    assert same(first, second)


def test_blocks_are_kept_too(own_cache: Path) -> None:
    arch = build_natively(json.loads(facts.model_config_path("meta-llama/Llama-3.1-8B").read_text("utf-8")))
    cache.store("x", arch)
    found = cache.load("x")
    assert found is not None and same(arch, found)


def test_the_key_depends_on_the_content_and_on_who_read_it() -> None:
    keys = {cache.key(HELIUM, "a"), cache.key({**HELIUM, "vocab_size": 101}, "a"), cache.key(HELIUM, "b")}
    assert len(keys) == 3
    assert cache.key(dict(reversed(HELIUM.items())), "a") in keys


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', '{"key": "K", "architecture": {"Matrix": []}}',
                                     '{"key": "K", "architecture": {"os": ["x"]}}', "\x00" * 50])  # fmt: skip
def test_a_broken_file_is_built_anew(content: str, own_cache: Path) -> None:
    expected = build(HELIUM)
    [path] = files(own_cache)
    path.write_text(content.replace("K", path.stem), encoding="utf-8")
    assert same(build(HELIUM), expected)
    found = cache.load(path.stem)
    assert found is not None and same(found, expected)


def test_a_folder_that_cannot_be_written_does_no_harm(own_cache: Path) -> None:
    own_cache.write_text("a file where the folder would be", encoding="utf-8")
    assert build(HELIUM).params == build(HELIUM).params


CHILD = """
import json, os, sys
from planner import estimate
print(estimate(json.loads(sys.argv[1])).model.params)
print(*({"torch", "transformers"} & set(sys.modules)))
"""


def tell(start: Any, answers: Any) -> None:
    start.wait(120)
    answers.put(build(HELIUM).params)


def test_processes_at_once_agree_and_a_second_call_imports_nothing_heavy(own_cache: Path) -> None:
    """The first are copies of this process where the system makes such, which need not import torch again."""
    forks = "fork" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("fork" if forks else "spawn")
    start, answers = context.Barrier(2), context.Queue()
    at_once = [context.Process(target=tell, args=(start, answers), daemon=True) for _ in range(2)]
    for run in at_once:
        run.start()
    found = {answers.get(timeout=120) for _ in at_once}
    for run in at_once:
        run.join(120)
    assert [path.suffix for path in files(own_cache)] == [".json"]
    assert found == {build(HELIUM).params}
    env = {**os.environ, "PYTHONPATH": str(ROOT), cache.VARIABLE: str(own_cache)}
    command = [sys.executable, "-c", CHILD, json.dumps(HELIUM)]
    later = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert later.stdout.splitlines() == [str(build(HELIUM).params), ""], later.stderr


def test_the_cache_lies_where_the_platform_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == str(tmp_path / "lora-plan")
