"""What scores say about the prompt loss weight. Pure numerics in float64: nothing here reads a
sweep, draws or trains.

Start with `conclusions.answer(rows)`: rows of `table.ScoreRow` become trials in points
(`trial_points`), effects of the weights (`weight_effects`), one analysis per question
(`weight_analysis`) and verdicts (`verdict`). `conclusions_markdown` and `messages` put them into
words; `power` and `follow_up_design` simulate the same analysis. `weight_grid` compares pairs of
prompt and completion weight.
"""
