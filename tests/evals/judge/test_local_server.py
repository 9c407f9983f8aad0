"""A real server in a process of its own, with a model that is too small to judge anything."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import psutil
import pytest

from evals.judge.annotate import judge_identity, judge_pairs
from evals.judge.annotators import STYLES
from evals.judge.local_server import served
from evals.judge.verdicts import Pair
from evals.judge_config import JudgeConfig
from trainers.foundation.errors import InputError

DEADLINE_S = 240.0


@pytest.mark.slow
def test_a_local_judge_is_served_asked_and_gone_afterwards(tiny_path: Path, tmp_path: Path) -> None:
    with served(str(tiny_path), timeout_s=DEADLINE_S) as (base_url, model):
        assert model == str(tiny_path.resolve())
        assert base_url.startswith("http://127.0.0.1:")
        children = psutil.Process().children()
        # Tests before this one may have left a process of multiprocessing behind.
        [server] = [child for child in children if "evals.judge.server_process" in child.cmdline()]
        processes = [server, *server.children(recursive=True)]
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE_S)
    assert alive == []
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{base_url}/models")

    pairs = [Pair(id="1", instruction="Say x.", candidate="x", reference="y")]
    config = JudgeConfig(
        local_model=str(tiny_path),
        max_tokens=8,
        reasks=0,
        max_unparsable_share=1.0,
        cache_dir=str(tmp_path),
        start_timeout_s=DEADLINE_S,
    )
    judging = judge_pairs(pairs, STYLES["verdict"], config, on_progress=lambda done, total: None)
    # Nonsense, but two whole replies of it, with tokens counted.
    assert judging.spending.num_requests == 2
    assert judging.tally.num_unanswered == 0
    assert 0 < judging.spending.output_tokens <= 16


@pytest.mark.slow
def test_a_local_judge_ends_with_the_process_that_started_it(tiny_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from evals.judge.local_server import served\n"
        f"with served({str(tiny_path)!r}, timeout_s={DEADLINE_S}) as (url, _):\n"
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
def test_a_local_judge_that_cannot_load_says_why(tiny_path: Path, tmp_path: Path) -> None:
    for path in tiny_path.iterdir():
        if path.name != "model.safetensors":
            (tmp_path / path.name).symlink_to(path)
    with (
        pytest.raises(InputError, match=r"before it answered: .*safetensors"),
        served(str(tmp_path), timeout_s=DEADLINE_S),
    ):
        pass


def test_a_model_without_a_chat_template_is_no_judge(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    with (
        pytest.raises(InputError, match="has no chat template"),
        served(str(tmp_path), timeout_s=1),
    ):
        pass


def test_a_folder_that_is_not_there_is_no_judge() -> None:
    with (
        pytest.raises(InputError, match="there is no model folder /no/such/judge"),
        served("/no/such/judge", timeout_s=1),
    ):
        pass


def test_a_local_judge_is_known_by_its_files_wherever_they_lie(
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
