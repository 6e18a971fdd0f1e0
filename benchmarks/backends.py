"""Where joblib runs the cells of a grid: in processes of this machine, or on a dask or ray cluster.

Each engine takes its cluster from its own environment variable, and starts one on this machine
where that is not set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from joblib import effective_n_jobs, parallel_config

# Name of the backend, and the modules that it needs.
BACKENDS = {"loky": (), "dask": ("dask", "distributed"), "ray": ("ray",)}


def check_installed(name: str) -> None:
    """Check that a backend is there.

    Raises
    ------
    ImportError
        If it is not.
    """
    missing = [module for module in BACKENDS[name] if find_spec(module) is None]
    if missing:
        raise ImportError(
            f"The backend {name!r} needs {' and '.join(missing)}: pip install 'skfp[{name}]'."
        )


@contextmanager
def joblib_backend(name: str, n_jobs: int, shared: Sequence[Any] = ()) -> Iterator[None]:
    """Run what joblib does in parallel on an engine that is installed.

    Parameters
    ----------
    name : {"loky", "dask", "ray"}
        "dask" takes the scheduler that DASK_SCHEDULER_ADDRESS names, "ray" the cluster that
        RAY_ADDRESS names.
    n_jobs : int
        Worker processes on this machine where no cluster is named; -1 is one for each core.
    shared : sequence of object, default=()
        Arguments of many tasks. dask keeps a copy of them on every worker: they are sent once, and
        a worker that dies takes no only copy with it.
    """
    backend = {"loky": _loky, "dask": _dask, "ray": _ray}[name]
    with backend(n_jobs, list(shared)):
        yield


def _loky(n_jobs: int, shared: list) -> Any:
    return parallel_config("loky", n_jobs=n_jobs)


@contextmanager
def _dask(n_jobs: int, shared: list) -> Iterator[None]:
    import dask
    from dask.distributed import Client

    address = dask.config.get("scheduler-address", None)
    workers = {"n_workers": effective_n_jobs(n_jobs), "threads_per_worker": 1}
    with (
        Client(address, **({} if address else workers)),
        parallel_config("dask", scatter=shared),
    ):
        yield


@contextmanager
def _ray(n_jobs: int, shared: list) -> Iterator[None]:
    import ray
    from ray.util.joblib import register_ray

    workers = {"num_cpus": effective_n_jobs(n_jobs), "include_dashboard": False}
    ray.init(**({} if "RAY_ADDRESS" in os.environ else workers))
    register_ray()
    try:
        # An actor that dies is started again, and does its task again.
        again = {"max_restarts": -1, "max_task_retries": -1}
        with parallel_config("ray", n_jobs=-1, ray_remote_args=again):
            yield
    finally:
        ray.shutdown()
