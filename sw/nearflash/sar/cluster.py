"""A collection of scenes on a Dask or Ray cluster: one file per task, the same files as without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from ..contract import ConfigError
from ..pools import on_ray
from .files import FileResult, Job, Settings, attempt
from .methods import Method

__all__ = ["CLUSTERS", "run_jobs"]

CLUSTERS = ("dask", "ray")


@lru_cache(maxsize=1)
def _method(settings: Settings) -> Method:
    return settings.load_method()


def _task(job: Job) -> FileResult:
    """One job: a task of a worker, which must see the inputs and outputs under the same paths."""
    return attempt(job, _method(job.settings))


def run_jobs(jobs: Sequence[Job], kind: str, *, address: str | None = None,
             workers: int | None = None) -> Iterator[FileResult]:
    """Results in the order in which they are ready.

    ``address``: of a running cluster (Dask scheduler tcp://..., Ray ray://...); None starts ``workers`` processes of one
    thread each on this machine, which end with the last result. A worker that dies makes its job a failed result.

    Raises :class:`ConfigError` for an unknown kind, or one that is not installed.
    """
    if kind not in CLUSTERS:
        raise ConfigError("cluster", kind, f"must be one of {', '.join(CLUSTERS)}")
    return (_dask if kind == "dask" else _ray)(jobs, address, workers)


def _dask(jobs: Sequence[Job], address: str | None, workers: int | None) -> Iterator[FileResult]:
    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError as e:
        raise ConfigError("cluster", "dask", "needs dask.distributed: pip install 'dask[distributed]'") from e
    from contextlib import ExitStack

    with ExitStack() as stack:
        where: Any = address
        if where is None:
            where = stack.enter_context(LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=""))
        client = stack.enter_context(Client(where))
        tasks = {client.submit(_task, job, pure=False): job for job in jobs}
        for task in as_completed(tasks):
            try:
                yield task.result()
            except Exception as e:  # whatever killed the worker belongs to this file; the others go on
                yield FileResult(tasks[task].source, tasks[task].target, f"{type(e).__name__}: {e}")


def _ray(jobs: Sequence[Job], address: str | None, workers: int | None) -> Iterator[FileResult]:
    for job, found in on_ray(_task, jobs, address, workers):
        failed = isinstance(found, Exception)
        yield FileResult(job.source, job.target, f"{type(found).__name__}: {found}") if failed else found
