"""Small tokenizers of the four usual kinds, trained on generated text, with chat templates in the usual manners."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

WORDS = {
    "en": "the of model learns from data rank adapter loss that's don't I'll token gradient 3.14159 2024 hello",
    "de": "der Straße größte Übung für Äpfel mühelos Weiß außerdem Datensätze überprüfen",
    "zh": "学习 模型 数据 语言 你好 世界 参数 训练 损失 函数 「引号」 。 ，",
    "ja": "こんにちは 世界 学習 モデル データ カタカナ です 。",
    "ar": "مرحبا بالعالم النموذج يتعلم من البيانات",
    "hi": "नमस्ते दुनिया मॉडल सीखता है डेटा",
    "th": "สวัสดีชาวโลก แบบจำลอง เรียนรู้",
    "ru": "модель учится на данных привет мир",
    "odd": "👩‍👩‍👧‍👦 🇩🇪 e\u0301 a\u0308 \u00a0 \u200b … ½ ﬁ Å \u2028 \t 0x1F <b>&amp;</b> [INST] {{x}} \r\n",
    "code": "def f(x):\n    return x**2\n\n\nfor(int i=0;i<n;++i){\n\ta[i]=0;\n}",
}


def passage(chance: random.Random, least: int = 1, most: int = 40) -> str:
    """Words of a language or of several, with odd spaces now and then."""
    languages = chance.sample(sorted(WORDS), chance.choice((1, 1, 2, 3)))
    words = [word for name in languages for word in WORDS[name].split(" ")]
    text = ""
    for _ in range(chance.randint(least, most)):
        text += chance.choice(words) + chance.choice((" ", " ", " ", "  ", "\n", "", ", ", "! "))
    return text if chance.random() < 0.2 else text.strip()


GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)

LLAMA = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "You are helpful." %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" + system_message + "<|eot_id|>" }}
{%- if tools %}{{- "<|start_header_id|>tools<|end_header_id|>\\n\\n" + (tools | tojson(indent=2)) + "<|eot_id|>" }}
{%- endif %}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
LLAMA_MARKED = LLAMA.replace(
    "    {{- message['content'] | trim + '<|eot_id|>' }}",
    "    {%- if message['role'] == 'assistant' %}{% generation %}{{- message['content'] | trim + '<|eot_id|>' }}"
    "{% endgeneration %}\n    {%- else %}{{- message['content'] | trim + '<|eot_id|>' }}{%- endif %}",
)
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_MARKED = (
    "{%- for message in messages %}{%- if message.role == 'assistant' %}{{- '<|im_start|>assistant\\n' }}"
    "{% generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}{{- '\\n' }}{%- else %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# Earlier turns lose their reasoning, as in Qwen3's template.
THINKING = (
    "{%- set ns = namespace(last=0) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}"
    "{%- if m.role == 'assistant' and m.reasoning_content and loop.index0 > ns.last %}"
    "{{- '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{%- endif %}"
    "{{- m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
    "{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + "
    "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)

assert all("generation %}" in marked for marked in (LLAMA_MARKED, CHATML_MARKED))

# name: (kind of tokenizer, template)
TEMPLATES = {
    "llama": ("llama", LLAMA), "llama-marked": ("llama", LLAMA_MARKED), "chatml": ("qwen", CHATML),
    "chatml-marked": ("qwen", CHATML_MARKED), "thinking": ("qwen", THINKING), "mistral": ("mistral", MISTRAL),
    "gemma": ("gemma", GEMMA),
}  # fmt: skip
SPECIAL: dict[str, dict[str, Any]] = {
    "llama": {
        "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
        "additional_special_tokens": ["<|start_header_id|>", "<|end_header_id|>"],
    },
    "qwen": {
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "additional_special_tokens": ["<|im_start|>"],
    },
    "mistral": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "gemma": {
        "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>",
        "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
    },
}  # fmt: skip


def _named(kind: str) -> list[str]:
    values = SPECIAL[kind].values()
    return [token for value in values for token in (value if isinstance(value, list) else [value])]


def _train(tokenizer: Tokenizer, trainer: trainers.BpeTrainer) -> Tokenizer:
    chance = random.Random(0)
    tokenizer.train_from_iterator((passage(chance, 20, 80) for _ in range(300)), trainer)
    return tokenizer


def _byte_level(kind: str) -> Tokenizer:
    """Llama 3's and Qwen's kind: bytes, split by an expression; Qwen composes letters first."""
    tokenizer = Tokenizer(models.BPE())
    if kind == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(GPT4), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=_named(kind), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    _train(tokenizer, trainer)
    if kind == "llama":
        bos = SPECIAL[kind]["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1",
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )  # fmt: skip
    return tokenizer


def _pieces(kind: str) -> Tokenizer:
    """SentencePiece's kind: spaces as a letter, bytes for what is unknown; Mistral's puts one before a text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    before = [normalizers.Prepend("▁")] if kind == "mistral" else []
    tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=[*_named(kind), *(f"<0x{i:02X}>" for i in range(256))], show_progress=False
    )  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for training only
    _train(tokenizer, trainer)
    tokenizer.pre_tokenizer = None
    bos = SPECIAL[kind]["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


@cache
def trained(kind: str) -> str:
    """A tokenizer's JSON."""
    tokenizer = _byte_level(kind) if kind in ("llama", "qwen") else _pieces(kind)
    return str(tokenizer.to_str())


def write(folder: Path, name: str) -> Path:
    """A model's folder with the tokenizer and template of that name, as transformers writes it."""
    from transformers import PreTrainedTokenizerFast

    kind, template = TEMPLATES[name]
    special = {key: value for key, value in SPECIAL[kind].items() if isinstance(value, str)}
    extra = SPECIAL[kind].get("additional_special_tokens", [])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(trained(kind)), extra_special_tokens=extra, **special
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(folder))
    return folder
