"""Show progress bars for scoring if stderr is a terminal."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ScoringProgress:
    """One progress bar for each measure."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bars: dict[str, int] = {}

    def __enter__(self) -> "ScoringProgress":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, measure: str, done: int, total: int) -> None:
        """Show that `done` of the `total` items of a measure are scored."""
        if measure not in self._bars:
            self._bars[measure] = self._progress.add_task(measure, total=total)
        self._progress.update(self._bars[measure], completed=done, total=total)  # type: ignore[arg-type]
