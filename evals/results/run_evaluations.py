"""Run the evaluations of a model; those that wait for a judge run in the background."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event

from evals.engine.batching import ProgressCallback
from evals.results.evaluation import Evaluation
from evals.results.result_store import FinishedEvaluation, ResultStore

OnProgress = Callable[[str, int, int], None]
"""Called with the evaluation's name, the number of finished items and the total number."""
OnReused = Callable[[Sequence[str]], None]
"""Called with the names of the evaluations whose earlier results are reused."""


class _Stopped(Exception):
    """Ends an evaluation in the background after another one has failed."""


def run_evaluations(
    evaluations: Sequence[Evaluation],
    store: ResultStore,
    on_progress: OnProgress,
    on_reused: OnReused | None,
    *,
    in_background: bool,
) -> list[FinishedEvaluation]:
    """Return the results of all evaluations in order; only those without a saved result are run.

    First, evaluations with a `prepare` do their work on the device. What remains of them then runs
    in a background thread, one at a time, while the others use the device.

    Args:
        in_background: False: what remains runs after the others, because it uses the same device.

    Raises:
        InputError, TrainingError: an evaluation has failed; a failure in the background counts once
            the evaluation that runs at that time has finished.
    """
    finished = {
        evaluation.name: stored
        for evaluation in evaluations
        if (stored := store.load(evaluation)) is not None
    }
    if finished and on_reused is not None:
        on_reused(list(finished))
    pending = [one for one in evaluations if one.name not in finished]
    stopping = Event()
    reports = {one.name: _reporter(partial(on_progress, one.name), stopping) for one in pending}
    prepared = [one for one in pending if one.prepare is not None]
    others = [one for one in pending if one.prepare is None]
    for one in prepared:
        if one.num_items is not None:
            reports[one.name](0, one.num_items)
        assert one.prepare is not None
        one.prepare(on_progress=reports[one.name])
    with ThreadPoolExecutor(max_workers=1) as background:
        futures: dict[str, Future[FinishedEvaluation]] = {}
        try:
            if in_background:
                for one in prepared:
                    futures[one.name] = background.submit(store.run, one, reports[one.name])
            for one in others if in_background else [*others, *prepared]:
                finished[one.name] = store.run(one, reports[one.name])
                for future in futures.values():
                    if future.done():
                        future.result()
            finished |= {name: future.result() for name, future in futures.items()}
        except BaseException:
            # The judge ends with its next reply, for which the executor waits.
            stopping.set()
            background.shutdown(wait=False, cancel_futures=True)
            raise
    return [finished[evaluation.name] for evaluation in evaluations]


def _reporter(on_progress: ProgressCallback, stopping: Event) -> ProgressCallback:
    """Return a callback that reports only increasing numbers, and raises once `stopping` is set."""
    most = -1

    def report(done: int, total: int) -> None:
        nonlocal most
        if stopping.is_set():
            raise _Stopped
        if done > most:
            most = done
            on_progress(done, total)

    return report
