"""Models of some ten thousand random weights with a tokenizer of 32 words, and data files in the usual formats."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

WORDS = ["<pad>", "<eos>", "<unk>", *(f"w{n}" for n in range(29))]
# What the assistant writes is marked, as trainers ask for that mask it.
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }} <eos> "
    "{% endgeneration %}{% else %}{{ 'w0 ' + m['content'] + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{% endif %}"
)
EXAMPLES = 48
SHARED: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 32, "max_position_embeddings": 128, "eos_token_id": 1,
    "pad_token_id": 0, "bos_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}


def small_models(root: Path) -> None:
    """Write llama, qwen3 and qwen3_moe as folders that transformers loads."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens(["<pad>", "<eos>", "<unk>"])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", chat_template=TEMPLATE,
        model_max_length=128,
    )  # fmt: skip
    torch.manual_seed(0)
    for name, kind, more in (
        ("llama", "Llama", {}), ("qwen3", "Qwen3", {}), ("qwen3_moe", "Qwen3Moe", EXPERTS),
    ):  # fmt: skip
        config = getattr(transformers, f"{kind}Config")(**SHARED, **more)
        getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)


def _rows() -> dict[str, list[dict[str, Any]]]:
    pick = random.Random(0)

    def said(count: int) -> str:
        return " ".join(pick.choice(WORDS[3:]) for _ in range(count))

    def rows(**columns: Any) -> list[dict[str, Any]]:
        return [{name: make(n) for name, make in columns.items()} for n in range(EXAMPLES)]

    def chat(role: str, content: str, names: tuple[str, str]) -> Any:
        return lambda n: [{role: names[0], content: said(4)}, {role: names[1], content: said(6)}]

    return {
        "messages": rows(messages=chat("role", "content", ("user", "assistant"))),
        "sharegpt": rows(conversations=chat("from", "value", ("human", "gpt"))),
        "alpaca": rows(instruction=lambda n: said(4), input=lambda n: said(2) if n % 2 else "",
                       output=lambda n: said(6)),
        "prompts": rows(prompt=lambda n: said(4) + " ", completion=lambda n: said(6)),
        "questions": rows(question=lambda n: said(4) + " ", answer=lambda n: said(6)),
        "texts": rows(text=lambda n: said(12)),
        "problems": rows(prompt=lambda n: [{"role": "user", "content": said(4)}], solution=lambda n: "w1"),
    }  # fmt: skip


def data_files(folder: Path) -> None:
    """Write a file of each format."""
    folder.mkdir(parents=True, exist_ok=True)
    found = _rows()
    for name, rows in found.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (folder / "alpaca.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(found["alpaca"][0]))
        writer.writeheader()
        writer.writerows(found["alpaca"])
