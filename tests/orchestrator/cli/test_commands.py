"""Tests of messages and output of commands on a sweep, a model or this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from orchestrator.cli import machine_checks
from orchestrator.cli.main import main
from orchestrator.cli.score_output import print_scores
from orchestrator.cli.sweep_output import print_outcome
from orchestrator.record.folder import SweepFolder, TrackingRecord
from orchestrator.tracking.uri import check_port, responds
from orchestrator.trials.run_trial import mark_failed
from tests.orchestrator.plw import refused
from tests.orchestrator.sweeps import BASE, card, outcome_of, score, trial, write_sweep
from tests.orchestrator.tracking.test_uri import free_port
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import write_data
from trainers.foundation.errors import InputError
from trainers.models.loading import count_parameters

PLW = str(Path(sys.executable).with_name("plw"))


def track(folder: SweepFolder, uri: str) -> None:
    record = TrackingRecord(uri=uri, experiment="e", experiment_id="1", parent_run_id="r")
    folder.write_tracking(record)


@pytest.mark.parametrize("command", ["status", "report", "ui"])
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("sweep.json", "{", "Expecting property name enclosed in double quotes: line 1"),
        ("sweep.json", '{"a": 1}', "name: field required, "),
        ("tracking.json", "[]", "the record: input should be a valid dictionary"),
        ("trials/00s0/trial.json", '{"a": 1}', "id: field required"),
        ("trials/00s0/scores.json", "", "Expecting value: line 1"),
        (f"bases/{BASE}/scores.json", '{"scores": 1}', "model_path: field required"),
    ],
)
def test_a_damaged_record_is_reported_with_its_path(
    demo_sweep: SweepFolder, command: str, name: str, content: str, expected: str
) -> None:
    path = demo_sweep.root / name
    path.write_text(content)
    output = refused(command, str(demo_sweep.root))
    assert output.startswith(f"error: {path}: the record is damaged: ")
    assert expected in output
    assert not demo_sweep.report_md.exists()


def test_all_damaged_trials_are_reported_at_once(demo_sweep: SweepFolder) -> None:
    paths = sorted(demo_sweep.root.glob("trials/*/trial.json"))
    for path in paths:
        path.write_text("{")
    output = refused("status", str(demo_sweep.root))
    assert [path for path in paths if str(path) in output] == paths


def test_ui_rejects_a_port_in_use(demo_sweep: SweepFolder) -> None:
    track(demo_sweep, "sqlite:////nowhere/mlflow.db")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        output = refused("ui", str(demo_sweep.root), "--port", str(port))
    assert output == (
        f"error: --port: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "give another --port"
    )


def test_a_port_is_free_once_its_server_has_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            accepted.close()
    check_port(port)


@pytest.mark.parametrize("port", ["0", "99999"])
def test_ui_rejects_an_invalid_port(demo_sweep: SweepFolder, port: str) -> None:
    assert f"{port} is not in the range 1<=x<=65535" in refused(
        "ui", str(demo_sweep.root), "--port", port
    )


@pytest.mark.slow
def test_ui_leaves_no_process_running(demo_sweep: SweepFolder, store_uri: str) -> None:
    track(demo_sweep, store_uri)
    port = free_port()
    command = [PLW, "ui", str(demo_sweep.root), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 120
            while not responds(f"http://127.0.0.1:{port}", 1.0):
                assert time.monotonic() < deadline
                assert server.poll() is None
            children = psutil.Process(server.pid).children(recursive=True)
            assert not [c for c in children if "huey" in " ".join(c.cmdline())]
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        _, alive = psutil.wait_procs(children, timeout=30)
        assert alive == []


@pytest.mark.parametrize("length", ["-5", "0", "7"])
@pytest.mark.parametrize(
    "command", [("eval", "model", "--data", "d.jsonl", "-o", "out"), ("data", "stats", "d.jsonl")]
)
def test_a_length_below_8_is_rejected(command: tuple[str, ...], length: str) -> None:
    assert f"{length} is not in the range x>=8" in refused(*command, "--max-length", length)


def test_data_stats_rejects_an_empty_template() -> None:
    assert "template: string should have at least 1 character, got ''" in refused(
        "data", "stats", "d.jsonl", "--template", ""
    )


@pytest.mark.parametrize("below", [False, True])
def test_eval_rejects_a_file_as_output_before_loading_the_model(
    tmp_path: Path, *, below: bool
) -> None:
    data = write_data(tmp_path / "data.jsonl")
    taken = tmp_path / "taken"
    taken.write_text("mine")
    out = taken / "deeper" if below else taken
    model = tmp_path / "model"
    model.mkdir()
    # All files that a model needs, but none can be loaded.
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (model / name).write_text("")
    output = refused("eval", str(model), "--data", str(data), "-o", str(out))
    assert output == (
        f"error: --output-dir: must be a folder, got {out}: {taken} is a file; use another folder"
    )
    assert taken.read_text() == "mine"


def test_doctor_checks_the_store_that_sweeps_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other checks take seconds.
    for check in ("_torch", "_compiler", "check_deepspeed_op", "_ray"):
        monkeypatch.setattr(
            machine_checks, check, lambda: machine_checks.Finding("left out", "ok", "")
        )
    result = CliRunner().invoke(main, ["doctor", "--folder", str(tmp_path / "runs"), "--json"])
    [found] = [f for f in json.loads(result.output) if f["subject"] == "MLflow"]
    assert found["detail"].endswith(f"; sqlite:///{tmp_path}/runs/mlflow.db")


def test_truncated_weights_are_reported_with_their_path(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path / "model") / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError) as caught:
        count_parameters(str(path.parent))
    assert str(caught.value).startswith(f"{path}: the weights cannot be read: ")
    assert str(caught.value).endswith(
        "; copy or download the file again, or save the model with save_pretrained"
    )


@pytest.mark.slow
def test_retries_of_the_hub_and_advice_on_kernels_are_not_printed(tmp_path: Path) -> None:
    code = (
        "import logging, sys; from orchestrator.cli.main import main\n"
        "main(['status', sys.argv[1]], standalone_mode=False)\n"
        "import huggingface_hub.utils._http as http\n"
        "for log in (http.logger, logging.getLogger('bitsandbytes.backends.cpu.ops')):\n"
        "    print(log.isEnabledFor(logging.WARNING), log.isEnabledFor(logging.ERROR))"
    )
    folder = write_sweep(tmp_path / "s", [trial(0.1)], {})
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_HUB_VERB")}
    command = [sys.executable, "-c", code, str(folder.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.endswith("\nFalse True\nFalse True\n")


@pytest.mark.parametrize(
    ("count", "skipped", "interrupted"),
    [
        (
            1,
            "1 trial was done before and was skipped.",
            "interrupted: 1 trial is not finished; run the same command to resume from its last "
            "checkpoint",
        ),
        (
            2,
            "2 trials were done before and were skipped.",
            "interrupted: 2 trials are not finished; run the same command to resume from their "
            "last checkpoints",
        ),
    ],
)
def test_counts_of_one_use_the_singular(
    demo_sweep: SweepFolder,
    capsys: pytest.CaptureFixture[str],
    count: int,
    skipped: str,
    interrupted: str,
) -> None:
    print_outcome(outcome_of(demo_sweep, num_skipped=count, num_unfinished=count))
    lines = capsys.readouterr().out.splitlines()
    assert skipped in lines
    assert interrupted in lines
    assert lines[lines.index("next:") + 1].startswith("  plw sweep sweep.yaml ")


@pytest.mark.parametrize(("kind", "is_advised"), [("crash", True), ("divergence", False)])
def test_trials_that_may_succeed_later_can_be_tried_again(
    demo_sweep: SweepFolder, capsys: pytest.CaptureFixture[str], kind: str, is_advised: bool
) -> None:
    failed = demo_sweep.read_trials()[0]
    demo_sweep.write_trial(mark_failed(failed, "the reason", kind))
    print_outcome(outcome_of(demo_sweep))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"failed: {failed.id}: the reason; see ") for line in lines)
    assert ("Run the same command to try failed trials again." in lines) is is_advised


def test_printed_scores_end_with_group_means(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    scores = [
        score("quiz.acc", (0.5, 0.4, 0.6)),
        score("quiz.acc", (0.7, 0.6, 0.8)).model_copy(update={"name": "piqa.acc"}),
        score("essays.chrf", (20.0, 18.0, 22.0)),
    ]
    print_scores(card({}).model_copy(update={"scores": scores}))
    printed = capsys.readouterr().out
    assert "aggregate_multiple_choice" in printed
    assert "60.000" in printed
    assert "aggregate_long_generation" not in printed
