"""Summarize a sweep: trial counts by state, remaining time, and a table of its trials."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from textwrap import shorten

from rich.table import Table
from rich.text import Text

from orchestrator.record.folder import RUNNING
from orchestrator.record.reader import TrialStatus

# Piped output has no terminal width.
PIPED_WIDTH = 160
# Larger sweeps show only some trials of each kind.
MAX_ROWS = 40
MAX_RUNNING, MAX_WAITING, MAX_FAILED, MAX_BEST, MAX_LATEST = 12, 4, 6, 5, 5
MAX_ERROR_CHARS = 60
_COUNTED = ("done", "running", "waiting", "pending", "interrupted", "stopped", "failed")


def count_states(trials: Iterable[TrialStatus]) -> dict[str, int]:
    """Count the trials in each state; training and scoring trials are counted as running."""
    found = Counter("running" if one.state in RUNNING else one.state for one in trials)
    return {state: found[state] for state in _COUNTED}


def remaining_s(trials: Sequence[TrialStatus], num_unopened: int = 0) -> float | None:
    """Estimate the seconds until all trials are done; None without data.

    `num_unopened` is the number of trials that a search has yet to choose.

    Assumptions: a pending trial holds its workers for the mean time of the finished trials, or else
    for the expected time of the running ones; the number of concurrent trials stays the same.
    Trials with concurrent scoring hold no workers while they are scored. The estimate includes the
    time of the last scoring.
    """
    running = [one for one in trials if one.state in RUNNING]
    being_scored = [one for one in running if one.state == "scoring" and one.is_scored_beside]
    holding = [one for one in running if one not in being_scored]
    unstarted = num_unopened + sum(
        one.state in ("pending", "waiting", "interrupted") for one in trials
    )
    if not running or (unstarted and not holding):
        return None
    per_trial = _seconds_per_trial(trials, holding)
    if per_trial is None and (unstarted or any(one.remaining_s is None for one in holding)):
        return None
    rest_of_running = sum(
        (per_trial or 0.0) if one.remaining_s is None else one.remaining_s for one in holding
    )
    until_trained = (unstarted * (per_trial or 0.0) + rest_of_running) / max(1, len(holding))
    scoring_s = _mean(
        [one.eval_seconds for one in trials if one.state == "done" and one.is_scored_beside]
    )
    if scoring_s is None:
        return until_trained if holding else None
    # Trials with a note wait for a scorer.
    num_scorers = max(1, sum(one.note is None for one in being_scored))
    until_scored = until_trained + scoring_s if holding else 0.0
    return max(until_scored, scoring_s * len(being_scored) / num_scorers)


def _seconds_per_trial(
    trials: Sequence[TrialStatus], holding: Sequence[TrialStatus]
) -> float | None:
    """Estimate how long a trial holds its workers; None without data."""
    done = [one for one in trials if one.state == "done" and one.seconds is not None]
    found = _mean(
        [
            (one.seconds or 0.0) - (one.eval_seconds or 0.0 if one.is_scored_beside else 0.0)
            for one in done
        ]
    )
    if found is not None:
        return found
    return _mean([_total_seconds(one) for one in holding if one.remaining_s is not None])


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _total_seconds(trial: TrialStatus) -> float:
    """Estimate the seconds from the first to the last step of a running trial."""
    if trial.remaining_s is None or not trial.total_steps or trial.total_steps == trial.step:
        return 0.0
    return trial.remaining_s * trial.total_steps / (trial.total_steps - trial.step)


def summary(trials: Sequence[TrialStatus], num_planned: int = 0) -> str:
    """Return a line such as `3 of 4 done, 1 running, about 2m10s left`.

    Trials of the `num_planned` that a search has yet to choose count as pending.
    """
    found = count_states(trials)
    num_unopened = max(num_planned - len(trials), 0)
    found["pending"] += num_unopened
    parts = [f"{found.pop('done'):,} of {len(trials) + num_unopened:,} done"]
    parts += [f"{count:,} {state}" for state, count in found.items() if count]
    left = remaining_s(trials, num_unopened)
    if left is not None:
        parts.append(f"about {format_duration(left)} left")
    return ", ".join(parts)


def status_table(
    name: str,
    trials: Sequence[TrialStatus],
    *,
    num_planned: int = 0,
    skipped: Collection[str] = (),
    max_rows: int | None = MAX_ROWS,
) -> Table:
    """Return a table of the trials and their summary; above `max_rows`, only the notable ones."""
    groups = [("", list(trials))]
    if max_rows is not None and len(trials) > max_rows:
        groups = select_notable(trials)
    is_partial = len(groups) != 1 or len(groups[0][1]) < len(trials)
    table = Table(title=f"sweep {name}: {summary(trials, num_planned)}", title_justify="left")
    for heading in (("",) if is_partial else ()) + ("trial", "id", "state"):
        table.add_column(heading)
    for heading in ("step", "completion loss", "prompt loss", "held-out loss", "tokens/s", "left"):
        table.add_column(heading, justify="right")
    for title, members in groups:
        for index, trial in enumerate(members):
            first = (title if index == 0 else "",) if is_partial else ()
            table.add_row(*first, *_cells(trial, trial.id in skipped))
        table.add_section()
    if is_partial:
        shown = {trial.id for _, members in groups for trial in members}
        rest = [trial for trial in trials if trial.id not in shown]
        what = ", ".join(
            f"{count:,} {state}" for state, count in count_states(rest).items() if count
        )
        table.caption = f"and {len(rest):,} more: {what} (--all shows them)"
        table.caption_justify = "left"
    return table


def select_notable(trials: Sequence[TrialStatus]) -> list[tuple[str, list[TrialStatus]]]:
    """Return the notable ones of many trials, grouped by reason; each trial is in one group.

    `lowest loss`: lowest held-out completion loss. `latest`: most recently ended.
    """
    ended = sorted(trials, key=lambda one: one.ended_at or "", reverse=True)
    scored = [one for one in trials if one.heldout_loss is not None]
    best = sorted(scored, key=lambda one: one.heldout_loss or 0.0)[:MAX_BEST]
    of_best = {one.id for one in best}
    latest = [one for one in ended if one.state in ("done", "stopped") and one.id not in of_best]
    groups = [
        ("running", [one for one in trials if one.state in RUNNING][:MAX_RUNNING]),
        ("waiting", [one for one in trials if one.state == "waiting"][:MAX_WAITING]),
        ("failed", [one for one in ended if one.state == "failed"][:MAX_FAILED]),
        ("lowest loss", best),
        ("latest", latest[:MAX_LATEST]),
    ]
    return [(title, members) for title, members in groups if members]


def _cells(trial: TrialStatus, is_skipped: bool) -> list[Text]:
    state: str = "done before" if is_skipped else trial.state
    why = trial.error or trial.note
    if why:
        state = f"{state}: {shorten(why, MAX_ERROR_CHARS, placeholder=' ...')}"
    cells = (
        trial.trial,
        trial.id,
        state,
        f"{trial.step}/{trial.total_steps or '?'}",
        format_number(trial.completion_loss, ".3f"),
        format_number(trial.prompt_loss, ".3f"),
        format_number(trial.heldout_loss, ".3f"),
        format_number(trial.tokens_per_second, ".0f"),
        format_duration(trial.remaining_s),
    )
    # Text, not str: an error may contain rich markup.
    return [Text(cell) for cell in cells]


def status_line(trial: TrialStatus) -> str:
    """Return a trial on one line, for piped output."""
    if trial.state == "failed":
        return f"{trial.trial}  failed: {trial.error}"
    if trial.state == "done":
        return f"{trial.trial}  done  ({trial.id})"
    if trial.state != "training" or not trial.step:
        note = f": {trial.note}" if trial.note else ""
        return f"{trial.trial}  {trial.state}{note}"
    return (
        f"{trial.trial}  step {trial.step}/{trial.total_steps}  completion loss "
        f"{format_number(trial.completion_loss, '.3f')}  prompt loss "
        f"{format_number(trial.prompt_loss, '.3f')}  "
        f"{format_number(trial.tokens_per_second, '.0f')} tokens/s  "
        f"{format_duration(trial.remaining_s)} left"
    )


def format_number(value: float | None, form: str) -> str:
    """Return `value` formatted, or a dash for None."""
    return "-" if value is None else format(value, form)


def format_duration(seconds: float | None) -> str:
    """Return a time such as 1h05m, 2m03s or 9s, or a dash for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
