"""The one error: it says all four things, and survives a worker process."""

import pickle

from ucvgl.errors import InputError


def test_says_where_what_and_what_to_do() -> None:
    error = InputError("list.csv, line 3", expected="three columns", found="two", todo="Add the third.")
    assert str(error) == "list.csv, line 3: expected three columns, found two. Add the third."


def test_survives_a_worker_process() -> None:
    error = InputError("a", expected="b", found=3, todo="d")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 (what multiprocessing does with an exception)
    assert str(again) == str(error)
    assert again.found == "3"
