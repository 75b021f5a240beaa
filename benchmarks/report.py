"""How long a report takes from a cold start, and where the time goes: imports, numbers, matplotlib, Typst, writing.

Every run is a new process. Printed are medians of wall and CPU seconds; the target is 3 s of wall time on 2 cores
for a plan's PDF with figures. On a busy machine compare CPU seconds and the ratio.

    python benchmarks/report.py [--rounds 7] [--out record.json] [--check 3.0]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import about_this_machine, write_record

CODE = """
import json, sys, time
at, cpu = [time.perf_counter()], [time.process_time()]
def mark():
    at.append(time.perf_counter()); cpu.append(time.process_time())
from planner.report.gather import gather, moment
from planner.report.make import compose, render
from planner.report.files import write_whole
from planner.report.numbers import Material
mark()
when = moment()
material = gather("meta-llama/Llama-3.1-8B", {"tokens": 300_000_000, "gpu": "h100", "batch": 8})
mark()
import matplotlib.backends.backend_svg, matplotlib.figure
mark()
document = compose(material, when, True)
mark()
import typst
mark()
content = render(document, "pdf", "a4", when)
mark()
write_whole(sys.argv[1], content)
mark()
print(json.dumps([[b - a for a, b in zip(x, x[1:])] for x in (at, cpu)]))
"""
SHARES = (
    "import planner",
    "the numbers",
    "import matplotlib",
    "draw figures",
    "import typst",
    "Typst",
    "write",
)
BASE = "import matplotlib.figure, matplotlib.backends.backend_svg, typst"


def timed(code: str, *arguments: str) -> tuple[float, str]:
    """Wall seconds of a new interpreter that runs code, and what it printed."""
    import time

    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return time.perf_counter() - start, run.stdout


def main() -> int:
    """Measure, print, and check if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write a JSON record here")
    parser.add_argument(
        "--check", type=float, metavar="SECONDS", help="exit 1 where the median is above this"
    )
    options = parser.parse_args()
    whole, base, wall, cpu = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "plan.pdf")
        timed(CODE, place)  # fills the file caches
        for _ in range(options.rounds):
            base.append(timed(BASE)[0])
            seconds, printed = timed(CODE, place)
            whole.append(seconds)
            walls, cpus = json.loads(printed)
            wall.append(walls)
            cpu.append(cpus)
    total, least = statistics.median(whole), statistics.median(base)
    print(f"a plan's PDF with 5 figures, cold: median {total:.2f} s of {options.rounds} runs")
    print(f"{BASE}: {least:.2f} s, ratio {total / least:.2f}")
    print(f"CPU seconds, interpreter's start excluded: {statistics.median(map(sum, cpu)):.2f}")
    rows = []
    for place_in, name in enumerate(SHARES):
        w, c = (statistics.median(run[place_in] for run in runs) for runs in (wall, cpu))
        rows.append({"share": name, "wall_s": w, "cpu_s": c})
        print(f"  {name:18} {w:6.3f} s wall, {c:6.3f} s CPU, {w / total:4.0%}")
    if options.out:
        record = {"median_s": total, "baseline_s": least, "rows": rows}
        write_record(options.out, {"benchmark": "report", **about_this_machine(), **record})
    if options.check is not None and total > options.check:
        print(f"FAILED: {total:.2f} s is above {options.check} s", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
