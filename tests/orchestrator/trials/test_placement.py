"""Number of trials and scorers that fit on a cluster, and reasons for waiting."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.spec.sweep_spec import ResourceConfig
from orchestrator.trials.placement import (
    Capacity,
    Cluster,
    NodeShape,
    capacity,
    describe_scoring,
    gpus_per_scorer,
    gpus_per_worker,
    is_packed,
    node_shapes,
    trial_slots,
    waiting_reason,
    workers_match_scorers,
)
from trainers.foundation.errors import InputError
from trainers.foundation.settings_file import read_yaml

LAPTOP = Cluster([NodeShape({"CPU": 8, "memory": 1e10}, 1)])
FOUR_GPU_NODES = Cluster([NodeShape({"CPU": 16, "GPU": 2}, 4)])
SCALES_FROM_ZERO = Cluster(
    nodes=[NodeShape({"plw_driver": 1000}, 1)],
    future_nodes=[NodeShape({"plw_driver": 1000}, 1), NodeShape({"CPU": 8, "GPU": 1}, 8)],
)
THREE_LARGE_NODES = Cluster([NodeShape({"CPU": 64, "GPU": 8}, 3)])
LARGE_NODES_TO_COME = Cluster(
    nodes=[NodeShape({"CPU": 64, "GPU": 4}, 7)],
    future_nodes=[NodeShape({"CPU": 64, "GPU": 8}, 3)],
)


@pytest.mark.parametrize(
    ("cluster", "resources", "expected"),
    [
        (LAPTOP, {"workers_per_trial": 2, "cpus_per_worker": 2}, 2),
        (LAPTOP, {"workers_per_trial": 1, "cpus_per_worker": 8}, 1),
        (LAPTOP, {"cpus_per_worker": 1, "max_concurrent_trials": 3}, 3),
        (FOUR_GPU_NODES, {"workers_per_trial": 2}, 4),
        (FOUR_GPU_NODES, {"workers_per_trial": 8}, 1),
        (FOUR_GPU_NODES, {"gpus_per_worker": 0.5}, 16),
        (FOUR_GPU_NODES, {"gpus_per_worker": 2.0, "workers_per_trial": 3}, 1),
        (SCALES_FROM_ZERO, {"workers_per_trial": 2}, 4),
        # Eight GPUs hold one trial of six; 24 GPUs would hold four that straddle nodes.
        (THREE_LARGE_NODES, {"workers_per_trial": 6}, 3),
        (THREE_LARGE_NODES, {"workers_per_trial": 6, "placement": "any"}, 4),
        (THREE_LARGE_NODES, {"workers_per_trial": 12}, 2),
        (LARGE_NODES_TO_COME, {"workers_per_trial": 6}, 3),
    ],
)
def test_number_of_trials_that_fit_on_a_cluster(
    cluster: Cluster, resources: dict[str, float], expected: int
) -> None:
    assert trial_slots(ResourceConfig.model_validate(resources), cluster) == expected


@pytest.mark.parametrize(
    ("num_workers", "placement", "expected"),
    [(6, "node", True), (8, "node", True), (9, "node", False), (6, "any", False)],
)
def test_a_trial_is_packed_if_a_node_has_room_for_it(
    num_workers: int, placement: Any, expected: bool
) -> None:
    resources = ResourceConfig(workers_per_trial=num_workers, placement=placement)
    assert is_packed(resources, THREE_LARGE_NODES) == expected


@pytest.mark.parametrize(
    ("num_scorers", "expected"),
    # Two GPUs of each node are free beside a trial of six.
    [(6, Capacity(3, 6)), (7, Capacity(2, 7)), (None, Capacity(3, 3))],
)
def test_scorers_use_the_gpus_that_packed_trials_leave_free(
    num_scorers: int | None, expected: Capacity
) -> None:
    resources = ResourceConfig(workers_per_trial=6, scorers=num_scorers)
    assert capacity(resources, THREE_LARGE_NODES) == expected


def test_a_worker_never_spans_two_nodes() -> None:
    with pytest.raises(InputError) as error:
        trial_slots(ResourceConfig(gpus_per_worker=4.0), FOUR_GPU_NODES)
    [problem] = error.value.problems
    assert problem.message == (
        "a trial needs 1 worker of 1 CPU and 4 GPU each, but at most 0 fit on the cluster (its "
        "largest node has 16 CPU, 2 GPU)"
    )
    assert problem.where == "resources"


def test_trial_larger_than_the_grown_cluster_is_rejected() -> None:
    with pytest.raises(InputError, match="needs 9 workers of 1 CPU and 1 GPU each"):
        trial_slots(ResourceConfig(workers_per_trial=9), SCALES_FROM_ZERO)


def test_default_is_one_gpu_per_worker_if_the_cluster_has_or_can_add_gpus() -> None:
    assert gpus_per_worker(ResourceConfig(), LAPTOP) == 0
    assert gpus_per_worker(ResourceConfig(), SCALES_FROM_ZERO) == 1
    assert gpus_per_worker(ResourceConfig(gpus_per_worker=0.25), FOUR_GPU_NODES) == 0.25


def test_waiting_reason_names_nodes_other_trials_or_the_start() -> None:
    need = {"num_workers": 2, "cpus": 4, "gpus": 1}
    assert waiting_reason({"CPU": 8}, {"CPU": 8}, **need) == (
        "for nodes: needs 2 GPUs, the cluster has 0"
    )
    assert waiting_reason({"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 1}, **need) == (
        "for its workers to start, or for 2 GPUs (1 of 2 free)"
    )
    one = {"num_workers": 1, "cpus": 1, "gpus": 0}
    assert waiting_reason({"CPU": 2}, {"CPU": 0}, **one) == (
        "for its workers to start, or for 1 CPU (0 of 2 free)"
    )
    assert waiting_reason({"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 2}, **need) == (
        "for its workers to start"
    )


def test_cluster_yaml_runs_one_trial_per_gpu_node_at_its_limit() -> None:
    config = read_yaml(Path(__file__).parents[3] / "cluster.yaml")
    empty = Cluster([NodeShape({"plw_driver": 1000}, 1)], node_shapes(config), is_fixed=False)
    assert trial_slots(ResourceConfig(), empty) == 8
    assert trial_slots(ResourceConfig(workers_per_trial=4), empty) == 2
    assert empty.has_driver_nodes


def test_max_workers_bounds_all_node_types_together() -> None:
    small, large = {"CPU": 4, "GPU": 1}, {"CPU": 8, "GPU": 4}
    kinds = {
        "head": {"resources": {"CPU": 0}},
        "small": {"resources": small, "max_workers": 3},
        "large": {"resources": large, "max_workers": 2},
    }
    config = {"max_workers": 3, "head_node_type": "head", "available_node_types": kinds}
    assert node_shapes(config) == [
        NodeShape({"CPU": 0}, 1),
        NodeShape(large, 2),
        NodeShape(small, 1),
    ]


def test_spec_decides_for_a_cluster_with_unknown_growth() -> None:
    empty = Cluster([NodeShape({"CPU": 2}, 1)], is_fixed=False)
    at_once = ResourceConfig(gpus_per_worker=1.0, max_concurrent_trials=5)
    assert trial_slots(at_once, empty) == 5
    with pytest.raises(InputError, match="on demand"):
        trial_slots(ResourceConfig(gpus_per_worker=1.0), empty)


@pytest.mark.parametrize(
    ("cluster", "resources", "expected"),
    [
        # By default trials have priority, and scorers use the remaining resources.
        (LAPTOP, {"workers_per_trial": 3}, Capacity(2, 2)),
        (LAPTOP, {"workers_per_trial": 5}, Capacity(1, 1)),
        (LAPTOP, {"workers_per_trial": 2, "max_concurrent_trials": 1}, Capacity(1, 1)),
        (LAPTOP, {"workers_per_trial": 5, "cpus_per_scorer": 4}, Capacity(1, 0)),
        (LAPTOP, {"cpus_per_worker": 8}, Capacity(1, 0)),
        (FOUR_GPU_NODES, {"workers_per_trial": 3}, Capacity(2, 2)),
        (FOUR_GPU_NODES, {}, Capacity(8, 0)),
        (FOUR_GPU_NODES, {"gpus_per_scorer": 0}, Capacity(8, 8)),
        (FOUR_GPU_NODES, {"workers_per_trial": 7, "gpus_per_scorer": 0.5}, Capacity(1, 1)),
        (SCALES_FROM_ZERO, {"workers_per_trial": 3}, Capacity(2, 2)),
        # Requested scorers replace trials, except the last one.
        (LAPTOP, {"scorers": 0, "workers_per_trial": 3}, Capacity(2, 0)),
        (LAPTOP, {"scorers": 3, "workers_per_trial": 2}, Capacity(2, 3)),
        (LAPTOP, {"scorers": 9, "workers_per_trial": 2}, Capacity(1, 6)),
        (LAPTOP, {"scorers": 1, "cpus_per_worker": 8}, Capacity(1, 0)),
        (FOUR_GPU_NODES, {"scorers": 1}, Capacity(7, 1)),
        (FOUR_GPU_NODES, {"scorers": 2, "gpus_per_scorer": 0.5}, Capacity(7, 2)),
        (FOUR_GPU_NODES, {"scorers": 2, "gpus_per_worker": 2.0}, Capacity(3, 2)),
    ],
)
def test_number_of_scorers_that_fit_beside_trials(
    cluster: Cluster, resources: dict[str, float], expected: Capacity
) -> None:
    assert capacity(ResourceConfig.model_validate(resources), cluster) == expected


def test_scorer_defaults_to_a_workers_resources_with_at_most_one_gpu() -> None:
    assert gpus_per_scorer(ResourceConfig(), FOUR_GPU_NODES) == 1
    assert gpus_per_scorer(ResourceConfig(gpus_per_worker=2.0), FOUR_GPU_NODES) == 1
    assert gpus_per_scorer(ResourceConfig(gpus_per_worker=0.5), FOUR_GPU_NODES) == 0.5
    assert gpus_per_scorer(ResourceConfig(gpus_per_scorer=0.0), FOUR_GPU_NODES) == 0
    assert gpus_per_scorer(ResourceConfig(), LAPTOP) == 0


def test_workers_match_scorers_with_the_same_device_kind_and_thread_count() -> None:
    assert workers_match_scorers(ResourceConfig(cpus_per_worker=2), LAPTOP)
    assert workers_match_scorers(ResourceConfig(gpus_per_scorer=0.5), FOUR_GPU_NODES)
    assert not workers_match_scorers(ResourceConfig(gpus_per_scorer=0.0), FOUR_GPU_NODES)
    assert not workers_match_scorers(ResourceConfig(cpus_per_worker=2, cpus_per_scorer=1), LAPTOP)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"scorers": 0}, "by each trial's workers"),
        (
            {"cpus_per_worker": 8},
            "by each trial's workers, as no scorer fits next to the trials",
        ),
        (
            {"cpus_per_worker": 8, "scorers": 2},
            "by each trial's workers, as no scorer fits next to one trial",
        ),
        ({"workers_per_trial": 5}, "by 1 process of 1 CPU, in parallel with the trials"),
        (
            {"workers_per_trial": 2, "cpus_per_worker": 2, "scorers": 2},
            "by 2 processes of 2 CPU, in parallel with the trials",
        ),
    ],
)
def test_description_of_where_models_are_scored(resources: dict[str, float], expected: str) -> None:
    assert describe_scoring(ResourceConfig.model_validate(resources), LAPTOP) == expected


def test_ten_tenths_of_a_gpu_fit_on_one() -> None:
    cluster = Cluster([NodeShape({"CPU": 16, "GPU": 1}, 1)])
    assert trial_slots(ResourceConfig(gpus_per_worker=0.1), cluster) == 10
