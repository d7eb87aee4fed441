"""The one error: it says all four things, and survives a worker process."""

import pickle

from ucvgl.errors import InputError


def test_says_where_what_and_what_to_do_and_survives_a_worker_process() -> None:
    error = InputError("list.csv, line 3", expected="three columns", found=2, todo="Add the third.")
    assert str(error) == "list.csv, line 3: expected three columns, found 2. Add the third."
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 (what multiprocessing does with an exception)
    assert (str(again), again.found) == (str(error), "2")
