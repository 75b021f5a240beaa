"""Runs on a Ray cluster: two nodes started here, of which one is killed half-way; resources asked for."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from planner.errors import InputError
from planner.validate import records
from planner.validate.executors import executor_of
from planner.validate.executors.need import HOST_PROCESS_BYTES, LEAST_SHARE, device_bytes, need
from planner.validate.executors.workers import _device
from planner.validate.records import RunConfig
from planner.validate.sweep import Clock, Sweep

ROOT = Path(__file__).resolve().parent.parent
BASE = RunConfig(model="nano", rank=2, steps=40, batch=8, seq_len=32, evaluate_at=(40,))
CONFIGS = [BASE.but(lr=1e-3 * 2**k, seed=seed) for k in range(4) for seed in (0, 1)]
NODE: dict[str, Any] = {
    "num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False, "include_log_monitor": False,
    "no_monitor": True,
}  # fmt: skip


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("ray", reason="the ray extra is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    found = Cluster(initialize_head=True, head_node_args=NODE)
    yield found
    found.shutdown()


def _kill_when_half_done(cluster: Any, node: Any, folder: Path, noted: dict[str, Any]) -> None:
    import ray

    def done() -> int:
        return len(list(folder.glob("*.json")))

    noted["busy"] = False
    while not noted["busy"] and done() < len(CONFIGS) - 1:  # between two runs a node is free for a moment
        time.sleep(0.02)
        free = ray._private.state.available_resources_per_node().get(node.node_id, {})
        noted["busy"] = done() >= len(CONFIGS) // 4 and free.get("CPU", 0) == 0
    cluster.remove_node(node, allow_graceful=False)
    noted["done"] = done()


def test_a_node_dies_half_way_and_the_sweep_equals_one_left_alone(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(**NODE)
    executor = executor_of("ray", workers=1, device="auto", threads=1, address=cluster.address)
    noted: dict[str, Any] = {}
    try:
        assert executor.wide and executor.device == "cpu"
        folder = tmp_path / "cluster"
        sweep = Sweep(folder)
        killer = threading.Thread(
            target=_kill_when_half_done, args=(cluster, node, folder, noted), daemon=True
        )
        killer.start()
        assert executor.run(CONFIGS, sweep)
        killer.join()
        # A budget that is spent gives nothing out.
        assert not executor.run([BASE.but(seed=7)], Sweep(folder, clock=Clock(1e-9)))
    finally:
        executor.close()
    assert noted["busy"] and noted["done"] < len(CONFIGS)
    assert Sweep(tmp_path / "alone").run(CONFIGS)
    both = [{r.id: r.result for r in records.read_all(tmp_path / name)} for name in ("cluster", "alone")]
    assert both[0] == both[1] and len(both[0]) == len(CONFIGS)


def test_what_a_run_asks_for_follows_from_the_planners_memory() -> None:
    small, large = (BASE.but(model=name, batch=16, seq_len=64) for name in ("tiny", "medium"))
    estimates = [device_bytes(config) or 0 for config in (small, large)]
    assert 0 < estimates[0] < estimates[1]
    assert estimates[0] < 2e9  # a tiny model, most of it CUDA's context: many run beside each other
    assert need(small, "cpu", 2, {}).options() == {"num_cpus": 2, "memory": estimates[0]}
    on_gpu = need(large, "cuda", 1, {"accelerator_type:H100": 1.0})
    share = max(LEAST_SHARE, math.ceil(100 * estimates[1] / 85_000_000_000) / 100)  # an H100's 79.1 GiB
    assert on_gpu.memory == HOST_PROCESS_BYTES and on_gpu.num_gpus == share < 0.1
    whole = RunConfig(model="meta-llama/Llama-3.1-8B", rank=64, batch=8, seq_len=2048)
    assert need(whole, "cuda", 1, {"accelerator_type:H100": 8.0}).num_gpus == 1.0
    # A GPU that the planner does not know is taken whole.
    assert need(small, "cuda", 1, {"accelerator_type:NONE-SUCH": 1.0}).num_gpus == 1.0


def test_a_cluster_that_is_not_there_and_options_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"address.*--executor ray"):
        executor_of("local", workers=1, device="cpu", threads=1, address="auto")
    with pytest.raises(InputError, match="cluster's size"):
        executor_of("ray", workers=2, device="cpu", threads=1, address=None)
    pytest.importorskip("ray", reason="the ray extra is not installed")
    with pytest.raises(InputError, match="ray start --head"):
        executor_of("ray", workers=1, device="cpu", threads=1, address="auto")


def test_processes_of_one_machine_take_its_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [_device("cuda", number) for number in range(1, 5)] == ["cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    assert _device("cuda:2", 1) == "cuda:2" and _device("cpu", 3) == "cpu"
