"""Settings of the test run: no network, no GPU, few threads, and examples that do not change between runs."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Architectures that transformers builds are kept for one run, away from the user's own.
os.environ["LORA_PLAN_CACHE"] = tempfile.mkdtemp(prefix="lora-plan-tests-")

from hypothesis import HealthCheck, settings

atexit.register(shutil.rmtree, os.environ["LORA_PLAN_CACHE"], ignore_errors=True)

settings.register_profile(
    "default", deadline=None, max_examples=6, derandomize=True, suppress_health_check=list(HealthCheck)
)
settings.register_profile("thorough", deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
