"""Random and Bayesian search with Optuna samplers, through Ray Tune's OptunaSearch."""

import logging
import math
import random
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice, product
from typing import TYPE_CHECKING, Any

from orchestrator.foundation.plw_scale import w_p
from orchestrator.search.c_optimal import c_optimal_w_p
from orchestrator.search.local_quadratic import estimate_optimum
from orchestrator.search.points import Observation, Point, point_key
from orchestrator.search.space import Space
from orchestrator.spec.constraints import all_hold, read_constraint
from orchestrator.spec.search_config import SearchConfig
from orchestrator.spec.search_fields import OBJECTIVES, Range
from orchestrator.spec.search_points import initial_points, matches
from orchestrator.spec.setting_fields import PLW

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

# Maximum number of invalid suggestions of the sampler. A Gaussian process whose optimum violates a
# constraint would suggest it forever, with one fit each time.
MAX_SUGGESTIONS = 5
# Number of random points to draw after that; the one nearest to the last suggestion is used.
NUM_NEAR = 100
# Maximum number of draws, after which the search ends; also the size of the largest space that is
# enumerated.
MAX_DRAWS = 10_000
# Number of random points before tpe and gp fit a model. Optuna's default is 10, which leaves 2 of
# 12.
STARTUP_POINTS = 4
_STUDY = "plw"


class SampledSearch:
    """Search with an Optuna sampler that never repeats a point."""

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
        self._keys = {point_key(observation.searched) for observation in known}
        self._seen = [dict(observation.searched) for observation in known]
        design = initial_design(config) if searches_only_plw(config) else []
        self._queue = deque([*map(dict, unfinished), *initial_points(config), *design])
        self._done = [o for o in known if self._is_informative(o)]
        self._num_rejected = 0
        with _muted():
            self._searcher = self._make_searcher(known)

    def ask(self) -> Point | None:
        """Return the next point: the queued ones first, then suggestions."""
        assert self._config.points is not None
        if self._number >= self._config.points:
            return None
        if self._is_converged():
            return None
        with _muted():
            while self._queue:
                values = self._queue.popleft()
                if any(matches(point, values) for point in self._seen):
                    continue
                point = self._next(values)
                if point is not None:
                    return point
            point = self._next(self._c_optimal_point() or {})
        if point is None:
            self.ended = "every point of the space has been tried"
            if self._space.size() is None:
                self.ended = f"no new point was found in {MAX_DRAWS} draws"
            if self._constraints:
                self.ended += " that meets search.constraints"
        return point

    def tell(self, number: int, observation: Observation) -> None:
        """Report the outcome of a point. Non-finite scores count as divergence.

        A failed point fails in Optuna too, whose samplers ignore it.
        """
        if self._is_informative(observation):
            self._done.append(observation)
        values = self._values(observation)
        result = dict(zip(self._config.objectives, values, strict=True)) if values else None
        with _muted():
            self._searcher.on_trial_complete(str(number), result=result, error=values is None)

    def _values(self, observation: Observation) -> tuple[float, ...] | None:
        """Return the values to report: the worst so far for a diverged, invalid or stopped point.

        Without values, samplers would continue in a region where all trials diverge. A crash or a
        lost node says nothing about a point, which gets no values.
        """
        if self._is_informative(observation):
            return observation.values
        return None if observation.state == "failed" else self._worst(self._done)

    def _worst(self, done: Sequence[Observation]) -> tuple[float, ...] | None:
        """Return the worst value of each objective so far; None if there are no values."""
        columns = zip(*(observation.values or () for observation in done), strict=True)
        higher = [OBJECTIVES[name] for name in self._config.objectives]
        return (
            tuple(
                min(column) if is_higher else max(column)
                for column, is_higher in zip(columns, higher, strict=False)
            )
            or None
        )

    def _c_optimal_point(self) -> dict[str, Any] | None:
        """Return the c-optimal PLW if only PLW is searched for one objective, else None."""
        config = self._config
        values = config.space.get(PLW)
        if not searches_only_plw(config) or len(config.objectives) > 1 or not self._done:
            return None
        assert isinstance(values, Range), "searches_only_plw requires a range"
        optimum = estimate_optimum(
            [w_p(observation.searched[PLW]) for observation in self._done],
            [observation.values[0] for observation in self._done if observation.values],
            OBJECTIVES[config.objectives[0]],
        )
        tried = [w_p(point[PLW]) for point in self._seen]
        proposed = c_optimal_w_p(tried, optimum, w_p(values.low), w_p(values.high))
        return self._space.to_searched({PLW: proposed})

    def _is_converged(self) -> bool:
        """Return whether search.stop_when_plw_within is met."""
        within = self._config.stop_when_plw_within
        if within is None or not self._done:
            return False
        # This imports scipy, which other searches do not need.
        from orchestrator.search.convergence import convergence_verdict

        [objective] = self._config.objectives
        verdict = convergence_verdict(
            self._done, objective, higher_is_better=OBJECTIVES[objective], within=within
        )
        if verdict is None:
            return False
        # The report's verdict may differ: it covers all scores and is corrected for all verdicts.
        self.ended = f"search.stop_when_plw_within is met: by {objective}, {verdict.text}"
        return True

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
        # OptunaSearch accepts evaluated points for a single objective only, so they are added to
        # the study instead.
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
            values = self._values(observation)
            states = optuna.trial.TrialState
            state = states.FAIL if values is None else states.COMPLETE
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

    def _next(self, values: Mapping[str, Any]) -> Point | None:
        """Return a new point with the given values; None if none was found."""
        fixed = self._space.partial_params(values)
        max_tries = 1 if set(values) == set(self._config.space) else MAX_SUGGESTIONS
        for _ in range(max_tries):
            searched = self._suggest(fixed)
            if self._is_new(searched):
                return self._register(searched)
            self._reject()
        candidates = list(islice(self._random_params(fixed), NUM_NEAR))
        if not candidates:
            return None
        suggested = self._space.partial_params(searched)
        nearest = min(candidates, key=lambda params: self._distance(params, suggested))
        return self._register(self._suggest(nearest))

    def _suggest(self, fixed: Mapping[str, Any]) -> dict[str, Any]:
        if fixed:
            self._study.enqueue_trial(dict(fixed))
        return self._space.to_searched(self._searcher.suggest(str(self._number)))

    def _reject(self) -> None:
        """Mark the last suggestion as failed in Optuna, under a name that is never reused."""
        trials = self._searcher._ot_trials
        self._num_rejected += 1
        rejected = f"rejected-{self._num_rejected}"
        trials[rejected] = trials.pop(str(self._number))
        self._searcher.on_trial_complete(rejected, error=True)

    def _register(self, searched: dict[str, Any]) -> Point:
        self._keys.add(point_key(searched))
        self._seen.append(searched)
        self._number += 1
        return Point(self._number - 1, searched)

    def _is_new(self, searched: Mapping[str, Any]) -> bool:
        return point_key(searched) not in self._keys and all_hold(self._constraints, searched)

    def _random_params(self, fixed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the params of new random points; in a small space, those of all points."""
        distributions, size = self._distributions, self._space.size()
        if size is not None and size <= MAX_DRAWS:
            listed = [params for params in self._all_params() if params.items() >= fixed.items()]
            self._rng.shuffle(listed)
            drawn = iter(listed)
        else:
            drawn = (
                {**{name: _draw(one, self._rng) for name, one in distributions.items()}, **fixed}
                for _ in range(MAX_DRAWS)
            )
        for params in drawn:
            if self._is_new(self._space.to_searched(params)):
                yield params

    def _distance(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        """Return the sum of distances relative to each range; unequal list values are 1 apart."""
        return sum(
            _distance(distribution, one[name], other[name])
            for name, distribution in self._distributions.items()
        )

    def _all_params(self) -> Iterator[dict[str, Any]]:
        ranges = {
            name: getattr(one, "choices", None) or range(one.low, one.high + 1)  # type: ignore[attr-defined]
            for name, one in self._distributions.items()
        }
        for values in product(*ranges.values()):
            yield dict(zip(ranges, values, strict=True))


def searches_only_plw(config: SearchConfig) -> bool:
    """Return whether tpe or gp search a range of PLW and no other setting."""
    is_range = isinstance(config.space.get(PLW), Range)
    return is_range and len(config.space) == 1 and config.method in ("tpe", "gp")


def initial_design(config: SearchConfig) -> list[dict[str, Any]]:
    """Return the four points that the local quadratic needs: ends and thirds of the w_p range."""
    values = config.space[PLW]
    assert isinstance(values, Range), "searches_only_plw requires a range"
    low, high = w_p(values.low), w_p(values.high)
    space = Space(config.space)
    fractions = (0, 1, 1 / 3, 2 / 3)
    return [space.to_searched({PLW: low + one * (high - low)}) for one in fractions]


def make_sampler(config: SearchConfig) -> "BaseSampler":
    """Return the Optuna sampler of a method."""
    from optuna.samplers import GPSampler, RandomSampler, TPESampler

    if config.method == "random":
        return RandomSampler(seed=config.seed)
    if config.method == "tpe":
        return TPESampler(
            n_startup_trials=STARTUP_POINTS,
            multivariate=True,
            constant_liar=True,
            seed=config.seed,
        )
    return GPSampler(
        n_startup_trials=STARTUP_POINTS, deterministic_objective=False, seed=config.seed
    )


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
        # Rounding a uniform draw would give the two ends half the probability of the others.
        return (
            round(value) if distribution.log else rng.randint(distribution.low, distribution.high)
        )
    return min(max(value, low), high)


def _distance(distribution: "BaseDistribution", one: Any, other: Any) -> float:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return float(one != other)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    ends = (distribution.low, distribution.high, one, other)
    low, high, one, other = (math.log(end) if distribution.log else end for end in ends)
    return abs(float(one) - float(other)) / max(float(high) - float(low), 1e-12)


@contextmanager
def _muted() -> Iterator[None]:
    """Suppress Optuna's warnings about experimental settings, and Ray's log messages."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray_log = logging.getLogger("ray.tune.search.optuna.optuna_search")
        level = ray_log.level
        ray_log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            ray_log.setLevel(level)
