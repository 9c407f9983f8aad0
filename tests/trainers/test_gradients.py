"""The gradient in the optimizer is that of the defined loss, for every ZeRO stage and layout."""

import itertools
from pathlib import Path

import pytest
import torch

from tests.trainers.gradients import (
    MODES,
    PLWS,
    Cell,
    all_cells,
    errors,
    reference_gradient,
    write_gradients,
)
from tests.worlds import run_in_world

OVERALL, PER_TENSOR = 1e-5, 1e-4
# CPU offload, an untied head, recomputed activations.
OTHERS = [
    *(Cell(0.242, "weights", stage, 2, 2, 7, offload=True) for stage in (1, 2, 3)),
    *(Cell(0.242, "weights", stage, 2, 2, 7, stage == 0, tied=False) for stage in (0, 3)),
    *(Cell(0.01, "weights", stage, 2, 2, 7, stage == 3, recompute=True) for stage in (2, 3)),
]


def covering_cells() -> list[Cell]:
    """Every PLW with every layout, padded and packed, over all modes and ZeRO stages."""
    layouts = [(1, 8, 8), (2, 4, 8), (1, 4, 8), (2, 2, 7)]
    stages = itertools.cycle((2, 3, 1, 0, 3))
    modes = itertools.cycle(MODES)
    return [
        Cell(plw, next(modes), next(stages), world, micro, count, packing)
        for (world, micro, count), plw, packing in itertools.product(layouts, PLWS, (False, True))
    ]


def compute(cells: list[Cell], folder: Path) -> Path:
    for world_size in (1, 2):
        chosen = [cell for cell in cells if cell.world_size == world_size]
        run_in_world(world_size, write_gradients, chosen, folder)
    return folder


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compute([*covering_cells(), *OTHERS], tmp_path_factory.mktemp("gradients"))


@pytest.mark.parametrize("cell", [*covering_cells(), *OTHERS], ids=lambda cell: cell.name)
def test_gradient_equals_float64_reference_of_the_global_batch(cell: Cell, gradients: Path) -> None:
    overall, worst = errors(torch.load(gradients / f"{cell.name}.pt"), reference_gradient(cell))
    assert overall < OVERALL
    assert worst < PER_TENSOR


@pytest.mark.full
def test_gradient_equals_reference_in_every_cell(tmp_path: Path) -> None:
    cells = all_cells()
    assert len(cells) == 800
    folder = compute(cells, tmp_path)
    failed = []
    for cell in cells:
        overall, worst = errors(torch.load(folder / f"{cell.name}.pt"), reference_gradient(cell))
        if overall >= OVERALL or worst >= PER_TENSOR:
            failed.append((cell.name, overall, worst))
    assert failed == []


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_wrong_scale_fails_the_check(factor: float, gradients: Path) -> None:
    """DeepSpeed's division by ranks or accumulation steps would be such a factor."""
    cell = next(cell for cell in covering_cells() if cell.world_size == 2)
    scaled = {k: factor * g for k, g in torch.load(gradients / f"{cell.name}.pt").items()}
    assert errors(scaled, reference_gradient(cell))[0] > OVERALL


def test_a_mean_of_micro_batch_means_fails_the_check() -> None:
    """Averaging the losses of micro-batches is the usual mistake."""
    whole = Cell(0.242, "weights", 2, 1, 8)
    reference = reference_gradient(whole)
    halves = [reference_gradient(whole, part) for part in (slice(0, 4), slice(4, 8))]
    mean_of_means = {name: (halves[0][name] + halves[1][name]) / 2 for name in reference}
    assert errors(mean_of_means, reference)[0] > OVERALL
