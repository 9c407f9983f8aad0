"""`plw serve` on a disk that fills up while a job trains."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest

from tests.e2e.plw import poll
from tests.e2e.serve import Serve
from tests.orchestrator.serve.api import chat_lines, jsonl

pytestmark = pytest.mark.slow
DISK_MIB = 32
_BLOCK = 4096


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of `DISK_MIB` for the server's data."""
    folder = tmp_path / "data"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, spare: int) -> Path:
    """Fill the disk but for about `spare` bytes; return the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * _BLOCK)
        except OSError:
            file.truncate(max(0, file.tell() - spare))
    return filler


@pytest.mark.timeout(600)
@pytest.mark.parametrize("spare", [256 * 1024, 0], ids=["no room for a checkpoint", "no byte"])
def test_a_full_disk_fails_the_job_and_leaves_a_server_that_works(
    small_disk: Path, tmp_path: Path, spare: int
) -> None:
    serve = Serve(tmp_path)
    serve.start()
    jobs = serve.client.fine_tuning.jobs
    try:
        training = serve.upload()
        long = {"n_epochs": 50, "batch_size": 1}
        job = jobs.create(model="tiny", training_file=training, hyperparameters=long)  # type: ignore[arg-type]
        poll(lambda: len(serve.steps(job.id)) > 4, "step 5", timeout_s=400)
        process = psutil.Process(int((serve.job_folder(job.id) / "process.lock").read_text()))
        filler = fill(small_disk, spare)
        big = jsonl(chat_lines(10_000))
        with pytest.raises(openai.InternalServerError) as caught:
            serve.client.files.create(file=big, purpose="fine-tune")
        assert (caught.value.status_code, caught.value.code) == (507, "disk_full")
        if spare:
            ended = serve.wait(job.id)
        else:
            poll(lambda: not process.is_running(), "the end of the process", timeout_s=300)
            assert jobs.retrieve(job.id).id == job.id
            filler.unlink()
            ended = serve.wait(job.id)
        assert (ended.status, ended.error.code) == ("failed", "disk_full")
        assert str(tmp_path) not in ended.error.message
        filler.unlink(missing_ok=True)
        assert [one.id for one in serve.client.files.list()] == [training]
        again = jobs.create(model="tiny", training_file=training)
        assert serve.wait(again.id).status == "succeeded"
    finally:
        serve.close()
