"""The bounded MAT reader against scipy on whole files, and against damage, which may crash scipy."""

import io

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from ucvgl.data.mat5 import read_mat
from ucvgl.errors import InputError
from ucvgl.paths import samples

CONTENTS = {
    "panoIds": np.array(["abc", "d  ", "éfg"]),
    "utm": np.array([[1.5, 2.5], [3, 4], [5, 6]]),
    "small": np.array([[7]], np.uint8),
    "trainSet": {"utm": np.zeros((2, 2)), "trainInd": np.array([[1], [3]], np.int32)},
    "cells": np.array([["one", "two"], ["three", np.arange(3.0)]], object),
}


def saved(compressed=False, **contents):
    file = io.BytesIO()
    scipy.io.savemat(file, contents or CONTENTS, do_compression=compressed)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_what_scipy_wrote(compressed, tmp_path):
    (tmp_path / "a.mat").write_bytes(saved(compressed))
    data = read_mat(tmp_path / "a.mat", CONTENTS)
    assert data["panoIds"] == ["abc", "d  ", "éfg"]
    assert np.array_equal(data["utm"], CONTENTS["utm"])
    assert data["small"].item() == 7
    assert data["trainSet"]["trainInd"].tolist() == [[1], [3]]
    assert list(data["trainSet"]) == ["utm", "trainInd"]
    one, three, two, numbers = data["cells"]  # column order
    assert (one, two, three) == (["one"], ["two"], ["three"])
    assert numbers.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (0, 4), (2, 2, 3)])
def test_numbers_of_every_type(dtype, shape, tmp_path):
    values = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    (tmp_path / "a.mat").write_bytes(saved(x=values))
    found = read_mat(tmp_path / "a.mat", ["x"])["x"]
    assert np.array_equal(found, values)
    assert found.shape == shape


def test_a_real_file_reads_as_scipy_reads_it():
    path = samples() / "place_recognition" / "msls_amman_d-20_d2-5.db"
    if not path.exists():
        pytest.skip(f"no sample data: {path} is absent (set UCVGL_SAMPLES)")
    ours, theirs = read_mat(path, ["dbStruct"])["dbStruct"], scipy.io.loadmat(path)["dbStruct"][0, 0]
    assert set(ours) == set(theirs.dtype.names)
    for key in ("utmDb", "utmQ", "numQueries", "posDistThr"):
        assert np.array_equal(ours[key], theirs[key])
    assert ["".join(c) for c in ours["qImageFns"]] == [str(c[0]) for c in theirs["qImageFns"].ravel()]


def test_what_is_missing_is_said(tmp_path):
    (tmp_path / "a.mat").write_bytes(saved())
    with pytest.raises(InputError, match="a variable other, found variables panoIds, utm"):
        read_mat(tmp_path / "a.mat", ["other"])
    with pytest.raises(InputError, match="no such file"):
        read_mat(tmp_path / "b.mat", ["other"])


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("ucvgl.data.mat5._LARGEST_BYTES", 1 << 16)
    (tmp_path / "a.mat").write_bytes(saved(True, x=np.zeros(100_000)))
    with pytest.raises(InputError, match="larger"):
        read_mat(tmp_path / "a.mat", ["x"])


@pytest.mark.parametrize("compressed", [False, True])
@settings(max_examples=400, deadline=None, derandomize=True)
@given(changes=st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 255)), max_size=6), cut=st.integers(0, 3_000))
def test_damage_is_an_input_error_or_a_reading(compressed, changes, cut, tmp_path_factory):
    raw = bytearray(saved(compressed))
    for place, byte in changes:
        raw[place % len(raw)] = byte
    path = tmp_path_factory.getbasetemp() / f"damaged-{compressed}.mat"
    path.write_bytes(bytes(raw[: len(raw) - cut] if cut < 1_000 else raw))
    try:
        read_mat(path, ["panoIds", "utm", "trainSet", "cells"])
    except InputError as error:
        said = str(error)
    else:
        said = str(path)
    assert str(path) in said
