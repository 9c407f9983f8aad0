"""Score lm-eval's benchmarks and custom JSONL benchmarks with the engine of evals.

`planning.plan_tasks(config)` lists the tasks, and `tasks.evaluate_task` scores one. `run` imports
both; `run` and orchestrator may import `preflight`, `plan_check` and `rescore`, which load no
model.
"""
