"""The text of a problem of the input."""

import pytest

from trainers.foundation.errors import Problem


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (
            Problem(message="no best PLW.", where="s", fix="give --plw"),
            "s: no best PLW; give --plw",
        ),
        (Problem(message="no best PLW.", where="s"), "s: no best PLW."),
        (Problem(message="cut ...", fix="give --plw"), "cut ...; give --plw"),
    ],
)
def test_a_full_stop_before_the_fix_is_dropped(problem: Problem, text: str) -> None:
    assert str(problem) == text
