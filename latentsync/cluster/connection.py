"""Connect to a Ray cluster, or start one on this machine."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType

from ..errors import DependencyError, UsageError, cannot_import, python_command

log = logging.getLogger(__name__)

LOCAL = "local"
RAY = "ray>=2.52"  # the first version with token authentication
ANSWER_SECONDS = 5.0  # time for a head to accept a connection


@contextmanager
def connect(address: str) -> Generator[None, None, None]:
    """Connect to a cluster while the block runs.

    Ray reads its settings only from the environment. Usage statistics are off. A cluster on this machine requires
    Ray's token for each connection, because anyone who can connect to Ray's ports can run code. Other machines can
    reach these ports.

    Args:
        address: HOST:PORT of the head, as `ray start --head` prints it. LOCAL starts a cluster on this machine.

    Raises:
        DependencyError: Ray is not installed, or the cluster has another version of it.
        UsageError: nothing answers at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # time limit of `ray.init` if another program than Ray accepts the connection
    os.environ.setdefault("RAY_gcs_rpc_server_connect_timeout_s", f"{ANSWER_SECONDS:.0f}")
    if address == LOCAL:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    else:
        _check_answers(address)
    ray = load_ray()
    quiet = {"log_to_driver": False, "logging_level": logging.WARNING}
    try:
        if address == LOCAL:
            ray.init(include_dashboard=False, **quiet)
        else:
            ray.init(address, **quiet)
    except Exception as error:  # Ray raises many types
        ray.shutdown()  # it may be partly connected
        reason = " ".join(str(error).split())
        if "ersion mismatch" in reason:
            raise DependencyError(
                f"The cluster at {address} has another version of Ray or Python ({reason}). "
                "Install the same versions on every machine."
            ) from error
        raise UsageError(
            f"The cluster at {address} cannot be used ({reason}). Run this command on a machine of the cluster, "
            "with the token of the cluster."
        ) from error
    try:
        log.info("Connected to the cluster at %s: %s", address, ray.cluster_resources())
        yield
    finally:
        ray.shutdown()


def load_ray() -> ModuleType:
    """Import Ray. Raises DependencyError with the command that installs it."""
    try:
        import ray
    except ImportError as error:
        raise cannot_import("Ray", RAY, error) from error
    version = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if version < (2, 52):
        command = python_command(f'pip install "{RAY}"')
        raise DependencyError(f"Ray {ray.__version__} has no token authentication. Run {command} on every machine.")
    return ray


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        raise UsageError(
            f'"--cluster" cannot be {address}. Use {LOCAL}, or the address that "ray start --head" prints, such as '
            "10.0.0.5:6379."
        )
    # `asyncio.run` would wait until a slow name server answers. With this loop, only the end of the process waits
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(_open(host, int(port)), ANSWER_SECONDS))
    except (OSError, OverflowError, asyncio.TimeoutError) as error:
        raise UsageError(
            f'No cluster answers at {address}. Check the address, start a cluster with "ray start --head" if none '
            "runs, and allow the port in the firewall."
        ) from error
    finally:
        loop.close()


async def _open(host: str, port: int) -> None:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
