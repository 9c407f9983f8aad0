"""Local judge: a real server process with a tiny random model."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import psutil
import pytest

from evals.judge.annotate import judge_identity, judge_pairs
from evals.judge.annotators import ANNOTATORS
from evals.judge.local_server import kept_servers, serve_model
from evals.judge.verdicts import Pair
from evals.judge_config import JudgeConfig
from trainers.foundation.errors import InputError

DEADLINE_S = 240.0


def server_processes() -> list[psutil.Process]:
    """Return the running server with all its processes."""
    children = psutil.Process().children()
    # Earlier tests may have left a multiprocessing process.
    [server] = [
        child for child in children if any("supervised" in part for part in child.cmdline())
    ]
    return [server, *server.children(recursive=True)]


@pytest.mark.slow
def test_a_local_judge_answers_requests_together_stays_up_and_stops(
    tiny_path: Path, tmp_path: Path
) -> None:
    pairs = [
        Pair(id=str(n), instruction=f"Say {n}.", candidate="x", reference="y") for n in range(4)
    ]
    config = JudgeConfig(
        local_model=str(tiny_path),
        max_tokens=8,
        parse_retries=0,
        max_unparsable_share=1.0,
        concurrency=8,
        cache_dir=str(tmp_path),
        start_timeout_s=DEADLINE_S,
    )
    with kept_servers():
        with serve_model(str(tiny_path), timeout_s=DEADLINE_S) as (base_url, model):
            assert model == str(tiny_path.resolve())
            assert base_url.startswith("http://127.0.0.1:")
            processes = server_processes()
        results = judge_pairs(
            pairs, ANNOTATORS["verdict"], config, on_progress=lambda done, total: None
        )
        assert server_processes() == processes
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE_S)
    assert alive == []
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{base_url}/models")
    # Eight complete replies of nonsense, with token counts.
    assert results.cost_tracker.num_requests == 8
    assert results.counts.num_unanswered == 0
    assert 0 < results.cost_tracker.output_tokens <= 64


@pytest.mark.slow
def test_a_local_judge_ends_with_the_process_that_started_it(tiny_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from evals.judge.local_server import kept_servers, serve_model\n"
        f"with serve_model({str(tiny_path)!r}, timeout_s={DEADLINE_S}) as (url, _):\n"
        "    print(url, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    assert starter.stdout.readline().startswith("http://127.0.0.1:")
    children = psutil.Process(starter.pid).children(recursive=True)
    assert children != []
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    _, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
    assert alive == []


@pytest.mark.slow
def test_a_failed_load_of_a_local_judge_is_explained(tiny_path: Path, tmp_path: Path) -> None:
    for path in tiny_path.iterdir():
        if path.name != "model.safetensors":
            (tmp_path / path.name).symlink_to(path)
    with (
        pytest.raises(InputError, match=r"before it answered: .*safetensors"),
        serve_model(str(tmp_path), timeout_s=DEADLINE_S),
    ):
        pass


def test_a_model_without_a_chat_template_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    with (
        pytest.raises(InputError, match="has no chat template"),
        serve_model(str(tmp_path), timeout_s=1),
    ):
        pass


def test_a_missing_model_folder_is_rejected() -> None:
    with (
        pytest.raises(InputError, match="there is no model folder /no/such/judge"),
        serve_model("/no/such/judge", timeout_s=1),
    ):
        pass


def test_the_identity_of_a_local_judge_is_a_hash_of_its_files(
    tiny_path: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tiny_path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    here = judge_identity(JudgeConfig(local_model=str(tiny_path)))
    assert here == judge_identity(JudgeConfig(local_model=str(copy)))
    (copy / "model.safetensors").write_bytes(b"other")
    assert here != judge_identity(JudgeConfig(local_model=str(copy)))


def test_a_hub_judge_is_identified_by_its_commit(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hub's cache as its own client lays it out; it is not asked for newer commits offline.
    repository = tmp_path / "models--team--judge"
    commits = {"main": "a" * 40, "old": "b" * 40}
    (repository / "refs").mkdir(parents=True)
    for reference, commit in commits.items():
        (repository / "refs" / reference).write_text(commit)
        shutil.copytree(tiny_path, repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert judge_identity(JudgeConfig(local_model="team/judge")) == f"hub:team/judge@{'a' * 40}"
    pinned = JudgeConfig(local_model=f"team/judge@{'b' * 40}")
    assert judge_identity(pinned) == f"hub:team/judge@{'b' * 40}"
    with pytest.raises(InputError, match=r"the hub model team/judge@new cannot be loaded"):
        judge_identity(JudgeConfig(local_model="team/judge@new"))
