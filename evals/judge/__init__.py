"""Pairwise comparisons by an LLM judge: prompts, client, cache, budget, verdicts, win rates.

`evaluate.JudgedEvaluation` scores a model within `run`. orchestrator may import `compare`,
`agreement`, `annotate` and `suites`, for `plw judge` and for checks before a sweep. The judge's
settings are in `evals.judge_config`, because `evals.config` contains them.

Main calls:

    results = annotate.judge_pairs(pairs, ANNOTATORS["ranking"], config, on_progress=on_progress)
    comparison = compare.compare_outputs(outputs, reference, style="ranking", judge=config, ...)
"""
