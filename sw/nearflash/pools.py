"""Work in other processes: of this machine, or of a Ray cluster. Results come in the order in which they are ready."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

from .contract import ConfigError

__all__ = ["in_processes", "on_ray"]

J = TypeVar("J")
R = TypeVar("R")


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_processes(work: Callable[[J], R], jobs: Sequence[J], workers: int) -> Iterator[tuple[J, R | Exception]]:
    """Each job with what ``work`` (a module's function) gave for it or raised; ``workers`` processes, started anew: a fork
    would take over the locks of threads that it doesn't have. They end with this process, however it ends."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)
    try:
        tasks = {pool.submit(work, job): job for job in jobs}
        for task in as_completed(tasks):
            error = task.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            yield tasks[task], task.result() if error is None else error
    finally:
        pool.shutdown(cancel_futures=True)


def on_ray(work: Callable[[J], R], jobs: Sequence[J], address: str | None = None, workers: int | None = None
           ) -> Iterator[tuple[J, R | Exception]]:
    """The same as tasks of a Ray cluster at ``address`` (``ray://...``, or ``local``); None starts one of ``workers``
    processes here, which ends with the last result. Raises :class:`~nearflash.contract.ConfigError` without Ray and for a
    cluster that isn't there."""
    try:
        import ray  # type: ignore[import-not-found]
    except ImportError as e:
        raise ConfigError("cluster", "ray", "needs Ray: pip install ray") from e
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
    if address in (None, "local"):
        options["num_cpus"] = workers
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as e:
        raise ConfigError("--ray", address, f"no Ray cluster: {str(e).strip().partition(chr(10))[0] or type(e).__name__}"
                          ) from e
    try:
        task = ray.remote(work)
        waiting = {task.remote(job): job for job in jobs}
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting))
            job = waiting.pop(ready)
            try:
                yield job, ray.get(ready)
            except Exception as e:  # whatever killed the worker belongs to this job; the others go on
                yield job, e
    finally:
        ray.shutdown()
