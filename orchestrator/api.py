"""The Python API: load or build a spec, plan and run it, and read the results of a sweep.

    from orchestrator import Sweep, load_spec, run_sweep

    sweep = run_sweep(load_spec("sweep.yaml"))    # or Sweep("demo"), for one in runs/
    print(sweep.answer)
    sweep.scores()                                # a pandas DataFrame

docs/python.md shows all of it. Sweeps run as `plw sweep` in processes of their own, so a notebook
keeps its memory and its signals.
"""

import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.results.scores import ScoreCard
from orchestrator.analysis.findings import Findings
from orchestrator.analysis.headline import conditions, headline
from orchestrator.analysis.sweep_findings import read_findings
from orchestrator.foundation.redaction import redact, to_yaml
from orchestrator.monitoring.logs import check_log, find_log, last_lines
from orchestrator.monitoring.lookup import (
    SWEEP,
    UNTUNED,
    find_trial,
    only_baseline,
    open_sweep,
    runs_folder,
)
from orchestrator.monitoring.stop import request_stop
from orchestrator.monitoring.sweep_list import SweepState, summarize_sweep, summarize_sweeps
from orchestrator.monitoring.watch import watch
from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.record.reader import SweepReader, label
from orchestrator.spec import sweep_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.statistics.aggregates import add_aggregates
from trainers.foundation.errors import InputError, Problem, TrainingError
from trainers.foundation.files import write_text
from trainers.foundation.jsonl import read_jsonl

if TYPE_CHECKING:
    # Types only: pandas and matplotlib take a second to import, planning imports torch.
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from orchestrator.export.best_setting import BestSetting
    from orchestrator.plan.sweep_plan import SweepPlan

__all__ = ["Sweep", "build_spec", "list_sweeps", "load_spec", "plan_sweep", "run_sweep"]

# Exit codes of `plw sweep`, as in orchestrator.cli.signals.
_BAD_INPUT, _FAILED_TRIALS, _INTERRUPTED = 2, 3, (130, 143)
_PLW = (sys.executable, "-m", "orchestrator.cli.main")
# Lines of output that an error shows.
_ERROR_LINES = 20
# Searched settings that have a column of another name.
_OWN_COLUMNS = ("loss.prompt_loss_weight", "seed")


def load_spec(path: Path | str, overrides: Sequence[str] = ()) -> SweepSpec:
    """Return the spec in a YAML file.

    Args:
        overrides: `key.path=value` settings that replace those of the file, as in `--set`.

    Raises:
        InputError: all problems of the file, each with its line.
    """
    return sweep_spec.load_spec(Path(path), overrides)


def build_spec(settings: Mapping[str, Any], *, name: str = "sweep") -> SweepSpec:
    """Return the spec with these settings, nested as in a YAML file.

    Args:
        name: the name of the sweep, unless `settings` has one.

    Raises:
        InputError: settings are unknown or break rules; lists all of them.
    """
    return sweep_spec.spec_from_content(deepcopy({"name": name, **settings}), Path("build_spec"))


def plan_sweep(spec: SweepSpec) -> "SweepPlan":
    """Return the trials of the spec with their estimated cost; start nothing.

    Raises:
        InputError: models, data or settings of trials are invalid.
    """
    from orchestrator.plan.sweep_plan import make_plan

    return make_plan(spec).plan


def run_sweep(spec: SweepSpec, *, address: str | None = None, quiet: bool = False) -> "Sweep":
    """Run the trials that are not done, as `plw sweep` does, and return the sweep.

    Prints the progress. An interrupt (Ctrl-C, or "interrupt the kernel") lets running trials write
    a checkpoint; the next call resumes them. Failed trials raise no error; `Sweep.trials` has them.

    Args:
        address: the Ray cluster; None: that of RAY_ADDRESS, else this machine.
        quiet: do not print.

    Raises:
        InputError: the sweep cannot run.
        TrainingError: the sweep failed.
    """
    path = spec.folder / "spec.yaml"
    write_text(path, _spec_text(spec))
    command = [*_PLW, "sweep", str(path), "--output-dir", str(spec.folder)]
    command += [] if address is None else ["--address", address]
    last_lines_shown: deque[str] = deque(maxlen=_ERROR_LINES)
    # A session of its own: an interrupt must reach the sweep once, from this process.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        while True:
            # Also while printing: without this process, the sweep would continue unnoticed.
            try:
                line = process.stdout.readline()
                if not line:
                    break
                last_lines_shown.append(line)
                if not quiet:
                    print(line, end="", flush=True)
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
    code = process.returncode
    if code in (0, _FAILED_TRIALS, *_INTERRUPTED):
        return Sweep(spec.folder)
    errors = [
        line.split("error: ", 1)[1].strip()
        for line in last_lines_shown
        if line.startswith("error: ")
    ]
    if code == _BAD_INPUT and errors:
        raise InputError([Problem(message=error) for error in errors])
    raise TrainingError("plw sweep failed: " + "".join(last_lines_shown).strip())


def _spec_text(spec: SweepSpec) -> str:
    """Return the spec as YAML.

    Raises:
        InputError: it contains a password, which must not be written to the sweep's folder.
    """
    content = spec.model_dump(mode="json", exclude_defaults=True)
    if redact(content) != content:
        raise InputError(
            Problem(
                message="the spec has a password in a URI",
                fix="set it in the environment, such as MLFLOW_TRACKING_URI for tracking.uri",
            )
        )
    return to_yaml(content)


def list_sweeps(folder: Path | str | None = None) -> "DataFrame":
    """Return the sweeps in a folder, by default runs/, with state, answer and cost."""
    found = summarize_sweeps(runs_folder() if folder is None else Path(folder))
    return _data_frame([vars(one) for one in found])


class Sweep:
    """A sweep, finished or running, whose results are read from its folder at each call."""

    def __init__(self, sweep: Path | str | None = None) -> None:
        """
        Args:
            sweep: its folder, or its name in runs/; None: the latest one.

        Raises:
            InputError: there is no such sweep, or its records are damaged.
        """
        self._folder: SweepFolder = open_sweep(sweep)

    def __repr__(self) -> str:
        one = summarize_sweep(self._folder)
        return f"<Sweep {one.name}: {one.state}, {one.num_done}/{one.num_trials} trials>"

    @property
    def name(self) -> str:
        return self._folder.read_sweep().name

    @property
    def folder(self) -> Path:
        return self._folder.root

    @property
    def state(self) -> SweepState:
        """`running`, `interrupted`, `failed trials`, `done` or `damaged`."""
        return summarize_sweep(self._folder).state

    @property
    def answer(self) -> str:
        """The headline of the report, with the conditions that qualify it."""
        findings = self.findings()
        return " ".join([headline(findings), *conditions(findings)])

    def findings(self) -> Findings:
        """Return verdicts, panels and costs, the content of the report."""
        return read_findings(self._folder)

    def status(self) -> "DataFrame":
        """Return the progress of each trial: state, step, losses, remaining seconds."""
        reader = SweepReader(self._folder)
        reader.refresh()
        frame = _data_frame([vars(one) for one in reader.statuses()])
        return frame.rename(columns={"id": "trial", "trial": "label"})

    def watch(self, *, interval_s: float = 2.0) -> None:
        """Print the progress until the sweep ends, or until an interrupt."""
        watch(self._folder, sys.stdout, interval_s=interval_s, max_rows=None)

    def stop(self, trial: str | None = None) -> str:
        """Ask the running sweep, or one of its trials, to write a checkpoint and stop.

        Args:
            trial: id of a trial or a prefix of one.

        Returns:
            A sentence on what happens.

        Raises:
            InputError: no sweep is running, or the trial has ended or does not exist.
        """
        return request_stop(
            self._folder, None if trial is None else find_trial(self._folder, trial)
        )

    def log(self, trial: str | None = None) -> str:
        """Return the log of a trial, of `untuned`, or of the sweep for None.

        Raises:
            InputError: there is no such trial or no log yet.
        """
        found = find_log(self._folder, trial or SWEEP)
        check_log(found)
        return last_lines(found.path, None)[0]

    def trials(self) -> "DataFrame":
        """Return one row for each trial: searched values, state, times and training losses."""
        records = self._folder.read_trials()
        fields = ("state", "error", "attempts", "total_steps", "train_seconds", "eval_seconds",
                  "busy_seconds", "tokens_per_second", "final_completion_loss",
                  "final_prompt_loss", "distance", "device", "exported_step",
                  "last_heldout_completion_loss", "exported_heldout_completion_loss")  # fmt: skip
        rows = [
            {**_names(record), **{name: getattr(record, name) for name in fields}}
            for record in records
        ]
        return _data_frame(rows)

    def scores(self) -> "DataFrame":
        """Return one row for each score of a trial or of the untuned model (`untuned`).

        Means over groups are included. Columns: those that name the trial, `measure`, `group`,
        `value`, its 95% interval over items, `unit` and whether higher is better.
        """
        rows: list[dict[str, Any]] = []
        bases = {
            base.key: self._folder.read_baseline_scores(base.key)
            for base in self._folder.read_sweep().bases
        }
        cards: list[tuple[dict[str, Any], ScoreCard | None, ScoreCard | None]] = [
            ({"trial": UNTUNED}, card, None) for card in bases.values()
        ]
        cards += [
            (_names(record), self._folder.read_scores(record.id), bases.get(record.base))
            for record in self._folder.read_trials()
        ]
        for names, card, untuned in cards:
            if card is None:
                continue
            for score in add_aggregates(card, untuned).scores:
                content = score.model_dump()
                rows.append({**names, "measure": content.pop("name"), **content})
        return _data_frame(rows)

    def metrics(self, trial: str | None = None) -> "DataFrame":
        """Return the logged steps of a trial, or of all trials for None.

        Raises:
            InputError: there is no such trial.
        """
        ids = [None if trial is None else find_trial(self._folder, trial)]
        rows = [
            {**_names(record), **line}
            for record in self._folder.read_trials()
            if ids == [None] or record.id in ids
            for line in self._jsonl(self._folder.metrics(record.id))
        ]
        return _data_frame(rows)

    def samples(self, trial: str) -> "DataFrame":
        """Return the scored items of a trial or of `untuned`: prompt, target, output, value.

        Raises:
            InputError: there is no such trial.
        """
        folder = (
            self._folder.baseline(only_baseline(self._folder))
            if trial == UNTUNED
            else self._folder.trial(find_trial(self._folder, trial))
        )
        return _data_frame(self._jsonl(folder / "samples.jsonl"))

    def figures(self) -> "dict[str, Figure]":
        """Return the plots of the report as matplotlib figures, by the id of their panel."""
        from orchestrator.report.plots import panel_figures

        findings = self.findings()
        return panel_figures(findings.panels, over_plw=findings.is_about_plw)

    def best_setting(
        self, *, measure: str | None = None, plw: float | None = None
    ) -> "BestSetting":
        """Return the setting of `plw train --best`: its weight, the reason and all settings.

        Args:
            measure: use the verdict on this measure, even if it names no best weight.
            plw: use this weight.

        Raises:
            InputError: the sweep names no best weight.
        """
        from orchestrator.export.best_setting import best_setting

        return best_setting(self._folder, measure, plw)

    def write_report(self) -> Path:
        """Write report.md, report.html and the plots; return the path of report.html."""
        from orchestrator.report.pages import write_report

        return write_report(self._folder)

    def _jsonl(self, path: Path) -> Sequence[dict[str, Any]]:
        with suppress(FileNotFoundError):
            return read_jsonl(path, dict)
        return []


def _names(record: TrialRecord) -> dict[str, Any]:
    """Return the columns that name a trial: id, label, weight, seed and searched values."""
    return {
        "trial": record.id,
        "label": label(record.searched),
        "prompt_loss_weight": record.prompt_loss_weight,
        "seed": record.settings.get("seed"),
        **{key: value for key, value in record.searched.items() if key not in _OWN_COLUMNS},
    }


def _data_frame(rows: Sequence[Mapping[str, Any]]) -> "DataFrame":
    """Return the rows as a data frame, in which integers with missing values are Int64."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    for name in frame.select_dtypes("float"):
        values = [row.get(name) for row in rows]
        if {type(value) for value in values if value is not None} == {int}:
            frame[name] = pd.array(values, dtype="Int64")
    return frame
