"""`plw eval`: score one model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import PATH, json_option
from orchestrator.cli.render import print_json


class BatchSize(click.ParamType):  # type: ignore[type-arg]  # generic from 8.4 on only
    """A positive whole number, or auto."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto" or isinstance(value, int):
            return value
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"must be auto or a positive whole number, got {value}", param, ctx)
        return int(value)


@click.command("eval")
@click.argument("model")
@click.option(
    "--tasks",
    help="Benchmarks separated by commas: tasks or groups of lm-eval, or multiple_choice or "
    "short_generation for the paper's benchmarks.",
)
@click.option("--data-root", help="Folder with local files of the paper's benchmarks.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Score only the first N items of each benchmark; default: all.",
)
@click.option(
    "--num-fewshot",
    type=click.IntRange(min=0),
    help="Few-shot examples per prompt; default: the task's number.",
)
@click.option(
    "--task-template",
    type=click.Choice(["none", "checkpoint"]),
    help="Benchmark prompts as in lm-eval (none), or in the template of the checkpoint.",
)
@click.option("--batch-size", type=BatchSize(), help="Rows per forward pass; auto finds the limit.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Seed of few-shot examples, answer choices and the bootstrap; default: 0.",
)
@click.option(
    "--data", "data_path", help="Examples to score on; default: the spec's held-out examples."
)
@click.option(
    "--config",
    type=PATH,
    help="A sweep spec, whose measures, template and held-out examples are used, or a file with "
    "only its evals section.",
)
@click.option(
    "--template",
    help="chat, alpaca, plain or a Jinja file; default: the one of the model's training, then the "
    "spec's.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=8),
    help="Tokens per example; default: the spec's, then the one of the model's training, then 512.",
)
@click.option(
    "--judge-config",
    type=PATH,
    help="YAML file of the judge of alpaca_eval and pandalm_prompts: settings, or a sweep spec.",
)
@click.option(
    "--opponent",
    help="Opponent in pandalm_prompts: a file of outputs, such as the trial's with PLW 0 "
    "(trials/ID/outputs/pandalm_prompts.alpaca_eval.json), a model folder, or untuned.",
)
@click.option("-o", "--output-dir", type=PATH, help="Folder for scores and samples.")
@click.option(
    "--rescore",
    is_flag=True,
    help="Compute scores again from the outputs in MODEL, the output folder of an earlier run.",
)
@json_option
def evaluate(
    model: str,
    tasks: str | None,
    data_path: str | None,
    config: Path | None,
    template: str | None,
    max_length: int | None,
    judge_config: Path | None,
    opponent: str | None,
    output_dir: Path | None,
    rescore: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Score one model on benchmarks or held-out examples.

    MODEL is a folder or hub name, or the output folder of `plw train`. Results of an interrupted
    run in the output folder are reused.
    """
    from orchestrator.cli.score_output import print_scores

    if rescore:
        from evals.harness.rescore import rescore as rescore_folder

        output_dir = Path(model)
        card = rescore_folder(output_dir)
    else:
        from orchestrator.cli.eval_model import evaluate_model
        from orchestrator.cli.progress_bar import ScoringProgress

        if output_dir is None:
            raise click.UsageError("give --output-dir, for scores and samples")
        if judge_config is not None:
            from orchestrator.cli.judge_commands import load_judge_config

            settings["judge"] = load_judge_config(judge_config, {}).model_dump(mode="json")
        if opponent is not None:
            settings["pandalm_prompts"] = {"opponent": opponent}
        with ScoringProgress() as progress:
            card = evaluate_model(
                model,
                data_path,
                spec_path=config,
                tasks=[name.strip() for name in (tasks or "").split(",") if name.strip()],
                settings=settings,
                template=template,
                max_length=max_length,
                output_dir=output_dir,
                on_progress=progress.update,
                on_reused=_print_reused,
                on_note=lambda note: click.echo(f"note: {note}", err=True),
            )
    if as_json:
        print_json(card)
        return
    print_scores(card)
    click.echo(f"wrote {output_dir / 'scores.json'} and {output_dir / 'samples.jsonl'}")


def _print_reused(measures: Sequence[str]) -> None:
    click.echo(f"reused from an earlier run: {', '.join(measures)}", err=True)
