"""Settings of the test run: no network, no GPU, few threads, and examples that do not change between runs."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Generator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Architectures that transformers builds are kept for one run, away from the user's own.
os.environ["LORA_PLAN_CACHE"] = tempfile.mkdtemp(prefix="lora-plan-tests-")

import pytest
from hypothesis import HealthCheck, settings

atexit.register(shutil.rmtree, os.environ["LORA_PLAN_CACHE"], ignore_errors=True)

settings.register_profile(
    "default", deadline=None, max_examples=6, derandomize=True, suppress_health_check=list(HealthCheck)
)
settings.register_profile("thorough", deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Looking for cycles after every 700 new objects takes a tenth of the run. It is done when a test ends instead, and
# within a test only for very many objects at once.
gc.set_threshold(200_000, 10, 10)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Free a test's cycles at its end, and a file's; what outlives a file, as modules do, is looked at no more."""
    result = yield
    if nextitem is not None and nextitem.path == item.path:
        gc.collect(1)
    else:
        gc.collect()
        gc.freeze()
    return result
