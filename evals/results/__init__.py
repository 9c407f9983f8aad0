"""Results of evaluations: scores, intervals, response logs and the result store.

An evaluation returns an `evaluation.EvaluationResult` with scores from `intervals` or
`corpus_metrics`; `result_store.ResultStore` saves it. Every later package of evals may import this
package. orchestrator may import `scores` (data classes without torch).
"""
