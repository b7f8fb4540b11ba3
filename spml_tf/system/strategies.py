"""The `tf.distribute` strategies that commands offer by name."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from spml_tf.system import machine_faults
from spml_tf.system.errors import UserError
from spml_tf.system.json_text import parse_json

if TYPE_CHECKING:
    import tensorflow as tf

STRATEGIES = ("none", "mirrored", "multi_worker")


def strategy(name: str, devices: int = 0) -> tf.distribute.Strategy:
    """The strategy of a name; to be called before TensorFlow has run anything.

    Args:
        name: "none", one device; "mirrored", the GPUs of this process; "multi_worker", those of
            all processes that TF_CONFIG or Slurm's variables tell of.
        devices: how many a process uses; 0: all GPUs. Without a GPU, so many logical CPUs.

    Raises:
        UserError: for more devices than there are, or a cluster that is told of badly.
    """
    import tensorflow as tf

    if name == "none":
        if devices > 1:
            raise UserError(f"--devices={devices}: needs --strategy=mirrored or multi_worker")
        return tf.distribute.get_strategy()
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and devices:
        if devices > len(gpus):
            raise UserError(f"--devices={devices}: this machine has {len(gpus)} GPUs")
        tf.config.set_visible_devices(gpus[:devices], "GPU")
    if not gpus and devices > 1:
        one = tf.config.LogicalDeviceConfiguration()
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [one] * devices)
    if name == "mirrored":
        kind, found = ("GPU", devices or len(gpus)) if gpus else ("CPU", max(devices, 1))
        return tf.distribute.MirroredStrategy([f"{kind}:{n}" for n in range(found)])
    return _multi_worker(0 if gpus else devices)


def _multi_worker(cpus: int) -> tf.distribute.Strategy:
    import tensorflow as tf

    from spml_tf.system.private_api import several_cpus_a_worker

    resolver = cluster(os.environ)
    with several_cpus_a_worker(cpus) if cpus > 1 else contextlib.nullcontext():
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(resolver)
        except (ValueError, RuntimeError, tf.errors.OpError) as error:
            raise UserError(
                f"--strategy=multi_worker: the workers did not come together ({_first(error)}); "
                "start one process for each that TF_CONFIG names, with one TF_CONFIG but for its "
                "task"
            ) from None


def cluster(environment: Mapping[str, str]) -> Any:
    """The cluster's resolver, from TF_CONFIG or from Slurm's variables.

    Args:
        environment: variables of the process.

    Raises:
        UserError: there are neither, or TF_CONFIG is none.
    """
    import tensorflow as tf

    resolvers = tf.distribute.cluster_resolver
    text = environment.get("TF_CONFIG", "")
    if text:
        _check(text)
        return resolvers.TFConfigClusterResolver()
    if "SLURM_PROCID" in environment:
        try:
            return resolvers.SlurmClusterResolver()
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(
                f"--strategy=multi_worker: Slurm's variables cannot be used ({_first(error)}); "
                "start it by srun, with a task a process"
            ) from None
    raise UserError(
        "--strategy=multi_worker: neither TF_CONFIG nor Slurm's variables tell of other workers; "
        "set TF_CONFIG, or give --workers=2 for two processes on this machine"
    )


def is_first_worker() -> bool:
    """Whether this process is the one that writes results, by its environment."""
    resolver = cluster(os.environ)
    jobs = resolver.cluster_spec().as_dict()
    first: bool = resolver.task_id == 0 and resolver.task_type == next(
        job for job in ("chief", "worker") if job in jobs
    )
    return first


def _check(text: str) -> None:
    try:
        config = parse_json(text)
        addresses = config["cluster"]["worker"]
        if not all(isinstance(x, list) for x in config["cluster"].values()):
            raise TypeError("the addresses of a cluster are lists")
        number, kind = int(config["task"]["index"]), config["task"]["type"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"TF_CONFIG: must be such as {json.dumps(_EXAMPLE)}, found {text!r} ({error!r})"
        ) from None
    if kind not in ("chief", "worker") or number not in range(
        len(addresses if kind == "worker" else config["cluster"].get("chief", ()))
    ):
        raise UserError(f"TF_CONFIG: its cluster has no task {kind} {number}")


_EXAMPLE = {
    "cluster": {"worker": ["host1:2222", "host2:2222"]},
    "task": {"type": "worker", "index": 0},
}


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def telling_lost_workers(goes_on: str) -> Iterator[None]:
    """Turns what TensorFlow raises when another worker is gone into one line.

    That holds for what was made of it, too: a network's file is not damaged because a collective
    operation failed while it was loaded.

    Args:
        goes_on: what to do.

    Raises:
        UserError: a worker was lost.
    """
    import tensorflow as tf

    errors = tf.errors
    lost = (errors.UnavailableError, errors.AbortedError, errors.CancelledError,
            errors.DeadlineExceededError, errors.InternalError)  # fmt: skip
    try:
        yield
    except Exception as error:
        for one in machine_faults.chain(error):
            if isinstance(one, lost) and _of_workers(one):
                reason = f"another worker is gone ({_reason(one)}); {goes_on}"
                raise UserError(reason) from None
        raise


def _of_workers(error: Exception) -> bool:
    from spml_tf.system.replicas import this_shard

    words = ("collective", "Collective", "/job:worker", "heartbeat", "peers", "Socket closed")
    return this_shard().workers > 1 and any(word in str(error) for word in words)


def _reason(error: Exception) -> str:
    for line in str(error).splitlines():
        if "aborted by" in line or "peer" in line or "heartbeat" in line:
            return line.strip()[:200]
    return type(error).__name__
