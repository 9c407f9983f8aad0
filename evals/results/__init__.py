"""What a measure returns and where it is stored: scores, intervals, finished parts, responses.

A measure returns `measurement.Measured`, made with the estimates of `intervals`;
`result_store.PartFolder` keeps it. Every later package of evals may import from here; orchestrator
may import `scores` (plain data, without torch).
"""
