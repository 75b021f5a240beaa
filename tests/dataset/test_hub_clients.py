"""The real huggingface_hub and datasets against a stand-in for the hub: listings, files, configurations, splits,
gated and missing repositories, scripts that are not run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.dataset.hub_server import serving
from tests.dataset.tokenizers_of import write

ROOT = Path(__file__).resolve().parents[2]
# One process for all, since the libraries read their address when they are imported.
RUN = """
import contextlib, io, json, sys
from planner.cli import main
found = []
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["dataset", *arguments])
        except SystemExit as end:
            found.append([end.code or 0, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""
CASES = {
    "plain": ["o/plain"], "split": ["o/plain", "--split", "test"], "no split": ["o/plain", "--split", "dev"],
    "default": ["o/yaml"], "german": ["o/yaml", "--config", "german", "--split", "held"], "unnamed": ["o/two"],
    "script": ["o/script"], "gated": ["o/gated"], "none": ["o/none"], "empty": ["o/empty"],
    "tokenizer": ["o/plain", "--tokenizer", "o/model"], "no tokenizer": ["o/plain", "--tokenizer", "o/bare"],
    "gated tokenizer": ["o/plain", "--tokenizer", "o/gated"], "none there": ["o/plain", "--tokenizer", "o/none"],
}  # fmt: skip


def rows(count: int, word: str) -> str:
    said = ({"role": "user", "content": word}, {"role": "assistant", "content": "fine"})
    return f"{json.dumps({'messages': said})}\n" * count


def hub(root: Path) -> None:
    files = {
        "datasets/o/plain/train.jsonl": rows(5, "a"), "datasets/o/plain/test.jsonl": rows(2, "b"),
        "datasets/o/yaml/en/a.jsonl": rows(4, "en"), "datasets/o/yaml/de/b.jsonl": rows(3, "de"),
        "datasets/o/yaml/de/held.jsonl": rows(1, "held"),
        "datasets/o/yaml/README.md": "---\nconfigs:\n- config_name: english\n  default: true\n  data_files: "
        "en/a.jsonl\n- config_name: german\n  data_files:\n  - split: train\n    path: de/b.jsonl\n  - split: "
        "held\n    path: de/held.jsonl\n---\n",
        "datasets/o/two/a.jsonl": rows(4, "a"), "datasets/o/two/b.jsonl": rows(3, "b"),
        "datasets/o/two/README.md": "---\nconfigs:\n- config_name: one\n  data_files: a.jsonl\n- config_name: "
        "other\n  data_files: b.jsonl\n---\n",
        "datasets/o/script/script.py": f"open({str(root / 'ran')!r}, 'w')\n",
        "datasets/o/empty/README.md": "# none\n",
        "datasets/o/gated/train.jsonl": rows(1, "a"), "models/o/gated/tokenizer.json": "{}",
        "models/o/bare/config.json": "{}",
    }  # fmt: skip
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    write(root / "models/o/model", "chatml")


@pytest.mark.timeout(900)
def test_the_clients_of_the_hub(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    hub(root)
    with serving(root, gated=("o/gated",)) as address:
        env = {
            **os.environ,
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "home"),
            "PYTHONPATH": str(ROOT),
        }
        env = {k: v for k, v in env.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE")}
        done = subprocess.run(
            [sys.executable, "-c", RUN], input=json.dumps([[*case, "--json"] for case in CASES.values()]),
            capture_output=True, text=True, env=env, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = dict(zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True))

    def report(name: str) -> dict[str, Any]:
        code, out, err = found[name]
        assert (code, err) == (0, ""), (name, err)
        return dict(json.loads(out))

    counts = {"plain": 5, "split": 2, "default": 4, "german": 1, "tokenizer": 5}
    assert {name: report(name)["examples"] for name in counts} == counts
    assert "Left out: test." in report("plain")["warnings"][0]["message"]
    assert report("tokenizer")["tokens_basis"] == "measured"
    sentences = {
        "no split": "train", "unnamed": "--config", "script": "scripts", "gated": "gated",
        "none": "none of that name",
        "empty": "data files", "no tokenizer": "no tokenizer.json", "gated tokenizer": "gated",
        "none there": "none of that name",
    }  # fmt: skip
    for name, word in sentences.items():
        code, out, err = found[name]
        assert (code, out) == (2, "") and word in err.splitlines()[-1], (name, err)
        assert err.startswith("Error: ") and err.count("\n") == 1, (name, err)
    assert not (root / "ran").exists()
