"""How many trials a cluster holds, and why one waits."""

from pathlib import Path

import pytest

from orchestrator.spec.sweep_spec import ResourceConfig
from orchestrator.trials.placement import (
    Cluster,
    NodeShape,
    Room,
    gpus_per_scorer,
    gpus_per_worker,
    room,
    scores_alike,
    shapes_of_config,
    slots,
    where_scored,
    why_waiting,
)
from trainers.foundation.errors import InputError
from trainers.foundation.settings_file import read_yaml

LAPTOP = Cluster([NodeShape({"CPU": 8, "memory": 1e10}, 1)])
FOUR_GPU_NODES = Cluster([NodeShape({"CPU": 16, "GPU": 2}, 4)])
SCALES_FROM_ZERO = Cluster(
    nodes=[NodeShape({"plw_driver": 1000}, 1)],
    may_become=[NodeShape({"plw_driver": 1000}, 1), NodeShape({"CPU": 8, "GPU": 1}, 8)],
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
    ],
)
def test_as_many_trials_run_at_once_as_fit(
    cluster: Cluster, resources: dict[str, float], expected: int
) -> None:
    assert slots(ResourceConfig.model_validate(resources), cluster) == expected


def test_a_worker_never_spans_two_nodes() -> None:
    with pytest.raises(InputError) as error:
        slots(ResourceConfig(gpus_per_worker=4.0), FOUR_GPU_NODES)
    [problem] = error.value.problems
    assert problem.message == (
        "a trial needs 1 worker of 1 CPU and 4 GPU each, but the cluster holds at most 0 of them "
        "(its largest node has 16 CPU, 2 GPU)"
    )
    assert problem.where == "resources"


def test_a_trial_larger_than_a_full_grown_cluster_is_refused() -> None:
    with pytest.raises(InputError, match="needs 9 workers of 1 CPU and 1 GPU each"):
        slots(ResourceConfig(workers_per_trial=9), SCALES_FROM_ZERO)


def test_a_gpu_each_where_there_are_any_or_may_come() -> None:
    assert gpus_per_worker(ResourceConfig(), LAPTOP) == 0
    assert gpus_per_worker(ResourceConfig(), SCALES_FROM_ZERO) == 1
    assert gpus_per_worker(ResourceConfig(gpus_per_worker=0.25), FOUR_GPU_NODES) == 0.25


def test_a_waiting_trial_says_what_it_waits_for() -> None:
    need = {"num_workers": 2, "cpus": 4, "gpus": 1}
    assert why_waiting({"CPU": 8}, {"CPU": 8}, **need) == (
        "for nodes: needs 2 GPUs, the cluster has 0"
    )
    assert why_waiting({"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 1}, **need) == (
        "for its workers, which start or wait for 2 GPUs (1 of 2 free)"
    )
    assert why_waiting({"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 2}, **need) == (
        "for its workers to start"
    )


def test_our_cluster_runs_as_many_trials_as_it_may_have_gpu_nodes() -> None:
    config = read_yaml(Path(__file__).parents[3] / "cluster.yaml")
    empty = Cluster([NodeShape({"plw_driver": 1000}, 1)], shapes_of_config(config), is_fixed=False)
    assert slots(ResourceConfig(), empty) == 8
    assert slots(ResourceConfig(workers_per_trial=4), empty) == 2
    assert empty.has_driver_nodes


def test_workers_of_all_kinds_together_are_no_more_than_the_cluster_may_have() -> None:
    small, large = {"CPU": 4, "GPU": 1}, {"CPU": 8, "GPU": 4}
    kinds = {
        "head": {"resources": {"CPU": 0}},
        "small": {"resources": small, "max_workers": 3},
        "large": {"resources": large, "max_workers": 2},
    }
    config = {"max_workers": 3, "head_node_type": "head", "available_node_types": kinds}
    assert shapes_of_config(config) == [
        NodeShape({"CPU": 0}, 1),
        NodeShape(large, 2),
        NodeShape(small, 1),
    ]


def test_a_cluster_that_grows_unseen_is_taken_at_the_word_of_the_spec() -> None:
    empty = Cluster([NodeShape({"CPU": 2}, 1)], is_fixed=False)
    at_once = ResourceConfig(gpus_per_worker=1.0, max_concurrent_trials=5)
    assert slots(at_once, empty) == 5
    with pytest.raises(InputError, match="on demand"):
        slots(ResourceConfig(gpus_per_worker=1.0), empty)


@pytest.mark.parametrize(
    ("cluster", "resources", "expected"),
    [
        # Trials come first, and scorers take what they leave.
        (LAPTOP, {"workers_per_trial": 3}, Room(2, 2)),
        (LAPTOP, {"workers_per_trial": 5}, Room(1, 1)),
        (LAPTOP, {"workers_per_trial": 2, "max_concurrent_trials": 1}, Room(1, 1)),
        (LAPTOP, {"workers_per_trial": 5, "cpus_per_scorer": 4}, Room(1, 0)),
        (LAPTOP, {"cpus_per_worker": 8}, Room(1, 0)),
        (FOUR_GPU_NODES, {"workers_per_trial": 3}, Room(2, 2)),
        (FOUR_GPU_NODES, {}, Room(8, 0)),
        (FOUR_GPU_NODES, {"gpus_per_scorer": 0}, Room(8, 8)),
        (FOUR_GPU_NODES, {"workers_per_trial": 7, "gpus_per_scorer": 0.5}, Room(1, 1)),
        (SCALES_FROM_ZERO, {"workers_per_trial": 3}, Room(2, 2)),
        # Those that are asked for take the place of trials, but never of the last one.
        (LAPTOP, {"scorers": 0, "workers_per_trial": 3}, Room(2, 0)),
        (LAPTOP, {"scorers": 3, "workers_per_trial": 2}, Room(2, 3)),
        (LAPTOP, {"scorers": 9, "workers_per_trial": 2}, Room(1, 6)),
        (LAPTOP, {"scorers": 1, "cpus_per_worker": 8}, Room(1, 0)),
        (FOUR_GPU_NODES, {"scorers": 1}, Room(7, 1)),
        (FOUR_GPU_NODES, {"scorers": 2, "gpus_per_scorer": 0.5}, Room(7, 2)),
        (FOUR_GPU_NODES, {"scorers": 2, "gpus_per_worker": 2.0}, Room(3, 2)),
    ],
)
def test_scorers_fit_beside_trials(
    cluster: Cluster, resources: dict[str, float], expected: Room
) -> None:
    assert room(ResourceConfig.model_validate(resources), cluster) == expected


def test_a_scorer_needs_what_a_worker_needs_but_one_gpu_at_most() -> None:
    assert gpus_per_scorer(ResourceConfig(), FOUR_GPU_NODES) == 1
    assert gpus_per_scorer(ResourceConfig(gpus_per_worker=2.0), FOUR_GPU_NODES) == 1
    assert gpus_per_scorer(ResourceConfig(gpus_per_worker=0.5), FOUR_GPU_NODES) == 0.5
    assert gpus_per_scorer(ResourceConfig(gpus_per_scorer=0.0), FOUR_GPU_NODES) == 0
    assert gpus_per_scorer(ResourceConfig(), LAPTOP) == 0


def test_workers_score_alike_on_the_same_kind_of_device_with_as_many_threads() -> None:
    assert scores_alike(ResourceConfig(cpus_per_worker=2), LAPTOP)
    assert scores_alike(ResourceConfig(gpus_per_scorer=0.5), FOUR_GPU_NODES)
    assert not scores_alike(ResourceConfig(gpus_per_scorer=0.0), FOUR_GPU_NODES)
    assert not scores_alike(ResourceConfig(cpus_per_worker=2, cpus_per_scorer=1), LAPTOP)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"scorers": 0}, "by each trial's first worker"),
        (
            {"cpus_per_worker": 8},
            "by each trial's first worker, as there is no room for a scorer beside the trials",
        ),
        (
            {"cpus_per_worker": 8, "scorers": 2},
            "by each trial's first worker, as there is no room for a scorer beside one trial",
        ),
        ({"workers_per_trial": 5}, "by 1 process of 1 CPU beside the trials"),
        (
            {"workers_per_trial": 2, "cpus_per_worker": 2, "scorers": 2},
            "by 2 processes of 2 CPU beside the trials",
        ),
    ],
)
def test_it_is_said_where_models_are_scored(resources: dict[str, float], expected: str) -> None:
    assert where_scored(ResourceConfig.model_validate(resources), LAPTOP) == expected


def test_ten_tenths_of_a_gpu_fit_on_one() -> None:
    cluster = Cluster([NodeShape({"CPU": 16, "GPU": 1}, 1)])
    assert slots(ResourceConfig(gpus_per_worker=0.1), cluster) == 10
