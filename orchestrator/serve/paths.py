"""Every path below the server's data folder, and the removal of paths from texts for clients."""

import re
import shutil
from pathlib import Path


class DataFolder:
    """The data folder of a server.

    serve.db, keys.json, server.lock
    files/<file id>.jsonl          uploads; ids are random and looked up in the database
    jobs/<job id>/job.json         what the job's process reads
    jobs/<job id>/training.jsonl, validation.jsonl   hard links to the uploads
    jobs/<job id>/process.lock     locked while the job's process lives; contains its id
    jobs/<job id>/events.jsonl     events of the process, read by the server
    jobs/<job id>/exit.json        how the last process ended, written last
    jobs/<job id>/sweep/           the sweep of an auto job
    jobs/<job id>/out/             the output of plw train
    jobs/<job id>/log.txt
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    @property
    def database(self) -> Path:
        return self.root / "serve.db"

    @property
    def lock(self) -> Path:
        return self.root / "server.lock"

    @property
    def files(self) -> Path:
        return self.root / "files"

    def file(self, file_id: str) -> Path:
        return self.files / f"{file_id}.jsonl"

    def job(self, job_id: str) -> "JobFolder":
        return JobFolder(self.root / "jobs" / job_id)

    def unstarted_jobs(self) -> list["JobFolder"]:
        """Return the folders of jobs that no process has worked on."""
        folders = [JobFolder(path) for path in sorted(self.root.glob("jobs/*"))]
        return [folder for folder in folders if not folder.job_json.exists()]


class JobFolder:
    """The folder of one job."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.job_json = root / "job.json"
        self.training = root / "training.jsonl"
        self.validation = root / "validation.jsonl"
        self.lock = root / "process.lock"
        self.events = root / "events.jsonl"
        self.exit_json = root / "exit.json"
        self.choice_json = root / "choice.json"
        self.stats_json = root / "stats.json"
        self.sweep = root / "sweep"
        self.out = root / "out"
        self.model = self.out / "model"
        self.metrics = self.out / "metrics.jsonl"
        self.log = root / "log.txt"

    def remove_model(self) -> None:
        """Delete the tuned model and what the sweep trained."""
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.rmtree(self.sweep / "trials", ignore_errors=True)


def without_paths(text: str, data: Path, names: dict[str, str]) -> str:
    """Return a text for a client: no path of this machine.

    Args:
        names: what to show for a path, such as the name of a model for its folder.
    """
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    text = re.sub(re.escape(str(data)) + r"/(?:jobs/[^/\s]+/|files/)?", "", text)
    return re.sub(r"(?<![\w.:/])(?:/[\w.@+-]+){2,}/?", "[path]", text)
