"""Make docs/tour.ipynb and docs/tour.md of tools/tour.py: its cells are run, and what they show is written down.

    python tools/write_tour.py          # write both, and the figures of the page
    python tools/write_tour.py --check  # run the cells and compare with what is written

The cells run in this process, in docs/, on a fixed day, with no way to the network. Texts are compared; a figure has
to be there, but its pixels change with matplotlib.
"""

from __future__ import annotations

import atexit
import base64
import difflib
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SOURCE = ROOT / "tools" / "tour.py"
NOTEBOOK, PAGE, FIGURES = DOCS / "tour.ipynb", DOCS / "tour.md", DOCS / "tour"
EPOCH = "1795478400"  # 24 November 2026
INLINE = "module://matplotlib_inline.backend_inline"  # what a notebook draws with
NEVER = ("torch", "transformers")  # the tour says that it does without
LOOK = {"figure.dpi": 90, "savefig.bbox": None, "svg.hashsalt": "tour"}
Cell = tuple[str, str]  # "markdown" or "code", and its text


def cells(script: str) -> Iterator[Cell]:
    """The cells of a script in percent format."""
    for piece in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        head, _, body = piece.partition("\n")
        if head.strip() == "[markdown]":
            yield "markdown", "\n".join(re.sub("^# ?", "", line) for line in body.strip().splitlines())
        else:
            yield "code", body.strip()


def seal() -> None:
    """No network, no caches of the user's, a fixed day, one thread: for this process, which is short."""
    empty = tempfile.mkdtemp(prefix="lora-plan-tour-")
    atexit.register(shutil.rmtree, empty, ignore_errors=True)
    os.environ.update(
        SOURCE_DATE_EPOCH=EPOCH, HF_HUB_OFFLINE="1", HF_HOME=empty, LORA_PLAN_CACHE=empty, IPYTHONDIR=empty,
        MPLCONFIGDIR=os.environ.get("MPLCONFIGDIR", empty), OMP_NUM_THREADS="1", COLUMNS="160", NO_COLOR="1",
    )  # fmt: skip

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("the tour runs without a network")

    places = [(socket.socket, name) for name in ("connect", "connect_ex", "sendto")]
    for place, name in (*places, (socket, "getaddrinfo")):
        setattr(place, name, refuse)


def run(code: list[str]) -> list[list[dict[str, Any]]]:
    """Each code cell's outputs, as a notebook holds them. Raises what a cell raises."""
    seal()
    import matplotlib as mpl
    import nbformat
    from IPython.core.displayhook import DisplayHook
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output
    from matplotlib_inline.backend_inline import configure_inline_support
    from traitlets.config import Config

    class Kept(DisplayHook):  # type: ignore[misc]
        """Keeps the value of a cell instead of printing it."""

        def write_output_prompt(self) -> None:
            """Nothing."""

        def write_format_data(self, format_dict: dict[str, Any], md_dict: Any = None) -> None:
            """The value in every format that it has."""
            values.append(format_dict)

        def finish_displayhook(self) -> None:
            """Nothing."""

    values: list[dict[str, Any]] = []
    config = Config(HistoryManager={"enabled": False})
    shell = InteractiveShell.instance(config=config, displayhook_class=Kept)
    mpl.use(INLINE)
    configure_inline_support(shell, INLINE)
    mpl.rcParams.update(LOOK)
    new, found = nbformat.v4.new_output, []
    for count, text in enumerate(code, 1):
        values.clear()
        with capture_output() as captured:
            result = shell.run_cell(text)
        result.raise_error()
        if captured.stderr:
            raise RuntimeError(f"a cell wrote to stderr: {captured.stderr}\n{text}")
        outputs = [new("stream", name="stdout", text=captured.stdout)] if captured.stdout else []
        outputs += [new("display_data", data=rich.data) for rich in captured.outputs]
        outputs += [new("execute_result", data=value, execution_count=count) for value in values]
        found.append(outputs)
    for name in NEVER:
        if name in sys.modules:
            raise RuntimeError(f"the tour imported {name}")
    return found


def notebook(parts: list[Cell], outputs: list[list[dict[str, Any]]]) -> Any:
    """The notebook; its cells are numbered, not named at random."""
    import nbformat

    v4, shown, made, count = nbformat.v4, iter(outputs), [], 0
    for number, (kind, text) in enumerate(parts):
        if kind == "markdown":
            made.append(v4.new_markdown_cell(text, id=f"cell-{number:02}"))
            continue
        count += 1
        made.append(
            v4.new_code_cell(text, id=f"cell-{number:02}", execution_count=count, outputs=next(shown))
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    built = v4.new_notebook(cells=made, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    nbformat.validate(built)
    return built


def figures(built: Any) -> list[bytes]:
    """The notebook's figures, as PNG."""
    return [
        base64.b64decode(output["data"]["image/png"])
        for cell in built.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


def page(built: Any) -> str:
    """The same as a page: figures are linked, tables are text."""
    lines, pictures = ["<!-- Made by tools/write_tour.py of tools/tour.py. -->"], 0
    for cell in built.cells:
        lines.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                pictures += 1
                lines.append(f"![Figure {pictures}]({FIGURES.name}/figure-{pictures}.png)")
            else:
                text = output["text"] if output.output_type == "stream" else _plain(data)
                lines.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(lines) + "\n"


def _plain(data: dict[str, str]) -> str:
    """A table as text: from the HTML of a Plan, whose plain text is Python's."""
    rows = re.findall(
        r"<tr><th[^>]*>(.*?)</th><td[^>]*>(.*?)</td><td[^>]*><em>(.*?)</em>", data.get("text/html", "")
    )
    if not rows:
        return data["text/plain"]
    from html import unescape

    wide = [max(len(unescape(row[column])) for row in rows) for column in range(2)]
    return "\n".join(
        f"{unescape(what):<{wide[0]}}  {unescape(value):<{wide[1]}}  {basis}" for what, value, basis in rows
    )


def make() -> Any:
    """The notebook, with its cells run."""
    parts = list(cells(SOURCE.read_text(encoding="utf-8")))
    os.chdir(DOCS)
    return notebook(parts, run([text for kind, text in parts if kind == "code"]))


def check(built: Any) -> list[str]:
    """How what is written differs from what the cells show now; nothing if it does not."""
    import nbformat

    written = nbformat.read(NOTEBOOK, as_version=4)
    found: list[str] = []
    for name, old in ((NOTEBOOK.name, page(written)), (PAGE.name, PAGE.read_text(encoding="utf-8"))):
        found += difflib.unified_diff(
            old.splitlines(), page(built).splitlines(), name, "now", lineterm="", n=1
        )
    for number, _ in enumerate(figures(built), 1):
        if not (FIGURES / f"figure-{number}.png").is_file():
            found.append(f"{FIGURES.name}/figure-{number}.png is missing")
    return found


def write(built: Any) -> None:
    """Write the notebook, the page and its figures."""
    import nbformat

    NOTEBOOK.write_text(nbformat.writes(built) + "\n", encoding="utf-8")
    PAGE.write_text(page(built), encoding="utf-8")
    FIGURES.mkdir(exist_ok=True)
    for old in FIGURES.glob("figure-*.png"):
        old.unlink()
    for number, picture in enumerate(figures(built), 1):
        (FIGURES / f"figure-{number}.png").write_bytes(picture)


def main() -> int:
    """Write, or with --check compare; 1 where something differs."""
    built = make()
    if "--check" in sys.argv[1:]:
        differences = check(built)
        print("\n".join(differences) or "the tour shows what the program prints")
        return 1 if differences else 0
    write(built)
    print(f"{NOTEBOOK.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}, {len(figures(built))} figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
