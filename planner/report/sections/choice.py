"""What an adapter is, in words, for sentences and tables."""

from __future__ import annotations

from ..document import Text
from ..numbers import Material
from ..wording import a_list, name

_PRESETS = {"all": ["attention", "mlp", "unembedding"]}


def layers(m: Material) -> str:
    """What is adapted: "attention, mlp and unembedding", or the modules by name."""
    sets = m.get("adapter/layers")
    if sets:
        words = _PRESETS.get(sets, sets.split(","))
        return "every linear layer (PEFT's all-linear)" if sets == "all-linear" else a_list(list(words))
    regex = m.get("adapter/target_regex")
    if regex:
        return f"modules that match {name(regex)}"
    targets = [*(m.get("adapter/targets") or ()), *(m.get("adapter/target_parameters") or ())]
    return a_list([name(target) for target in targets]) or "what the adapter's file names"


def kind(m: Material) -> str:
    """LoRA, QLoRA or DoRA."""
    return "DoRA" if m.get("adapter/variant") == "dora" else "QLoRA" if m.get("method") == "qlora" else "LoRA"


def judged(m: Material, within: str) -> Text:
    """How often intervals like that of a section held sources that they had not met: 97% of 12 sources."""
    word = " source" if m.get(f"{within}/judged") == 1 else " sources"
    return (m.number(f"{within}/held", "percent"), " of ", m.number(f"{within}/judged"), word)


def more(m: Material) -> str:
    """What else the adapter does: experts, chosen layers, modules in full, biases."""
    found = []
    if m.get("adapter/expert_rank") is not None:
        found.append(f"experts {m.get('adapter/experts')}")
    if m.get("adapter/layers_to_transform") is not None:
        found.append("only some layers")
    if saved := m.get("adapter/modules_to_save"):
        found.append(f"{a_list([name(item) for item in saved])} in full")
    if m.get("adapter/bias") not in (None, "none"):
        found.append(f"biases {m.get('adapter/bias')}")
    if m.get("adapter/use_rslora"):
        found.append("rsLoRA's scale")
    return ", ".join(found)


def memory(m: Material) -> str:
    """The path of the run's own memory: that of LoRA, or of QLoRA where the base is quantised."""
    return f"memory/{m.get('method') or 'lora'}"


def unit(m: Material) -> str:
    """What information is counted by."""
    return "episode" if m.get("information/kind") == "rl" else "loss token"


def basis(m: Material, section: str) -> str:
    """The evidence behind a section: exact, fitted, assumed ... or not known."""
    found = m.get(f"{section}/basis")
    return str(found) if found else "not known"
