"""The one error that bad input raises: it names the place, the expectation, the finding and the remedy."""

import math
from collections.abc import Iterable
from numbers import Real


class InputError(ValueError):
    """Bad input, told so that the reader can mend it without opening the code.

    where: the file (with line), field, parameter or argument at fault; expected: what would have been right, with unit or
    shape; found: what was there instead; todo: the next step, as a sentence.
    """

    def __init__(self, where: object, expected: str, found: object, todo: str) -> None:
        self.where, self.expected, self.found, self.todo = str(where), expected, str(found), todo
        super().__init__(self.where, expected, self.found, todo)  # all, or it would not survive the way out of a worker

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, found {self.found}. {self.todo}"


def one_of(where: str, value: object, allowed: Iterable[object], todo: str) -> None:
    """InputError unless `value` (a split, a method, ...) is one of `allowed`."""
    allowed = tuple(allowed)
    if value not in allowed:
        found = repr(value) if isinstance(value, str) else value
        raise InputError(where, expected=f"one of {', '.join(map(str, allowed))}", found=found, todo=todo)


def check_fields(settings: object, where: str, todo: str, *rules: tuple[str, bool, str]) -> None:
    """InputError for the first rule, (name of a field, whether it is right, what would be), that does not hold.

    where: what stands before the name, as 'EncoderConfig.'. todo: the next step.
    """
    for name, right, expected in rules:
        if not right:
            raise InputError(f"{where}{name}", expected=expected, found=repr(getattr(settings, name)), todo=todo)


def check_number(where: str, value: object, *, unit: str = "", low: float = -math.inf, high: float = math.inf) -> float:
    """A setting that has to be a finite number strictly between low and high, as a float; or InputError."""
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and low < value < high:
        return float(value)
    bounds = [f"above {low:g}"] * (low > -math.inf) + [f"below {high:g}"] * (high < math.inf)
    expected = " ".join(["a finite number", " and ".join(bounds), unit]).replace("  ", " ").rstrip()
    raise InputError(where, expected=expected, found=repr(value), todo="Give one such number.")


def check_pixels(where: str, value: object) -> int:
    """A setting that has to be a whole number of pixels, at least 1; or InputError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise InputError(where, expected="a whole number of pixels, at least 1", found=repr(value), todo="Give an int.")
