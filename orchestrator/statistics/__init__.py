"""Statistics of the prompt loss weight: from a table of scores to verdicts.

All numbers are float64; no module reads a sweep, draws a plot or trains.

Start with `conclusions.draw_conclusions(rows)`. Rows of `table.ScoreRow` become one value per trial
in points (`trial_points`), effects of the weights (`weight_effects`), one analysis per question
(`weight_analysis`) and verdicts (`verdict`, `verdict_decision`). `conclusions_markdown` and
`messages` write the text; `power` and `follow_up_design` simulate the same analysis. `weight_grid`
compares pairs of prompt and completion weight.
"""
