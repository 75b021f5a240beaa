"""How fast `lora-plan dataset` reads a JSONL file, against encoding the same text that is already in memory.

    python benchmarks/dataset_rate.py [--megabytes 100] [--template marked|plain] [--rounds 3]

Makes a file of conversations out of this machine's Python sources and documentation, trains a byte-level BPE of
32,000 tokens on them, and runs in turns, each in a process of its own: the command, and a bare `encode_batch` of the
rendered texts in batches of 512. Prints the ratio of their throughputs (1: as fast) by wall and by processor time,
and the command's peak memory. Aim: at least 0.8 by wall time on two cores of their own, and under 500 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from machine import about_this_machine, write_record
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
OPEN, CLOSE = "<|im_start|>", "<|im_end|>"
PLAIN = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{{ m['content'] }}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}{% else %}{{ m['content'] + '<|im_end|>\\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def passages() -> Iterator[str]:
    """Stretches of 200 to 4,000 letters of Python sources and texts, without end, the same at each run."""
    folders = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")]
    files = sorted(
        path
        for folder in folders
        for end in ("py", "md", "rst", "txt")
        for path in Path(folder).rglob(f"*.{end}")
    )
    chance = random.Random(1)
    while True:
        chance.shuffle(files)
        for path in files:
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            at = 0
            while at < min(len(text), 200_000):
                size = chance.randint(200, 4000)
                yield text[at : at + size]
                at += size


def write_rows(path: Path, size_bytes: int) -> None:
    """Conversations of one to three turns up to a size."""
    source, chance, written = passages(), random.Random(2), 0
    with path.open("wb") as file:
        while written < size_bytes:
            messages = []
            for _ in range(chance.choice((1, 1, 2, 3))):
                messages.append({"role": "user", "content": next(source)[: chance.randint(50, 1500)]})
                messages.append({"role": "assistant", "content": next(source)})
            line = json.dumps({"messages": messages}, ensure_ascii=False).encode() + b"\n"
            written += file.write(line)


def write_tokenizer(folder: Path, template: str) -> None:
    """A byte-level BPE trained on 3 MB of the passages, with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    source = passages()
    trainer = trainers.BpeTrainer(
        vocab_size=32_000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[OPEN, CLOSE],
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator((next(source) for _ in range(1500)), trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": CLOSE, "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def bare(rows: Path, folder: Path) -> None:
    """Encode the rendered texts from memory; prints seconds by wall and processor, and tokens."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = []
    with rows.open(encoding="utf-8") as file:
        for line in file:
            messages = json.loads(line)["messages"]
            texts.append("".join(f"{OPEN}{m['role']}\n{m['content']}{CLOSE}\n" for m in messages))
    wall, processor, tokens = time.perf_counter(), time.process_time(), 0
    for start in range(0, len(texts), 512):
        tokens += sum(map(len, tokenizer.encode_batch(texts[start : start + 512], add_special_tokens=False)))
    print(time.perf_counter() - wall, time.process_time() - processor, tokens)


def command(rows: Path, folder: Path) -> tuple[float, float, int, float]:
    """Seconds by wall and processor, tokens and peak megabytes of the command, its start included."""
    run = [sys.executable, "-m", "planner", "dataset", str(rows), "--tokenizer", str(folder), "--json"]
    wall = time.perf_counter()
    process = subprocess.Popen(run, stdout=subprocess.PIPE)
    out = process.stdout.read() if process.stdout else b""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the command failed with {process.returncode}")
    scale = 1e6 if sys.platform == "darwin" else 1e3
    return (
        time.perf_counter() - wall, used.ru_utime + used.ru_stime, json.loads(out)["tokens"], used.ru_maxrss / scale
    )  # fmt: skip


def main() -> None:
    """Make the file, run both in turns, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--template", choices=("marked", "plain"), default="marked")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write a record of the measurement")
    parser.add_argument("--bare", nargs=2, metavar=("ROWS", "TOKENIZER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare(*map(Path, options.bare))
        return
    with tempfile.TemporaryDirectory(prefix="lora-plan-") as scratch:
        rows, folder = Path(scratch) / "rows.jsonl", Path(scratch) / "tokenizer"
        write_rows(rows, options.megabytes * 10**6)
        write_tokenizer(folder, MARKED if options.template == "marked" else PLAIN)
        walls, processors, peak = [], [], 0.0
        for _ in range(options.rounds):
            ours = command(rows, folder)
            text = subprocess.run(
                [sys.executable, __file__, "--bare", str(rows), str(folder)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            if int(text[2]) != ours[2]:
                raise SystemExit(f"{ours[2]:,} tokens, and {int(text[2]):,} by encode_batch")
            walls.append(float(text[0]) / ours[0])
            processors.append(float(text[1]) / ours[1])
            peak = max(peak, ours[3])
            print(
                f"wall {ours[0]:.1f} s against {float(text[0]):.1f} s, {ours[2]:,} tokens, peak {ours[3]:.0f} MB"
            )
    print(
        f"throughput over bare encode_batch: {median(walls):.2f} by wall, {median(processors):.2f} by processor"
    )
    print(f"peak memory {peak:.0f} MB for {options.megabytes} MB")
    if options.out:
        measured = {"megabytes": options.megabytes, "template": options.template, "wall_ratios": walls}
        more = {"processor_ratios": processors, "peak_megabytes": peak}
        write_record(options.out, {**about_this_machine(), **measured, **more})


if __name__ == "__main__":
    main()
