"""`plw eval`: one model, without a sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import json_option


class BatchSize(click.ParamType):  # type: ignore[type-arg]  # generic from 8.4 on only
    """A whole number from 1 on, or auto."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto" or isinstance(value, int):
            return value
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"must be auto or a whole number from 1 on, got {value}", param, ctx)
        return int(value)


@click.command("eval")
@click.argument("model")
@click.option(
    "--tasks",
    help="Benchmarks, with commas between: tasks or groups of lm-eval, multiple_choice or "
    "short_generation for the paper's.",
)
@click.option("--data-root", help="Folder with local files of the paper's benchmarks.")
@click.option("--limit", type=click.IntRange(min=1), help="First items of each benchmark; all.")
@click.option(
    "--num-fewshot", type=click.IntRange(min=0), help="Solved examples per prompt; the task's own."
)
@click.option(
    "--task-template",
    type=click.Choice(["none", "checkpoint"]),
    help="Benchmark prompts as lm-eval has them (none), or in the checkpoint's template.",
)
@click.option("--batch-size", type=BatchSize(), help="Rows at once; auto finds out by itself.")
@click.option(
    "--seed", type=click.IntRange(min=0), help="Of few-shot examples, item choice and bootstrap; 0."
)
@click.option(
    "--data", "data_path", help="Examples to score on; default: the spec's held-out ones."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="A sweep spec, whose measures, template and held-out examples are used, or a file with "
    "its evals alone.",
)
@click.option(
    "--template",
    help="chat, alpaca, plain or a Jinja file; default: as the model was trained, then the spec's.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=8),
    help="Tokens per example; default: the spec's, the model's training's or 512.",
)
@click.option(
    "--judge-config",
    type=click.Path(path_type=Path),
    help="YAML of the judge of alpaca_eval and pandalm: its settings, or a sweep spec.",
)
@click.option(
    "--opponent", help="Of pandalm: a file of outputs or a model folder; default: the untuned one."
)
@click.option("-o", "--output-dir", type=click.Path(path_type=Path), help="Where it goes.")
@click.option(
    "--rescore", is_flag=True, help="MODEL is an earlier output folder, whose outputs count anew."
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
    """Score MODEL, a folder or hub name, on benchmarks or held-out examples.

    What an earlier run that was stopped has left in the output folder is not done again.
    """
    from orchestrator.cli.screen import print_scores

    if rescore:
        from evals.harness.rescore import rescore as score_again

        output_dir = Path(model)
        card = score_again(output_dir)
    else:
        from orchestrator.cli.scoring_bar import ScoringBar
        from orchestrator.cli.single import evaluate_model

        if output_dir is None:
            raise click.UsageError("give --output-dir, where scores and samples go")
        if judge_config is not None:
            from orchestrator.cli.judging import judge_of

            settings["judge"] = judge_of(judge_config, {}).model_dump(mode="json")
        if opponent is not None:
            settings["pandalm"] = {"opponent": opponent}
        with ScoringBar() as bar:
            card = evaluate_model(
                model,
                data_path,
                spec_path=config,
                tasks=[name.strip() for name in (tasks or "").split(",") if name.strip()],
                settings=settings,
                template=template,
                max_length=max_length,
                output_dir=output_dir,
                on_progress=bar.advance,
                on_kept=_say_kept,
                on_note=lambda note: click.echo(f"note: {note}", err=True),
            )
    if as_json:
        click.echo(card.model_dump_json(indent=2))
        return
    print_scores(card)
    click.echo(f"wrote {output_dir / 'scores.json'} and {output_dir / 'samples.jsonl'}")


def _say_kept(measures: Sequence[str]) -> None:
    click.echo(f"kept from an earlier run: {', '.join(measures)}", err=True)


COMMANDS: tuple[click.Command, ...] = (evaluate,)
