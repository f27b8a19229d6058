"""Ray as this project uses it: found or started, quiet, and stopped again if it was started here."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from ecmf_lib.workers import usable_cores


class ClusterError(RuntimeError):
    """Ray is not installed, cannot be reached, or keeps losing the same work."""


@contextmanager
def ray_session() -> Iterator:
    """The module ``ray``, connected.

    To the cluster that this process is connected to already; else, as Ray itself does, to that at ``RAY_ADDRESS`` or
    the one running on this machine; else to one that is started here, with as many workers as there are cores, and
    stopped at the end. Nothing is told to Ray's makers unless ``RAY_USAGE_STATS_ENABLED`` asks for it.

    Raises
    ------
    ClusterError
        If Ray is not installed, or the cluster at that address does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ClusterError(f"Ray is not installed here ({error}); pip install 'ecmf[cluster]'") from None
    if ray.is_initialized():
        yield ray
        return
    _check_address(os.environ.get("RAY_ADDRESS", ""))
    options = {"log_to_driver": False, "logging_level": logging.WARNING}
    try:
        try:
            ray.init("auto", **options)
        except ConnectionError:
            if os.environ.get("RAY_ADDRESS", "auto") not in ("auto", "local", ""):
                raise
            ray.init("local", num_cpus=usable_cores(), include_dashboard=False, **options)
    except Exception as error:
        where = os.environ.get("RAY_ADDRESS") or "this machine"
        raise ClusterError(f"no Ray cluster at {where} ({error}); start one, or unset RAY_ADDRESS") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Refuse at once what Ray would try to reach for five minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "//" in address or not port.isdigit():
        return  # "auto", "local" or one of Ray's other forms
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ClusterError(f"no Ray cluster at {address} ({error}); start one, or unset RAY_ADDRESS") from None


@contextmanager
def data_settings(ray) -> Iterator[None]:
    """Ray Data without bars and banners, and going on when a block is lost: who lost it asks for it again."""
    context = ray.data.DataContext.get_current()
    wanted = {
        "max_errored_blocks": -1,
        "max_consecutive_actor_init_deaths": 20,
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "enable_fallback_to_arrow_object_ext_type": True,  # rows hold objects, and that is meant
    }
    before = {name: getattr(context, name) for name in wanted}
    logger, level = logging.getLogger("ray.data"), logging.getLogger("ray.data").level
    try:
        for name, value in wanted.items():
            setattr(context, name, value)
        logger.setLevel(logging.CRITICAL)
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)
