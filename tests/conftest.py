"""Paths shared by tests, and what makes them fast."""

import gc
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tests run a process a core, and threads that wait would spin

import hypothesis
import pytest

# A busy machine must not fail a test: pytest-timeout bounds each one instead.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")


#: Longest tests first, so that two workers end together: whole devices and cocotb's are compiled, blocks synthesised.
ORDER = ("system/test_paper_models", "hw/synthesis/test_baseline", "board", "cocotb", "system", "sim", "test_types",
         "hw/synthesis", "sw/test_fit", "hw/mlp", "hw/controller", "hw")


def pytest_collection_modifyitems(items):
    places = {item: item.path.relative_to(Path(__file__).parent).as_posix() for item in items}
    items.sort(key=lambda item: next((i for i, start in enumerate(ORDER) if places[item].startswith(start)), len(ORDER)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """What was imported and collected stays: the garbage collector need not look through it again and again."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


SHARED = Path(os.environ.get("NEARFLASH_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of development data; tests that need it are skipped, with the reason shown, where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"development data not found at {SHARED}: set NEARFLASH_TEST_DATA to run this test")
    return SHARED
