"""The settings of a cluster, and what Ray Serve is to make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_origin

import ray

from ....nodes.errors import InputError
from ..settings import Settings, make_settings

# On the machine where the cluster began: a head that starts anew finds its sqlite file there.
FIRST_NODE = {"node:__internal_head__": 0.001}
AT_ONCE = 4096  # requests of a head under way, most of which wait for a change of a job
UPSCALE_DELAY = 10  # seconds of backlog until another worker is started
GRACE = 10.0  # seconds a head that is stopped has for its open answers


@dataclass(frozen=True)
class Plan:
    """What is deployed.

    Attributes:
        settings: Settings as plain values, paths made absolute.
        workers, heads: Serve's options of the two deployments.
        capacity: the jobs that a head hands over at once. One more than workers: it is the
            backlog that makes Serve start the next. All others wait in the store, by priority.
    """

    settings: Mapping[str, Any]
    workers: Mapping[str, Any]
    heads: Mapping[str, Any]
    capacity: int


def plan(args: Mapping[str, Any]) -> Plan:
    """`args`: the settings by name; a string for a list is split at commas.

    Raises:
        InputError: a setting breaks a rule; it names all that do.
    """
    if unknown := sorted(args.keys() - Settings.model_fields.keys()):
        known = ", ".join(Settings.model_fields)
        raise InputError(f"There is no setting {' and no '.join(unknown)}. Use {known}.")
    settings = make_settings({name: _value(name, given) for name, given in args.items()})
    total = _gpus_of_cluster() if settings.gpus is None or not settings.max_replicas else 0.0
    gpus = float(total > 0) if settings.gpus is None else settings.gpus
    replicas = settings.max_replicas or (max(1, int(total / gpus)) if gpus else 1)
    replicas = max(replicas, settings.min_replicas)
    plain = settings.model_dump(mode="json")
    plain["data"] = str(settings.data.resolve())
    if settings.models is not None:
        plain["models"] = str(settings.models.resolve())
    return Plan(plain, _workers(settings, gpus, replicas), _heads(settings), replicas + 1)


def _workers(settings: Settings, gpus: float, most: int) -> dict[str, Any]:
    least = settings.min_replicas
    by_load = {
        "min_replicas": least,
        "max_replicas": most,
        "target_ongoing_requests": 1,
        "upscale_delay_s": UPSCALE_DELAY,
        "metrics_interval_s": 1,
        "look_back_period_s": 3,
    }
    return {
        "max_ongoing_requests": 1,
        "ray_actor_options": {"num_cpus": 1, "num_gpus": gpus},
        # a replica that is not needed any more ends its job first
        "graceful_shutdown_timeout_s": settings.job_timeout,
        "health_check_period_s": 5,
        **({"num_replicas": most} if least == most else {"autoscaling_config": by_load}),
    }


def _heads(settings: Settings) -> dict[str, Any]:
    pinned = {} if settings.database else {"resources": FIRST_NODE}
    return {
        "num_replicas": settings.heads,
        "max_ongoing_requests": AT_ONCE,
        "ray_actor_options": {"num_cpus": 0, **pinned},
        "graceful_shutdown_timeout_s": GRACE,
        "graceful_shutdown_wait_loop_s": 0.5,
        "logging_config": {"enable_access_log": False},
        "health_check_period_s": 5,
    }


def _value(name: str, given: object) -> object:
    field = Settings.model_fields.get(name)
    if field is None or get_origin(field.annotation) is not tuple or not isinstance(given, str):
        return given
    return tuple(part.strip() for part in given.split(",") if part.strip())


def _gpus_of_cluster() -> float:
    """Of the cluster that `serve run` is about to join, or of this machine if it starts one."""
    if ray.is_initialized():
        return _gpus()
    try:
        ray.init(address="auto", log_to_driver=False)
    except ConnectionError:
        import torch  # takes seconds

        return float(torch.cuda.device_count())
    try:
        return _gpus()
    finally:
        ray.shutdown()


def _gpus() -> float:
    resources: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return float(resources.get("GPU", 0))
