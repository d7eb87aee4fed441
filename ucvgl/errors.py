"""The one error that bad input raises: it names the place, the expectation, the finding and the remedy."""

import math
from collections.abc import Iterable
from numbers import Real


class InputError(ValueError):
    """Bad input, told so that the reader can mend it without opening the code.

    where: the file (with line), field, parameter or argument at fault; expected: what would have been right, with unit
    or shape; found: what was there instead; todo: the next step, as a sentence."""

    def __init__(self, where: object, expected: str, found: object, todo: str) -> None:
        self.where, self.expected, self.found, self.todo = str(where), expected, str(found), todo
        super().__init__(self.where, expected, self.found, todo)  # all, or it would not survive the way out of a worker

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, found {self.found}. {self.todo}"


def one_of(where: str, value: object, allowed: Iterable[object], todo: str) -> None:
    """InputError unless `value` (a split, a method, ...) is one of `allowed`."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise InputError(where, expected=f"one of {', '.join(map(str, allowed))}", found=repr(value), todo=todo)


def check_fields(settings: object, where: str, todo: str, *rules: tuple[str, bool, str]) -> None:
    """InputError for the first rule, (name of a field, whether it is right, what would be), that does not hold; `where`
    stands before the name, as 'EncoderConfig.'."""
    for name, right, expected in rules:
        if not right:
            raise InputError(f"{where}{name}", expected=expected, found=repr(getattr(settings, name)), todo=todo)


def check_number(
    where: str, value: object, *, unit: str = "", low: float = -math.inf, high: float = math.inf, whole: bool = False
) -> float:
    """A setting that has to be a finite, perhaps `whole`, number strictly between low and high, as a float; or InputError."""
    right = isinstance(value, int if whole else Real) and not isinstance(value, bool)
    if right and math.isfinite(value) and low < value < high:
        return float(value)
    bounds = [f"above {low:g}"] * (low > -math.inf) + [f"below {high:g}"] * (high < math.inf)
    kind = "a whole number" if whole else "a finite number"
    expected = " ".join([kind, " and ".join(bounds), unit]).replace("  ", " ").rstrip()
    raise InputError(where, expected=expected, found=repr(value), todo="Give one such number.")
