"""Which model restores fast enough: the best of those that do, or else the fastest."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

__all__ = ["Selection", "select"]


class Selection(NamedTuple):
    """What was selected.

    Attributes:
        name: of the model.
        is_enough: whether it is as fast as was wanted.
        rates: by name, of all that were looked at; of what is too slow even alone, that of the network alone.
    """

    name: str
    is_enough: bool
    rates: Mapping[str, float]


def select(
    names: Sequence[str], wanted: float, alone: Callable[[str], float], whole: Callable[[str], float]
) -> Selection:
    """Selects a model.

    Args:
        names: of the models, from the cheapest to the best; at least one.
        wanted: rate, in any unit.
        alone: the rate of a model's network alone, which a whole run does not exceed; cheap to ask for.
        whole: the rate of a whole run; asked for only where the network alone is fast enough, and of what is
            selected.

    Returns:
        The best whose whole run is as fast as wanted; if there is none, the fastest.
    """
    rates: dict[str, float] = {}
    tried: set[str] = set()
    for name in reversed(names):
        rates[name] = alone(name)
        if rates[name] < wanted:
            continue
        rates[name] = whole(name)
        tried.add(name)
        if rates[name] >= wanted:
            return Selection(name, True, rates)
    fastest = max(rates, key=lambda name: rates[name])
    if fastest not in tried:
        rates[fastest] = whole(fastest)
    return Selection(fastest, False, rates)
