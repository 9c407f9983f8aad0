"""Pairwise comparisons by an LLM judge: prompts, client, cache, budget, verdicts, win rates.

`evaluate.measure_judged` scores a model within `run`. orchestrator may import `compare`,
`agreement`, `annotate` and `suites` for `plw judge` and for checks before a sweep. The judge's
settings are in `evals.judge_config`, because `evals.config` contains them.
"""
