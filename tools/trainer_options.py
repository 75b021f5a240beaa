"""Read the names of a trainer's options from the installed package into data/trainers/.

    python tools/trainer_options.py ID[=VERSION] ...

Run it in an environment that has the package; nothing is trained or downloaded.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent.parent / "data" / "trainers"


def fields(*classes: Any) -> set[str]:
    """The names of dataclasses' fields."""
    return {field.name for kind in classes for field in dataclasses.fields(kind) if field.init}


def trl_sft() -> Iterable[str]:
    """What `trl sft` reads."""
    from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig

    return fields(ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig)


def trl_grpo() -> Iterable[str]:
    """What `trl grpo` reads."""
    from trl import DatasetMixtureConfig, GRPOConfig, ModelConfig
    from trl.scripts.grpo import GRPOScriptArguments

    return fields(GRPOScriptArguments, GRPOConfig, ModelConfig, DatasetMixtureConfig)


def peft() -> Iterable[str]:
    """The fields of PEFT's LoraConfig."""
    from peft import LoraConfig

    return fields(LoraConfig) | {"peft_version"}


def default_targets() -> dict[str, Any]:
    """What PEFT adapts of each model type where no names are given."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    return {"default_targets": {kind: list(names) for kind, names in sorted(KNOWN.items())}}


def accelerate() -> Iterable[str]:
    """What a launcher's YAML may hold."""
    from accelerate.commands.config.config_args import ClusterConfig

    return fields(ClusterConfig)


def axolotl() -> Iterable[str]:
    """What Axolotl's own schema has."""
    from axolotl.utils.schemas.config import AxolotlInputConfig

    found = set(AxolotlInputConfig.model_fields)
    for field in AxolotlInputConfig.model_fields.values():
        aliases = getattr(field.validation_alias, "choices", [field.validation_alias, field.alias])
        found |= {name for name in aliases if isinstance(name, str)}
    spec = importlib.util.find_spec("axolotl.integrations")
    assert spec is not None
    assert spec.submodule_search_locations
    for path in Path(spec.submodule_search_locations[0]).glob(
        "*/args.py"
    ):  # plugins bring options of their own
        tree_ = ast.parse(path.read_text(encoding="utf-8"))
        found |= attributes(tree_, *(node.name for node in ast.walk(tree_) if isinstance(node, ast.ClassDef)))
    return found


def llamafactory() -> Iterable[str]:
    """What LLaMA-Factory's parser reads; the Trainer's arguments are those of the transformers beside it."""
    from llamafactory.hparams import DataArguments, FinetuningArguments, GeneratingArguments, ModelArguments
    from llamafactory.hparams import TrainingArguments as Arguments

    return fields(ModelArguments, DataArguments, Arguments, FinetuningArguments, GeneratingArguments)


def templates() -> dict[str, Any]:
    """LLaMA-Factory's chat template of each model that it names, by hub id."""
    from llamafactory.extras.constants import DEFAULT_TEMPLATE, SUPPORTED_MODELS, DownloadSource

    found = {
        paths[DownloadSource.DEFAULT]: DEFAULT_TEMPLATE[name]
        for name, paths in SUPPORTED_MODELS.items()
        if name in DEFAULT_TEMPLATE and DownloadSource.DEFAULT in paths
    }
    return {"templates": dict(sorted(found.items()))}


def tree(package: str, path: str) -> ast.Module:
    """A module of an installed package that needs a GPU to be imported, as a syntax tree."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return ast.parse((Path(spec.submodule_search_locations[0]) / path).read_text(encoding="utf-8"))


def parameters(module: ast.Module, name: str) -> set[str]:
    """The parameters of every function of this name."""
    found = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and node.name == name]
    return {arg.arg for node in found for arg in (*node.args.args, *node.args.kwonlyargs)} - {"self", "model"}


def attributes(module: ast.Module, *names: str) -> set[str]:
    """The annotated fields of these classes."""
    found = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef) and node.name in names]
    assert {node.name for node in found} == set(names), names
    return {
        item.target.id
        for node in found
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


def unsloth() -> Iterable[str]:
    """The arguments of Unsloth's loader and of its get_peft_model, with what that hands on to LoraConfig."""
    from peft import LoraConfig

    llama = tree("unsloth", "models/llama.py")
    return (
        parameters(tree("unsloth", "models/loader.py"), "from_pretrained")
        | parameters(llama, "get_peft_model") | fields(LoraConfig)
    )  # fmt: skip


def tinker() -> Iterable[str]:
    """The arguments of Tinker's client that a script sets."""
    client = tree("tinker", "lib/public_interfaces/service_client.py")
    adam = attributes(tree("tinker", "types/optimizer.py"), "AdamParams")
    return parameters(client, "create_lora_training_client") | adam


def torchtune() -> Iterable[str]:
    """The keys of torchtune's own LoRA configs."""
    found: set[str] = set()
    for _, config in recipes():
        found |= set(config) | set(config["model"]) | set(config["checkpointer"])
    return found | {"fsdp_cpu_offload"}


def recipes() -> list[tuple[str, dict[str, Any]]]:
    """torchtune's configs of LoRA: the hub id that each names, and its content."""
    import yaml

    spec = importlib.util.find_spec("recipes")
    assert spec is not None
    assert spec.submodule_search_locations
    found = []
    for path in sorted((Path(spec.submodule_search_locations[0]) / "configs").glob("*/*_lora*.yaml")):
        text = path.read_text(encoding="utf-8")
        hub = re.search(r"tune download (\S+)", text)
        config = yaml.safe_load(text)
        if hub and "vision" not in path.parent.name and "model" in config:
            found.append((hub[1], config))
    return found


def components() -> dict[str, Any]:
    """What torchtune loads for each model: its builder, tokenizer and files."""
    found: dict[str, Any] = {}
    for hub, config in recipes():
        folder = config["checkpointer"]["checkpoint_dir"].rstrip("/")
        files = config["checkpointer"]["checkpoint_files"]
        plain = hub.lower().replace("meta-llama-", "llama-")
        if plain in found or not config["model"]["_component_"].rpartition(".")[2].startswith("lora_"):
            continue
        tokenizer = {
            key: value.replace(folder, "{}")
            for key, value in config["tokenizer"].items()
            if isinstance(value, str)
        }
        found[plain] = {
            "hub": hub, "builder": config["model"]["_component_"], "tokenizer": tokenizer,
            "output": "apply_lora_to_output" in config["model"], "model_type": config["checkpointer"]["model_type"],
            "checkpointer": config["checkpointer"]["_component_"], "files": files,
        }  # fmt: skip
    return {"models": found}


def megatron() -> Iterable[str]:
    """The fields of the dataclasses that a script of Megatron-Bridge fills, and of megatron-core's optimizer."""
    bridge = "megatron.bridge"
    config = tree(bridge, "training/config.py")
    base = (
        tree("megatron.training", "config/training_config.py"),
        tree("megatron.training", "config/common_config.py"),
    )
    return (
        attributes(tree(bridge, "peft/lora.py"), "LoRA")
        | attributes(tree(bridge, "peft/canonical_lora.py"), "CanonicalLoRA")
        | attributes(config, "ConfigContainer", "CheckpointConfig")
        | attributes(
            base[0],
            "TrainingConfig",
            "SchedulerConfig",
            "CheckpointConfig",
            "LoggerConfig",
            "TokenizerConfig",
        )
        | attributes(base[1], "RNGConfig")
        | attributes(tree(bridge, "data/builders/gpt_sft.py"), "GPTSFTDatasetConfig")
        | attributes(tree(bridge, "data/sources/hf.py"), "HFDatasetSourceConfig")
        | attributes(tree(bridge, "training/tokenizers/config.py"), "TokenizerConfig")
        | attributes(tree("megatron.core", "optimizer/optimizer_config.py"), "OptimizerConfig")
        | RESOLVED
    )


# Fields of the model's own config that a script sets after it was read off the hub.
RESOLVED = {
    "seq_length", "tensor_model_parallel_size", "pipeline_model_parallel_size", "expert_model_parallel_size",
    "context_parallel_size", "recompute_granularity", "recompute_method", "recompute_num_layers",
}  # fmt: skip
EXTRA: dict[str, Callable[[], dict[str, Any]]] = {
    "llamafactory": templates, "torchtune": components, "peft": default_targets,
}  # fmt: skip
GITHUB = "https://github.com"
# package, where its source is, what was read of it, the function that reads it
TRAINERS: dict[str, tuple[str, str, str, Callable[[], Iterable[str]]]] = {
    "peft": ("peft", "huggingface/peft", "src/peft/tuners/lora/config.py, utils/constants.py", peft),
    "trl-sft": ("trl", "huggingface/trl", "the dataclasses of trl/scripts/sft.py", trl_sft),
    "trl-grpo": ("trl", "huggingface/trl", "the dataclasses of trl/scripts/grpo.py", trl_grpo),
    "axolotl": ("axolotl", "axolotl-ai-cloud/axolotl", "axolotl/utils/schemas", axolotl),
    "llamafactory": ("llamafactory", "hiyouga/LLaMA-Factory", "hparams, extras/constants.py", llamafactory),
    "unsloth": ("unsloth", "unslothai/unsloth", "unsloth/models/loader.py, llama.py", unsloth),
    "tinker": ("tinker", "thinking-machines-lab/tinker", "lib/public_interfaces/service_client.py", tinker),
    "torchtune": ("torchtune", "meta-pytorch/torchtune", "recipes/configs", torchtune),
    "megatron": ("megatron-bridge", "NVIDIA-NeMo/Megatron-Bridge", "peft, training/config.py", megatron),
    "accelerate": ("accelerate", "huggingface/accelerate", "ClusterConfig", accelerate),
}


def entry(name: str, given: str) -> dict[str, Any]:
    """The facts of one trainer; `given` names the version where the source was not installed by a package."""
    package, place, locator, read = TRAINERS[name]
    return {
        "id": name,
        "package": package,
        "version": given or version(package),
        "source": {
            "title": f"{package} {given or version(package)}",
            "url": f"{GITHUB}/{place}",
            "locator": locator,
            "date": str(date.today()),
            "kind": "documentation",
        },
        "options": sorted(read()),
        **({"extra": EXTRA[name]()} if name in EXTRA else {}),
    }  # fmt: skip


def main() -> int:
    """Write the files of the trainers that are named."""
    warnings.simplefilter("ignore")
    OUT.mkdir(exist_ok=True)
    for argument in sys.argv[1:]:
        name, _, given = argument.partition("=")
        path = OUT / f"{name}.json"
        path.write_text(json.dumps(entry(name, given), indent=1) + "\n", encoding="utf-8")
        print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
