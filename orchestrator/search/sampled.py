"""Random and Bayesian search through Ray Tune's OptunaSearch, asked and told point by point."""

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
from orchestrator.search.narrow import narrowing_w_p
from orchestrator.search.points import Observation, Point, point_key
from orchestrator.search.space import Space
from orchestrator.search.top import SearchTop, search_top
from orchestrator.spec.constraints import all_hold, read_constraint
from orchestrator.spec.search_config import Range, SearchConfig
from orchestrator.spec.search_rules import OBJECTIVES, first_points, holds_values
from orchestrator.spec.setting_fields import PLW

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

# Suggestions of the sampler that may break a constraint or repeat a point. A Gaussian process
# whose optimum lies beyond a constraint would suggest it for ever, at a fit each.
MAX_SUGGESTIONS = 5
# Points that are drawn then, of which the one nearest to the last suggestion is taken.
NUM_NEAR = 100
# Draws after which we say that there is no further point; also the largest space that is listed.
MAX_DRAWS = 10_000
# Points before tpe and gp learn. Optuna's own 10 would leave 2 of 12 to them.
STARTUP_POINTS = 4
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
        self._pending: dict[int, dict[str, Any]] = {}
        spread = spread_points(config) if learns_plw_alone(config) else []
        self._first = deque([*map(dict, unfinished), *first_points(config), *spread])
        self._done = [o for o in known if self._is_informative(o)]
        self._num_rejected = 0
        with _quiet():
            self._searcher = self._make_searcher(known)

    def ask(self) -> Point | None:
        """The next point: the first points, then what the sampler suggests."""
        assert self._config.points is not None
        if self._number >= self._config.points:
            return None
        if self._is_known_enough():
            return None
        with _quiet():
            while self._first:
                part = self._first.popleft()
                if any(holds_values(point, part) for point in self._seen):
                    continue
                point = self._next(part)
                if point is not None:
                    return point
            point = self._next(self._narrowing() or {})
        if point is None:
            self.ended = "every point of the space has been tried"
            if self._space.size() is None:
                self.ended = f"no new point was found in {MAX_DRAWS} draws"
            if self._constraints:
                self.ended += " that meets search.constraints"
        return point

    def tell(self, number: int, observation: Observation) -> None:
        """Take in how a point came out; scores that are not finite count as a failure.

        A point that failed or was given up counts as bad as the worst one so far: Optuna's samplers
        take no notice of points without a value, and would go on where all diverge.
        """
        self._pending.pop(number, None)
        if self._is_informative(observation):
            self._done.append(observation)
            values = observation.values
        else:
            values = self._worst(self._done)
        result = dict(zip(self._config.objectives, values, strict=True)) if values else None
        with _quiet():
            self._searcher.on_trial_complete(str(number), result=result, error=values is None)

    def _worst(self, done: Sequence[Observation]) -> tuple[float, ...] | None:
        """The worst value of each objective so far; None while there is none."""
        columns = zip(*(observation.values or () for observation in done), strict=True)
        higher = [OBJECTIVES[name] for name in self._config.objectives]
        return (
            tuple(
                min(column) if is_higher else max(column)
                for column, is_higher in zip(columns, higher, strict=False)
            )
            or None
        )

    def _narrowing(self) -> dict[str, Any] | None:
        """The PLW that narrows most where the best one is; None where the sampler knows better."""
        config = self._config
        values = config.space.get(PLW)
        several = len(config.objectives) > 1
        if not learns_plw_alone(config) or several or not self._done:
            return None
        assert isinstance(values, Range), "learns_plw_alone asks for a range"
        taken = [w_p(point[PLW]) for point in self._seen]
        low, high = w_p(values.low), w_p(values.high)
        proposed = narrowing_w_p(taken, self._top().w_p, low, high)
        return self._space.to_searched({PLW: proposed})

    def _top(self) -> SearchTop:
        return search_top(
            [w_p(observation.searched[PLW]) for observation in self._done],
            [observation.values[0] for observation in self._done if observation.values],
            OBJECTIVES[self._config.objectives[0]],
        )

    def _is_known_enough(self) -> bool:
        """Whether the best w_p is known as well as the spec asks for."""
        within = self._config.stop_when_plw_within
        if within is None or not self._done:
            return False
        # Takes scipy and statsmodels, which other searches do without.
        from orchestrator.search.known_best import known_best

        [objective] = self._config.objectives
        verdict = known_best(
            self._done, objective, higher_is_better=OBJECTIVES[objective], within=within
        )
        if verdict is None:
            return False
        # The report may say otherwise: it is on all scores and corrects for all of its verdicts.
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
            is_informative = self._is_informative(observation)
            values = observation.values if is_informative else self._worst(self._done)
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

    def _next(self, part: Mapping[str, Any]) -> Point | None:
        """A new point that holds the values of `part`; None if none was found."""
        fixed = self._space.partial_params(part)
        tries = 1 if set(part) == set(self._config.space) else MAX_SUGGESTIONS
        for _ in range(tries):
            searched = self._suggest(fixed)
            if self._is_new(searched):
                return self._take(searched)
            self._reject()
        drawn = list(islice(self._drawn(fixed), NUM_NEAR))
        if not drawn:
            return None
        wanted = self._space.partial_params(searched)
        nearest = min(drawn, key=lambda params: self._distance(params, wanted))
        return self._take(self._suggest(nearest))

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
        self._pending[self._number] = searched
        self._number += 1
        return Point(self._number - 1, searched)

    def _is_new(self, searched: Mapping[str, Any]) -> bool:
        return point_key(searched) not in self._taken and all_hold(self._constraints, searched)

    def _drawn(self, fixed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Params of new points, drawn evenly; all of them where the space is small."""
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
        """How far two points are apart, in shares of each range; other list values are 1 apart."""
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


def learns_plw_alone(config: SearchConfig) -> bool:
    """Whether tpe or gp search a range of PLW and nothing else."""
    is_range = isinstance(config.space.get(PLW), Range)
    return is_range and len(config.space) == 1 and config.method in ("tpe", "gp")


def spread_points(config: SearchConfig) -> list[dict[str, Any]]:
    """Both ends and both thirds of the range of w_p: from four points on, a top can be fitted."""
    values = config.space[PLW]
    assert isinstance(values, Range), "learns_plw_alone asks for a range"
    low, high = w_p(values.low), w_p(values.high)
    space = Space(config.space)
    shares = (0, 1, 1 / 3, 2 / 3)
    return [space.to_searched({PLW: low + share * (high - low)}) for share in shares]


def make_sampler(config: SearchConfig) -> "BaseSampler":
    """The Optuna sampler of a method."""
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
        # An even draw of whole numbers gives the two ends as much room as the others.
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
