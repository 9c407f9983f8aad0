"""The engine vllm, against a program with vLLM's interface over our engine."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from evals.engine.batching import ignore_progress
from evals.engine.generation import generate
from evals.engine.loaded_model import LoadedModel
from evals.engine.vllm_server import VllmServer
from evals.engine_config import VllmConfig
from tests.e2e.plw import poll
from trainers.foundation.errors import InputError, TrainingError

PROGRAM = Path(__file__).parents[1] / "vllm_program.py"
DEADLINE_S = 240.0
PROMPTS = [[5, 6, 7], [40, *range(20, 50)], [9]]


def config(*arguments: str, start_timeout_s: float = DEADLINE_S) -> VllmConfig:
    return VllmConfig(
        command=[sys.executable, str(PROGRAM), "serve"],
        arguments=list(arguments),
        start_timeout_s=start_timeout_s,
    )


@contextmanager
def served(loaded: LoadedModel, path: Path, settings: VllmConfig) -> Iterator[LoadedModel]:
    server = VllmServer(settings, path)
    try:
        yield replace(loaded, engine=server)
    finally:
        server.close()


def outputs_of(loaded: LoadedModel, *, stop_strings: tuple[str, ...] = ()) -> list[list[int]]:
    return generate(
        loaded,
        PROMPTS,
        max_new_tokens=8,
        batch_size=None,
        on_progress=ignore_progress,
        stop_strings=stop_strings,
    )


def processes_in(path: Path) -> list[psutil.Process]:
    """Return the server's process and its child."""
    return [psutil.Process(int(pid)) for pid in path.read_text().split()]


@pytest.mark.slow
def test_outputs_equal_those_of_the_padded_engine_and_the_server_ends(
    tiny: LoadedModel, tiny_path: Path, tmp_path: Path
) -> None:
    padded = replace(tiny, eos_token_ids=[*tiny.eos_token_ids])
    whole = outputs_of(padded)
    padded.eos_token_ids.append(whole[0][3])
    stop = tiny.decode(whole[1][4:6])
    with served(padded, tiny_path, config("--processes", str(tmp_path / "pids"))) as loaded:
        assert outputs_of(loaded) == outputs_of(padded)
        assert len(outputs_of(padded)[0]) == 3
        processes = processes_in(tmp_path / "pids")
        assert outputs_of(loaded, stop_strings=(stop,)) == outputs_of(padded, stop_strings=(stop,))
        # One server for both calls.
        assert processes_in(tmp_path / "pids") == processes
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE_S)
    assert alive == []


def test_a_missing_program_is_reported_before_anything_runs(tiny_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"evals.vllm.command: there is no program /no/vllm on this machine"
    ):
        VllmServer(VllmConfig(command=["/no/vllm", "serve"]), tiny_path)


def test_a_server_that_ends_before_it_answers_is_reported(
    tiny: LoadedModel, tiny_path: Path
) -> None:
    with (
        served(tiny, tiny_path, config("--fault", "start")) as loaded,
        pytest.raises(
            InputError,
            match=r"vLLM ended with 1 before it answered: ValueError: No available memory",
        ),
    ):
        outputs_of(loaded)


def test_a_server_that_never_answers_is_stopped(
    tiny: LoadedModel, tiny_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pids"
    settings = config("--fault", "hangs", "--processes", str(path), start_timeout_s=3.0)
    with (
        served(tiny, tiny_path, settings) as loaded,
        pytest.raises(InputError, match=r"vLLM did not answer within 3 s: .* raise evals.vllm"),
    ):
        outputs_of(loaded)
    # On a machine under load, the program may not have begun.
    for pid in path.read_text().split() if path.exists() else ():
        with suppress(psutil.NoSuchProcess):
            psutil.Process(int(pid)).wait(DEADLINE_S)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (
            "dies",
            TrainingError,
            r"vLLM has failed .* it has ended, its last line: CUDA error: an illegal",
        ),
        ("error", TrainingError, r"vLLM has failed \(status 500: .*EngineCore died"),
        ("old", InputError, r"no token ids; use vLLM 0.10.2 or newer"),
    ],
)
def test_failures_of_a_running_server_are_reported(
    tiny: LoadedModel, tiny_path: Path, fault: str, kind: type[Exception], message: str
) -> None:
    with (
        served(tiny, tiny_path, config("--fault", fault)) as loaded,
        pytest.raises(kind, match=message),
    ):
        outputs_of(loaded)


def test_a_prompt_that_the_server_rejects_is_reported(tiny: LoadedModel, tiny_path: Path) -> None:
    settings = config("--fault", "old", "--max-model-len", "16")
    with (
        served(tiny, tiny_path, settings) as loaded,
        pytest.raises(
            InputError, match=r"vLLM rejects a prompt of 31 tokens with 8 new tokens: .*16 tokens"
        ),
    ):
        generate(loaded, PROMPTS[1:2], max_new_tokens=8, batch_size=1, on_progress=ignore_progress)


def test_a_diverged_model_starts_no_server(load, tiny_path: Path, tmp_path: Path) -> None:
    diverged = load(tiny_path)
    diverged.model.model.norm.weight.data.fill_(float("nan"))
    path = tmp_path / "pids"
    with (
        served(diverged, tiny_path, config("--processes", str(path))) as loaded,
        pytest.raises(TrainingError, match="log-probabilities are not finite"),
    ):
        outputs_of(loaded)
    assert not path.exists()


def test_the_server_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    command = [
        *(sys.executable, str(PROGRAM), "serve", "model", "--host", "127.0.0.1", "--port", "0"),
        *("--served-model-name", "x", "--generation-config", "vllm", "--dtype", "bfloat16"),
        *("--fault", "hangs", "--processes", str(path)),
    ]
    code = (
        "import os, sys\n"
        "from evals.engine.server_process import ServerProcess\n"
        f"server = ServerProcess({command!r}, os.environ, name='vLLM', where='here')\n"
        "sys.stdin.read()\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    poll(lambda: path.exists() and bool(path.read_text()), "the server's processes", DEADLINE_S)
    processes = [*psutil.Process(starter.pid).children(recursive=True), *processes_in(path)]
    assert len(processes) >= 4
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE_S)
    assert alive == []
