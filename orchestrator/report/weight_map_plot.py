"""Plot scores over prompt weight and completion weight, with lines of equal ratio.

A grid of weights is drawn as equal cells with their values. Weights sampled from ranges are drawn
as points.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from orchestrator.analysis.findings import WeightMap
from orchestrator.analysis.weight_sentences import pair_text
from orchestrator.foundation.plw_scale import W_P_EXPONENT, w_p
from orchestrator.report.panel_drawing import GREY, tick_weights
from orchestrator.report.plots import STYLE, new_figure, save_figure
from orchestrator.statistics.messages import format_number
from orchestrator.statistics.weight_grid import GridCell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

Array = NDArray[np.float64]

FILE_STEM = "two_weights"
# Orange is worse and purple is better than the reference. Colour-blind readers can distinguish
# them.
COLOURS = "PuOr"
# The ends of the colour map are too dark for frames and black text.
COLOUR_RANGE = (0.16, 0.84)
# With more levels of a weight, cells are too small to show their values.
MAX_LEVELS = 12
# Minimum share of tried pairs; a table with fewer is drawn as points.
MIN_FILLED = 0.5
MAX_LINES = 5
# Ratios to draw if no two pairs share a ratio.
ROUND_RATIOS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
CELL_INCHES = (0.86, 0.62)
MARGIN_INCHES = (2.6, 2.2)
POINTS_INCHES = (6.2, 4.8)
LINE_STEPS = 200
# Text is black on colours with a higher luma.
BRIGHT = 0.45
# Space between the axes and the legend, for the ticks and the axis label.
LEGEND_GAP_INCHES = 0.55


def write_weight_maps(maps: Sequence[WeightMap], folder: Path) -> list[Path]:
    """Write each map as SVG and PNG; returns the paths of the SVGs, in order."""
    from matplotlib import rc_context

    paths = []
    with rc_context(STYLE):
        for number, found in enumerate(maps, start=1):
            folder.mkdir(parents=True, exist_ok=True)
            stem = folder / (FILE_STEM if len(maps) == 1 else f"{FILE_STEM}_{number}")
            paths.append(_write(found, stem))
    return paths


def _write(found: WeightMap, stem: Path) -> Path:
    prompts, completions = levels(found)
    if is_table(found):
        width = CELL_INCHES[0] * len(prompts) + MARGIN_INCHES[0]
        height = CELL_INCHES[1] * len(completions) + MARGIN_INCHES[1]
    else:
        width, height = POINTS_INCHES
    figure = new_figure(max(width, 4.6), max(height, 3.4))
    draw_map(figure.add_subplot(), found)
    return save_figure(figure, stem)


def levels(found: WeightMap) -> tuple[list[float], list[float]]:
    """Return the tried prompt weights and the tried completion weights, each ascending."""
    cells = found.grid.cells
    return (
        sorted({cell.prompt_weight for cell in cells}),
        sorted({cell.completion_weight for cell in cells}),
    )


def is_table(found: WeightMap) -> bool:
    """Return whether enough pairs of the table were tried to draw it as cells."""
    prompts, completions = levels(found)
    filled = len(found.grid.cells) / (len(prompts) * len(completions))
    return max(len(prompts), len(completions)) <= MAX_LEVELS and filled >= MIN_FILLED


def draw_map(axes: "Axes", found: WeightMap) -> None:
    """Draw differences from the reference; frame the best pair and pairs that may be as good."""
    colours = _colours(found)
    if is_table(found):
        prompts, completions = levels(found)
        _draw_cells(axes, found, colours)
        _draw_ratios(axes, found, _Levels(prompts), _Levels(completions))
    else:
        _draw_points(axes, found, colours)
        _draw_ratios(axes, found, _WholeRange(to_w_p=True), _WholeRange(to_w_p=False))
    _label(axes, found, colours)


class _Axis(Protocol):
    """Converts weights to positions on an axis; `ends` are the weights at its two ends."""

    ends: tuple[float, float]

    def places(self, weights: Array) -> Array: ...


class _Levels:
    """An axis with levels at 0, 1, 2, ...: linear in between, half a cell beyond both ends."""

    def __init__(self, tried: Sequence[float]) -> None:
        steps = np.diff(tried)
        self.ends = (float(tried[0] - steps[0] / 2), float(tried[-1] + steps[-1] / 2))
        self._levels = np.array([self.ends[0], *tried, self.ends[1]])
        self._places = np.array([-0.5, *range(len(tried)), len(tried) - 0.5])

    def places(self, weights: Array) -> Array:
        return np.asarray(np.interp(weights, self._levels, self._places))


class _WholeRange:
    """An axis from 0 to 1; with `to_w_p`, a weight is drawn at its w_p."""

    def __init__(self, *, to_w_p: bool) -> None:
        self.ends = (0.0, 1.0)
        self._exponent = W_P_EXPONENT if to_w_p else 1.0

    def places(self, weights: Array) -> Array:
        return np.asarray(weights**self._exponent)


def _colours(found: WeightMap) -> "ScalarMappable":
    """Return a colour scale that is symmetric about the reference; noise alone has pale colours."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    cells = found.grid.cells
    half_widths = [
        (cell.difference_high - cell.difference_low) / 2
        for cell in cells
        if cell.difference_low is not None and cell.difference_high is not None
    ]
    most = max(abs(cell.difference) for cell in cells)
    # The interval of the reference pair has width 0.
    most = max(most, 1.5 * max(half_widths, default=0.0)) or 1.0
    colours = colormaps[COLOURS if found.higher_is_better else f"{COLOURS}_r"]
    return ScalarMappable(
        Normalize(-most, most), ListedColormap(colours(np.linspace(*COLOUR_RANGE, 256)))
    )


def _draw_cells(axes: "Axes", found: WeightMap, colours: "ScalarMappable") -> None:
    from matplotlib.patches import Rectangle

    prompts, completions = levels(found)
    for cell in found.grid.cells:
        x, y = prompts.index(cell.prompt_weight), completions.index(cell.completion_weight)
        colour = _colour(colours, cell.difference)
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=1)
        )
        mark = _mark(found, cell)
        if mark is not None:
            # The frame is inside the cell, so that the frames of neighbours do not overlap.
            frame = Rectangle((x - 0.44, y - 0.42), 0.88, 0.84, fill=False, zorder=4, **mark)
            axes.add_patch(frame)
        is_reference = cell.pair == found.grid.reference
        value = (
            "reference" if is_reference else format_number(cell.difference, found.unit, signed=True)
        )
        axes.text(
            x,
            y,
            value,
            ha="center",
            va="center",
            fontsize=8 if is_reference else 9,
            color=_text_colour(colour),
            zorder=5,
            # This keeps the value readable on a line of equal ratio.
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.2},
        )
    axes.set_xlim(-0.5, len(prompts) - 0.5)
    axes.set_ylim(-0.5, len(completions) - 0.5)
    axes.set_xticks(range(len(prompts)), [f"{weight:g}" for weight in prompts])
    axes.set_yticks(range(len(completions)), [f"{weight:g}" for weight in completions])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _colour(colours: "ScalarMappable", difference: float) -> tuple[float, ...]:
    return tuple(float(part) for part in colours.to_rgba(np.array([difference]))[0])


def _text_colour(colour: tuple[float, ...]) -> str:
    """Return black or white for text on `colour`, depending on its luma (ITU-R BT.709)."""
    red, green, blue = colour[:3]
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > BRIGHT else "white"


def _mark(found: WeightMap, cell: GridCell) -> dict[str, Any] | None:
    """Return the frame style of the best pair, or of a pair that is not significantly worse."""
    if cell.pair == found.grid.best:
        return {"edgecolor": "black", "linewidth": 2.4}
    if cell.may_be_best:
        return {"edgecolor": "black", "linewidth": 1.1, "linestyle": (0, (3, 2))}
    return None


def _draw_points(axes: "Axes", found: WeightMap, colours: "ScalarMappable") -> None:
    for cell in found.grid.cells:
        mark = _mark(found, cell) or {"edgecolor": GREY, "linewidth": 0.5}
        axes.scatter(
            [w_p(cell.prompt_weight)],
            [cell.completion_weight],
            s=110,
            marker="s" if cell.pair == found.grid.reference else "o",
            facecolor=[_colour(colours, cell.difference)],
            zorder=4,
            **mark,
        )
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, 1.04)
    ticks = tick_weights(levels(found)[0])
    axes.set_xticks([w_p(weight) for weight in ticks], [f"{weight:g}" for weight in ticks])


def drawn_ratios(found: WeightMap) -> list[float]:
    """Return the ratios shared by the most pairs, or round ratios if no pairs share one."""
    counts = Counter(cell.ratio for cell in found.grid.cells if cell.ratio)
    shared = [ratio for ratio, count in counts.items() if count > 1]
    shared.sort(key=lambda ratio: (-counts[ratio], abs(np.log(ratio))))
    if shared:
        return sorted(shared[:MAX_LINES])
    tried = [cell.ratio for cell in found.grid.cells if cell.ratio]
    return [ratio for ratio in ROUND_RATIOS if tried and min(tried) <= ratio <= max(tried)]


def _draw_ratios(axes: "Axes", found: WeightMap, prompts: _Axis, completions: _Axis) -> None:
    for number, ratio in enumerate(drawn_ratios(found)):
        completion = np.linspace(max(completions.ends[0], 0.0), completions.ends[1], LINE_STEPS)
        prompt = ratio * completion
        inside = (prompt >= prompts.ends[0]) & (prompt <= prompts.ends[1])
        if not inside.any():
            continue
        x, y = prompts.places(prompt[inside]), completions.places(completion[inside])
        label = "equal ratio of prompt to completion weight" if number == 0 else "_"
        axes.plot(x, y, color=GREY, linewidth=0.9, linestyle=":", zorder=3, label=label)
        leaves_at_top = bool(inside[-1])
        axes.annotate(
            f"{ratio:.2g}",
            (x[-1], y[-1]),
            xytext=(0, 3) if leaves_at_top else (3, 0),
            textcoords="offset points",
            ha="center" if leaves_at_top else "left",
            va="bottom" if leaves_at_top else "center",
            fontsize=8,
            color=GREY,
            annotation_clip=False,
        )


def _label(axes: "Axes", found: WeightMap, colours: "ScalarMappable") -> None:
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    grid = found.grid
    title = f"{found.scores} by prompt and completion weight"
    axes.set_title(title, loc="left", fontweight="bold", pad=18)
    scale = "" if is_table(found) else " (axis in $w_p$ = PLW$^{0.301}$)"
    axes.set_xlabel(f"prompt weight{scale}")
    axes.set_ylabel("completion weight")
    direction = "" if found.higher_is_better else "\n(lower is better)"
    figure = axes.figure
    bar = figure.colorbar(colours, ax=axes, pad=0.08, aspect=24)
    bar.set_label(f"{found.unit} from {pair_text(grid.reference)}{direction}", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    frames = [Line2D([], [], color="black", linewidth=2.4, label="best mean")]
    if grid.noise_sd is not None:
        dashed: dict[str, Any] = {"color": "black", "linewidth": 1.1, "linestyle": (0, (3, 2))}
        frames.append(Line2D([], [], **dashed, label="not significantly worse"))
    if not is_table(found):
        square: dict[str, Any] = {"color": GREY, "marker": "s", "linestyle": "none"}
        frames.append(Line2D([], [], **square, fillstyle="none", label="reference"))
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    below = ScaledTranslation(0, -LEGEND_GAP_INCHES, figure.dpi_scale_trans)
    axes.legend(
        handles=[*frames, *lines],
        fontsize=8,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        bbox_transform=axes.transAxes + below,
        borderaxespad=0.0,
    )
