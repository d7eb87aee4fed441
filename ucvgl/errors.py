"""The one error that bad input raises: it names the place, the expectation, the finding and the remedy."""


class InputError(ValueError):
    """Bad input, told so that the reader can mend it without opening the code.

    Args:
        where: the file (with line), field, parameter or argument at fault.
        expected: what would have been right, with unit or shape.
        found: what was there instead.
        todo: the next step, as a sentence.
    """

    def __init__(self, where: object, *, expected: str, found: object, todo: str) -> None:
        super().__init__(where, expected, found, todo)
        self.where, self.expected, self.found, self.todo = str(where), expected, str(found), todo

    def __reduce__(self) -> tuple[object, ...]:
        """Survives the way out of a worker process, which keyword arguments alone would not."""
        return _rebuild, (self.where, self.expected, self.found, self.todo)

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, found {self.found}. {self.todo}"


def _rebuild(where: str, expected: str, found: str, todo: str) -> InputError:
    return InputError(where, expected=expected, found=found, todo=todo)
