"""Times actions in turns."""

import time
from collections.abc import Callable, Mapping

__all__ = ["interleaved"]


def interleaved(
    actions: Mapping[str, Callable[[], object]],
    rounds: int,
    seconds: float,
    *,
    settle: float = 0.0,
    step: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Times actions in turns: in every round, each of them once, in the order given.

    First each is called twice: once for what only a first call does, and once to learn how many calls fill its share of
    a round, `seconds / rounds`. Every turn begins with calls that are not timed, for `settle` seconds: the threads of
    the turn before go on spinning for a while, and a network is a fifth slower beside those of a matrix product.

    Args:
        actions: by name.
        rounds: at least 1.
        seconds: about how long each action is timed, over all rounds.
        settle: seconds at the start of each turn that are not timed; more than 0 means one call at least.
        step: called after each turn.
        clock: seconds, as `time.perf_counter`.

    Returns:
        Seconds of one call, by name: the mean over a turn's calls, for each round.
    """
    calls = {}
    for name, action in actions.items():
        action()
        calls[name] = max(1, round(seconds / rounds / _timed(action, 1, clock)))
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            started = clock()
            while clock() - started < settle:
                action()
            times[name].append(_timed(action, calls[name], clock))
            step()
    return times


def _timed(action: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    started = clock()
    for _ in range(calls):
        action()
    # A clock may be too coarse for what takes no time at all.
    return max(clock() - started, 1e-9) / calls
