"""lm-eval's benchmarks, and JSONL benchmarks of users, scored with our inference engine.

`tasks.planned_tasks(config)` lists the tasks and `tasks.measure_task` scores one. `run` imports
`tasks`; `run` and orchestrator may import `preflight` and `rescore`, which load no model.
"""
