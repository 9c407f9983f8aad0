"""Random and Bayesian search through Ray Tune's OptunaSearch, asked and told point by point."""

import logging
import math
import random
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any

from orchestrator.constraints import all_hold, read_constraint
from orchestrator.search import Observation, Point, point_key
from orchestrator.search_config import SearchConfig
from orchestrator.search_rules import OBJECTIVES, first_points, holds_values
from orchestrator.space import Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

# Suggestions of the sampler that may break a constraint or repeat a point before one is drawn.
MAX_SUGGESTIONS = 20
# Draws after which we say that there is no further point; also the largest space that is listed.
MAX_DRAWS = 10_000
_STUDY = "plw"


class SampledSearch:
    """Points drawn or learned by an Optuna sampler, none of them twice."""

    def __init__(
        self,
        config: SearchConfig,
        known: Sequence[Observation],
        num_done: int,
        unfinished: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        assert config.points is not None, "search_rules requires points"
        self.ended: str | None = None
        self._config = config
        self._space = Space(config.space)
        self._distributions = self._space.distributions()
        self._constraints = [read_constraint(text) for text in config.constraints]
        self._rng = random.Random(config.seed)
        self._number = num_done
        self._taken = {point_key(observation.searched) for observation in known}
        self._seen = [dict(observation.searched) for observation in known]
        self._first = deque([*map(dict, unfinished), *first_points(config)])
        self._done = [o for o in known if self._is_informative(o)]
        self._num_rejected = 0
        with _quiet():
            self._searcher = self._make_searcher(known)

    def ask(self) -> Point | None:
        """The next point: the first points, then what the sampler suggests."""
        assert self._config.points is not None
        if self._number >= self._config.points:
            self.ended = f"all {self._config.points} points have been asked for"
            return None
        with _quiet():
            while self._first:
                part = self._first.popleft()
                if any(holds_values(point, part) for point in self._seen):
                    continue
                point = self._next(part)
                if point is not None:
                    return point
            point = self._next({})
        if point is None:
            self.ended = "every point of the space has been tried"
            if self._space.size() is None:
                self.ended = f"no new point was found in {MAX_DRAWS} draws"
            if self._constraints:
                self.ended += " that meets search.constraints"
        return point

    def tell(self, number: int, observation: Observation) -> None:
        """Take in how a point came out; scores that are not finite count as a failure."""
        failed = observation.state == "failed"
        result = None
        if self._is_informative(observation):
            self._done.append(observation)
            result = dict(zip(self._config.objectives, observation.values or (), strict=True))
        elif observation.state == "done":
            failed = True
        with _quiet():
            self._searcher.on_trial_complete(str(number), result=result, error=failed)

    def _is_informative(self, observation: Observation) -> bool:
        values = observation.values
        return (
            observation.state == "done"
            and values is not None
            and len(values) == len(self._config.objectives)
            and all(math.isfinite(value) for value in values)
        )

    def _make_searcher(self, known: Sequence[Observation]) -> Any:
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        higher = [OBJECTIVES[name] for name in self._config.objectives]
        # OptunaSearch takes finished points only of a single objective, so they go in beside it.
        storage = optuna.storages.InMemoryStorage()
        study = optuna.create_study(
            storage=storage,
            study_name=_STUDY,
            directions=["maximize" if one else "minimize" for one in higher],
        )
        for observation in known:
            params = self._space.to_params(observation.searched)
            if params is None:
                continue
            state, values = optuna.trial.TrialState.FAIL, None
            if self._is_informative(observation):
                state, values = optuna.trial.TrialState.COMPLETE, observation.values
            elif observation.state == "stopped":
                state = optuna.trial.TrialState.PRUNED
            study.add_trial(
                optuna.trial.create_trial(
                    state=state, values=values, params=params, distributions=self._distributions
                )
            )
        self._study = study
        return OptunaSearch(
            self._distributions,
            metric=list(self._config.objectives),
            mode=["max" if one else "min" for one in higher],
            sampler=make_sampler(self._config),
            study_name=_STUDY,
            storage=storage,
        )

    def _next(self, part: Mapping[str, Any]) -> Point | None:
        """A new point that holds the values of `part`; None if none was found."""
        fixed = self._space.partial_params(part)
        tries = 1 if set(part) == set(self._config.space) else MAX_SUGGESTIONS
        for _ in range(tries):
            searched = self._suggest(fixed)
            if self._is_new(searched):
                return self._take(searched)
            self._reject()
        params = self._draw(fixed)
        if params is None:
            return None
        return self._take(self._suggest(params))

    def _suggest(self, fixed: Mapping[str, Any]) -> dict[str, Any]:
        if fixed:
            self._study.enqueue_trial(dict(fixed))
        return self._space.to_searched(self._searcher.suggest(str(self._number)))

    def _reject(self) -> None:
        """Let the sampler forget its last suggestion, under a name that is not used again."""
        trials = self._searcher._ot_trials
        self._num_rejected += 1
        rejected = f"rejected-{self._num_rejected}"
        trials[rejected] = trials.pop(str(self._number))
        self._searcher.on_trial_complete(rejected, error=True)

    def _take(self, searched: dict[str, Any]) -> Point:
        self._taken.add(point_key(searched))
        self._seen.append(searched)
        self._number += 1
        return Point(self._number - 1, searched)

    def _is_new(self, searched: Mapping[str, Any]) -> bool:
        return point_key(searched) not in self._taken and all_hold(self._constraints, searched)

    def _draw(self, fixed: Mapping[str, Any]) -> dict[str, Any] | None:
        """Params of a new point, drawn evenly."""
        size = self._space.size()
        if size is not None and size <= MAX_DRAWS:
            choices = [
                params
                for params in self._all_params()
                if params.items() >= fixed.items() and self._is_new(self._space.to_searched(params))
            ]
            return self._rng.choice(choices) if choices else None
        for _ in range(MAX_DRAWS):
            drawn = {name: _draw(one, self._rng) for name, one in self._distributions.items()}
            params = {**drawn, **fixed}
            if self._is_new(self._space.to_searched(params)):
                return params
        return None

    def _all_params(self) -> Iterator[dict[str, Any]]:
        ranges = {
            name: getattr(one, "choices", None) or range(one.low, one.high + 1)  # type: ignore[attr-defined]
            for name, one in self._distributions.items()
        }
        for values in product(*ranges.values()):
            yield dict(zip(ranges, values, strict=True))


def make_sampler(config: SearchConfig) -> "BaseSampler":
    """The Optuna sampler of a method."""
    from optuna.samplers import GPSampler, RandomSampler, TPESampler

    if config.method == "random":
        return RandomSampler(seed=config.seed)
    if config.method == "tpe":
        return TPESampler(multivariate=True, constant_liar=True, seed=config.seed)
    return GPSampler(seed=config.seed, deterministic_objective=False)


def _draw(distribution: "BaseDistribution", rng: random.Random) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return rng.choice(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log:
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
    else:
        value = rng.uniform(low, high)
    if isinstance(distribution, IntDistribution):
        # An even draw of whole numbers gives the two ends as much room as the others.
        return (
            round(value) if distribution.log else rng.randint(distribution.low, distribution.high)
        )
    return min(max(value, low), high)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna's warnings of experimental settings and Ray's of itself stay off the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray_log = logging.getLogger("ray.tune.search.optuna.optuna_search")
        level = ray_log.level
        ray_log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            ray_log.setLevel(level)
