"""joblib's Parallel on Ray: the folds of a cross-validation and the cells of a grid as tasks of a cluster.

``ray.util.joblib`` has a backend too, but it cannot give results as they come (``return_as="generator"``), sends
the data again with every task, and does not outlive its actors. Tasks are what Ray tries again elsewhere when a node
dies, so each job is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FunctionType
from typing import NamedTuple

from joblib import parallel_config
from joblib.parallel import ParallelBackendBase, SequentialBackend

from ecmf_lib.cluster_session import ray_session

#: Times that Ray tries a job again when the node or process under it dies.
RETRIES = 5

# sent with the job; anything else is put into the object store once, however many jobs have it
_SMALL = (type(None), bool, int, float, str, tuple, type, FunctionType)


class _Held(NamedTuple):
    """Stands for an argument that lies in the object store."""

    where: object


class RayTasks(ParallelBackendBase):
    """A joblib backend whose jobs are Ray tasks with one core and one thread each.

    Parameters
    ----------
    ray : module
        Connected, see :func:`ecmf_lib.cluster_session.ray_session`.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    default_n_jobs = 1

    def __init__(self, ray=None, **options):
        super().__init__(**options)
        self._ray = ray
        self._held: dict[int, tuple[object, _Held]] = {}
        self._task = None if ray is None else ray.remote(num_cpus=1, max_retries=RETRIES)(_call)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """All cores of the cluster, or 1 if nothing else is asked for."""
        return 1 if n_jobs in (None, 1) else max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, func, callback=None) -> Future:
        """Send a batch of jobs off."""
        jobs = [
            (job, self._lean(args), dict(zip(more, self._lean(more.values()), strict=True)))
            for job, args, more in func.items
        ]
        future = self._task.remote(jobs).future()
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future):
        """The batch's results, or the error as the job raised it."""
        try:
            return out.result()
        except self._ray.exceptions.RayTaskError as error:
            raise getattr(error, "cause", None) or error from None

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Let what is under way run out, two jobs a core at most.

        Not ``ray.cancel``: where it meets a task that ends at the same moment, Ray 2.60 aborts this whole process
        ("Tried to complete task that was not pending").
        """

    def stop_call(self) -> None:
        """Let go of the arguments."""
        self._held.clear()

    def get_nested_backend(self):
        """A job has one thread and starts no jobs of its own."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    def __reduce__(self):
        return RayTasks, ()  # jobs carry their backend along, and have no use for it

    def _lean(self, values) -> list:
        return [value if isinstance(value, _SMALL) else self._hold(value) for value in values]

    def _hold(self, value: object) -> _Held:
        if id(value) not in self._held:  # the value is kept with its id, else another could get it
            self._held[id(value)] = value, _Held(self._ray.put(value))
        return self._held[id(value)][1]


def _call(jobs: list) -> list:
    """Life of a task."""
    import sys

    import ray
    from threadpoolctl import threadpool_limits

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)

    def value(given):
        return ray.get(given.where) if isinstance(given, _Held) else given

    with threadpool_limits(1), parallel_config(backend=SequentialBackend()):
        return [
            job(*map(value, args), **{name: value(given) for name, given in more.items()}) for job, args, more in jobs
        ]


@contextmanager
def joblib_on_ray() -> Iterator[None]:
    """Within it, joblib's ``Parallel`` (so :func:`ecmf_lib.train.cross_validate` with ``workers`` above 1) runs on Ray.

    As many jobs at a time as the cluster has cores, whatever number is asked for, as long as it is not 1. Results
    are those of a local run, since they depend on no order and no number of threads.

    Raises
    ------
    ClusterError
        If Ray is not installed or cannot be reached.

    Notes
    -----
    Large arguments reach a job as read-only arrays, as with joblib's own memory maps.
    """
    with ray_session() as ray, parallel_config(backend=RayTasks(ray)):
        yield
