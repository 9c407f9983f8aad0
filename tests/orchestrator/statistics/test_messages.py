"""Numbers in the texts of reports."""

import pytest

from orchestrator.statistics.messages import format_p_equation


@pytest.mark.parametrize(
    ("p_value", "text"),
    [
        (0.8, "p = 0.8"),
        (0.0312, "p = 0.031"),
        (0.0503, "p = 0.0503"),
        (0.0497, "p = 0.0497"),
        (0.05, "p = 0.05"),
        (0.0004, "p < 0.001"),
    ],
)
def test_p_values_show_on_which_side_of_the_level_they_are(p_value: float, text: str) -> None:
    assert format_p_equation(p_value) == text
