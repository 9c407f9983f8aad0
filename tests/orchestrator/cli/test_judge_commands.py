"""`plw judge` on the command line, with a fake judge."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli.main import main
from tests.evals.judge_endpoint import FAULTS, Endpoint, serving
from tests.orchestrator.plw import plw, plw_json, refused


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(Endpoint()) as found:
        yield found


@pytest.fixture
def judge(endpoint: Endpoint, tmp_path: Path) -> list[object]:
    return [
        *("--base-url", endpoint.base_url, "--model", "strict", "--api-key-env", "none"),
        *("--cache-dir", tmp_path / "replies"),
    ]


def write_outputs(path: Path, outputs: list[str]) -> Path:
    records = [
        {
            "instruction": f"Do thing {number}.",
            "dataset": "made_up",
            "output": output,
            "generator": path.stem,
        }
        for number, output in enumerate(outputs)
    ]
    path.write_text(json.dumps(records))
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """Of 25 outputs, 8 are longer than the reference, 8 are shorter, and 9 are equal."""
    candidates = ["a much longer answer", "short", "the same"] * 8 + ["the same"]
    references = ["an answer", "an answer", "the same"] * 8 + ["the same"]
    return [
        *("--outputs", write_outputs(tmp_path / "ours.json", candidates)),
        *("--reference", write_outputs(tmp_path / "theirs.json", references)),
    ]


def test_compare_two_files(
    files: list[object], judge: list[object], endpoint: Endpoint, tmp_path: Path
) -> None:
    done = plw("judge", "compare", *files, *judge, "-o", tmp_path / "out")
    printed = " ".join(done.stdout.split())
    assert "win rate │ 0.500" in printed
    assert "8 wins, 9 ties (9 of equal outputs), 8 losses; 0 pairs without a verdict" in printed
    assert "judge: 32 comparisons, 0 replies from the cache" in printed
    lines = (tmp_path / "out" / "judgements.jsonl").read_text().splitlines()
    assert len(lines) == 25
    assert json.loads(lines[0])["verdict"] == "candidate"
    again = plw_json("judge", "compare", *files, *judge, "-o", tmp_path / "out")
    assert again["judging"]["num_kept_replies"] == 32
    assert len(endpoint.requests) == 32
    assert again["scores"][0] == json.loads((tmp_path / "out" / "comparison.json").read_text())[
        "scores"
    ][0]  # fmt: skip


def test_a_comparison_stopped_by_the_budget_is_completed_later(
    files: list[object], judge: list[object], tmp_path: Path
) -> None:
    # A request reserves 256 tokens of reply, and uses about 70.
    money = ("--budget", 0.0015, "--price-per-million-output-tokens", 1, "--concurrency", 1)
    command = ["judge", "compare", *files, *judge, *money, "-o", tmp_path / "out"]
    first = CliRunner().invoke(main, [str(part) for part in command])
    assert first.exit_code == 1
    assert "failed: the budget is reached" in first.stderr
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["missing"] != []
    for _ in range(3):
        last = CliRunner().invoke(main, [str(part) for part in command])
        if last.exit_code == 0:
            break
    assert last.exit_code == 0, last.output
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["missing"] == []


def test_validate_a_judge_against_people(
    judge: list[object], endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.fault_share = 0.3
    endpoint.faults = tuple(kind for kind in FAULTS if kind != "stall")
    data = tmp_path / "testset.json"
    long, short = "a long response", "short"
    labels = {"1": (long, short), "2": (short, long), "0": (short, "brief")}
    records: list[dict[str, Any]] = []
    for idx, label in enumerate(["1", "2", "0", "1", "2", "2"]):
        first, second = labels[label]
        people = {f"annotator{k}": int(label) for k in (1, 2, 3)}
        pair = {"instruction": f"Do {idx}.", "input": "", "response1": first, "response2": second}
        records.append({"idx": idx} | pair | people)
    records[5]["annotator3"] = 1
    data.write_text(json.dumps(records))
    found = plw_json("judge", "validate", "--data", data, *judge, "-o", tmp_path / "out")
    assert found["judge"]["accuracy"] == 1
    assert found["judge"]["kappa"] == pytest.approx(1)
    assert found["person_person_accuracy"] == pytest.approx((18 - 2) / 18)
    assert found["judging"]["num_questions"] == 12
    assert (tmp_path / "out" / "validation.json").exists()
    assert len((tmp_path / "out" / "judgements.jsonl").read_text().splitlines()) == 6


def test_judge_settings_are_read_from_a_sweep_spec(
    files: list[object], endpoint: Endpoint, tmp_path: Path
) -> None:
    spec = tmp_path / "sweep.yaml"
    spec.write_text(
        "evals:\n  judge:\n"
        f"    base_url: {endpoint.base_url}\n    model: strict\n    api_key_env: null\n"
        f"    cache_dir: {tmp_path / 'replies'}\n"
    )
    options = ("--judge-config", spec, "--model", "stricter", "-o", tmp_path / "out")
    found = plw_json("judge", "compare", *files, *options)
    assert found["signature"]["judge"] == f"{endpoint.base_url} stricter"


def test_missing_settings_are_reported(
    files: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    out = ("-o", tmp_path / "out")
    assert "a judge needs base_url and model, or local_model" in refused(
        "judge", "compare", *files, *out
    )
    endpoint = ("--base-url", "https://judges.example/v1", "--model", "strict")
    assert "the environment variable OPENAI_API_KEY is not set; export OPENAI_API_KEY" in refused(
        "judge", "compare", *files, *endpoint, *out
    )
    assert "ours.json: cannot be read: No such file" in refused(
        *("judge", "compare", "--outputs", tmp_path / "no" / "ours.json", *files[2:]),
        *endpoint,
        *out,
    )


def test_plw_judge_does_not_import_torch(tmp_path: Path) -> None:
    modules = "orchestrator.cli.judge_commands, orchestrator.cli.judge_output"
    code = f"import sys, {modules}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {re.split(r"\.", name)[0] for name in found.stdout.split()}
    assert loaded & {"torch", "transformers", "ray", "mlflow", "deepspeed"} == set()


@pytest.mark.parametrize("content", ["evals:\n", "evals:\n  judge:\n", "evals: {judge: x}\n"])
def test_a_spec_without_judge_settings_is_rejected(
    files: list[object], tmp_path: Path, content: str
) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(content)
    error = refused("judge", "compare", *files, "--judge-config", path, "-o", tmp_path / "out")
    assert re.search(r"a judge needs base_url|evals.judge must be a group of settings", error)


@pytest.mark.parametrize("is_spec", [True, False])
def test_the_old_name_of_parse_retries_is_rejected_with_the_new_one(
    files: list[object], tmp_path: Path, is_spec: bool
) -> None:
    path = tmp_path / "judge.yaml"
    settings = "{base_url: https://judges.example/v1, model: strict, reasks: 2}\n"
    path.write_text(f"evals:\n  judge: {settings}" if is_spec else settings)
    error = refused("judge", "compare", *files, "--judge-config", path, "-o", tmp_path / "out")
    assert "reasks was renamed to evals.judge.parse_retries; use the new name" in error
    endpoint = ("--base-url", "https://judges.example/v1", "--model", "strict", "--reasks", 2)
    error = refused("judge", "compare", *files, *endpoint, "-o", tmp_path / "out")
    assert "reasks was renamed to evals.judge.parse_retries; use the new name" in error


@pytest.mark.slow
def test_plw_eval_judges_a_models_outputs(
    files: list[object], endpoint: Endpoint, tmp_path: Path
) -> None:
    from tests.tiny_model import save_tiny_model

    model = save_tiny_model(tmp_path / "model")
    settings = json.loads((model / "config.json").read_text())
    # 512 new tokens and a prompt need more than the tiny model's 512 positions.
    (model / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 1024}))
    root = tmp_path / "data" / "alpaca_eval"
    root.mkdir(parents=True)
    Path(str(files[3])).rename(root / "text_davinci_003_outputs.json")
    judge = tmp_path / "judge.yaml"
    judge.write_text(
        f"base_url: {endpoint.base_url}\nmodel: strict\napi_key_env: null\n"
        f"cache_dir: {tmp_path / 'replies'}\n"
    )
    # A random model never stops, so the fake judge prefers its long outputs.
    card = plw_json(
        *("eval", model, "--tasks", "alpaca_eval", "--data-root", tmp_path / "data"),
        *("--limit", 2, "--judge-config", judge, "-o", tmp_path / "out"),
    )
    scores = {score["name"]: score["value"] for score in card["scores"]}
    assert scores["alpaca_eval_win_rate"] == 1
    assert len(endpoint.requests) == 4
