"""Define the `search` section of a sweep spec, with the rules between its fields."""

from typing import Self

from pydantic import model_validator

from orchestrator.spec.search_fields import SearchFields
from orchestrator.spec.search_rules import find_violations, violations_error


class SearchConfig(SearchFields):
    """The settings to search, and the search method."""

    @model_validator(mode="after")
    def _all_rules(self) -> Self:
        rules = find_violations(self)
        if rules:
            raise violations_error(rules)
        return self
