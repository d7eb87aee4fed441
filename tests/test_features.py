"""Embeddings on disk: what is written is read, without copies; what goes wrong is told and leaves nothing behind."""

import errno
import resource
from io import FileIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ucvgl import features
from ucvgl.errors import InputError
from ucvgl.features import join_features, read_features, write_features


def random(rows: int, width: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any), st.booleans(), st.booleans())
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], known: bool, half: bool
) -> None:
    dtype = torch.float16 if half else torch.float32
    path = tmp_path_factory.mktemp("features") / "new" / "query.npy"
    values = random(sum(sizes), 3)
    made = write_features(path, values.split(sizes), rows=sum(sizes) if known else None, dtype=dtype)
    for found in (made, read_features(path, rows=sum(sizes), width=3), torch.from_numpy(np.load(path))):
        assert found.dtype == dtype
        assert torch.equal(found, values.to(dtype))
    assert [file.name for file in path.parent.iterdir()] == ["query.npy"]


def test_nothing_is_read_or_copied_before_it_is_looked_at(tmp_path: Path) -> None:
    """A sparse file of 64 GB, larger than this machine's memory, opens at once."""
    path = tmp_path / "large.npy"
    rows, width = 1 << 24, 1024
    with path.open("wb") as file:
        file.write(features._header(rows, width, torch.float32))
        file.truncate(file.tell() + rows * width * 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read_features(path)
    assert found.shape == (rows, width)
    assert float(found[-1, -1]) == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


def test_a_set_too_large_for_the_header_of_its_first_batch_fits(tmp_path: Path) -> None:
    made = write_features(tmp_path / "a.npy", iter([random(1), random(99_999), random(1, seed=2)]))
    assert len(made) == 100_001
    assert torch.equal(made[-1:], random(1, seed=2))


def test_other_dtypes_and_gradients_are_taken(tmp_path: Path) -> None:
    values = random(4).double().requires_grad_()
    assert torch.equal(write_features(tmp_path / "a.npy", [values]), values.detach().float())
    assert write_features(tmp_path / "b.npy", [values.bfloat16().T.T]).dtype == torch.float32


def broken(place: int, value: float) -> torch.Tensor:
    values = random(6)
    values[place] = value
    return values


@pytest.mark.parametrize(
    ("batches", "options", "words"),
    [
        ([random(2), broken(3, torch.nan)], {}, r"finite numbers, found NaN or infinity in 1 of 6 rows, first 5"),
        ([broken(0, torch.inf)], {}, r"first 0"),
        ([random(2), broken(1, 0.0)], {}, r"no row of zeros alone, found zeros in 1 of 6 rows, first 3"),
        ([broken(2, 1e6)], {"dtype": torch.float16}, r"NaN or infinity in 1 of 6 rows, first 2"),
        ([broken(2, 1e-9)], {"dtype": torch.float16}, r"zeros in 1 of 6 rows, first 2"),
        ([random(2), random(2, 5)], {}, r"\(b, 4\), found torch.float32 \(2, 5\)"),
        ([random(2)[0]], {}, r"\(b, D\)"),
        ([torch.ones(2, 3, dtype=torch.int64)], {}, "floating point"),
        ([random(2)], {"dtype": torch.float64}, "torch.float32 or torch.float16, found torch.float64"),
        ([], {}, "expected embeddings, found none"),
        ([random(0)], {}, "expected embeddings, found none"),
        ([random(2)], {"rows": 3}, "expected 3 embeddings, found 2"),
        ([random(2), random(2)], {"rows": 3}, "expected 3 embeddings, found 4"),
    ],
)
def test_bad_batches_leave_the_old_file(
    tmp_path: Path, batches: list[torch.Tensor], options: dict[str, object], words: str
) -> None:
    path = tmp_path / "a.npy"
    old = write_features(path, [random(3, seed=9)]).clone()
    with pytest.raises(InputError, match=words):
        write_features(path, batches, **options)
    assert torch.equal(read_features(path), old)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, PermissionError])
def test_what_stops_the_batches_passes_through_and_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def batches():
        yield random(3)
        raise error

    with pytest.raises(error):
        write_features(tmp_path / "a.npy", batches())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_told_before_all_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))

    def batches():
        yield random(3)
        raise AssertionError("went on")

    with pytest.raises(InputError, match=r"a\.npy: expected 1,600 bytes of free space, found a full disk: 1,000 bytes"):
        write_features(tmp_path / "a.npy", batches(), rows=100)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_grow_is_told(tmp_path: Path) -> None:
    """The system's limit on the size of files stands for the full disk: the third write fails in the middle."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    try:
        with pytest.raises(
            InputError, match=r"a\.npy: expected 48,000 bytes of free space, found a full disk: [\d,]+ bytes"
        ):
            write_features(tmp_path / "a.npy", [random(3000)] * 3)
        with pytest.raises(InputError, match=r"expected 96,000 bytes"):  # with those still to come
            write_features(tmp_path / "a.npy", [random(3000)] * 4, rows=12_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_only_a_full_disk_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def failing(_: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(features.os, "fsync", failing)  # where network file systems tell it
    with pytest.raises(OSError if code == errno.EIO else InputError):
        write_features(tmp_path / "a.npy", [random(3)])
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_takes_a_part_goes_on(tmp_path: Path) -> None:
    class Slow(FileIO):
        def write(self, data):
            return super().write(data[:7])

    with Slow(tmp_path / "a", "w") as file:
        features._append(tmp_path, file, bytes(range(50)), 0)
    assert (tmp_path / "a").read_bytes() == bytes(range(50))


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with pytest.raises(InputError, match=r"a\.npy: expected a file of embeddings, found no file"):
        read_features(path)
    write_features(path, [random(20)])
    with pytest.raises(InputError, match=r"a\.npy, width: expected 5, found 4"):
        read_features(path, width=5)
    with pytest.raises(InputError, match=r"a\.npy, rows: expected 5, found 20"):
        read_features(path, rows=5)
    whole = path.read_bytes()
    for wrong in (b"", whole[:5], whole[:64], whole[:-1], b"PK" + whole[2:], whole[:10] + b"(" + whole[11:]):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match=r"a\.npy: expected a whole \.npy file of embeddings"):
            read_features(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(InputError, match="1 bytes more"):
        read_features(path)
    for values in (
        np.ones(3, np.float32),
        np.ones((3, 2)),
        np.asfortranarray(np.ones((3, 2), np.float32)),
        np.ones((3, 2), ">f4"),
    ):
        np.save(path, values)
        with pytest.raises(InputError, match=r"float32 or float16 \(N, D\)"):
            read_features(path)
    np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy"):
        read_features(path)
    with pytest.raises(InputError, match=r"expected a whole"):
        read_features(tmp_path)
    np.save(path, np.ones((0, 3), np.float32))
    with pytest.raises(InputError, match=r"an empty set|a whole"):
        read_features(path)


def test_shards_are_joined_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = random(11).half()
    shards = [tmp_path / f"{i}.npy" for i in range(3)]
    for shard, part in zip(shards, values.split([5, 1, 5]), strict=True):
        write_features(shard, [part], dtype=torch.float16)
    for size in (1, 17, 1 << 20):
        monkeypatch.setattr(features, "JOIN_BYTES", size)
        assert torch.equal(join_features(tmp_path / "all.npy", shards), values)
    write_features(shards[1], [random(2, 4)])
    with pytest.raises(InputError, match=r"1\.npy: expected torch.float16 of width 4.*found torch.float32"):
        join_features(tmp_path / "all.npy", shards)
    write_features(shards[1], [random(2, 5)], dtype=torch.float16)
    with pytest.raises(InputError, match=r"1\.npy: .* of width 5"):
        join_features(tmp_path / "all.npy", shards)
    np.save(shards[1], np.ones((0, 4), np.float16))
    with pytest.raises(InputError, match=r"1\.npy: .* an empty set"):
        join_features(tmp_path / "all.npy", shards)
    with pytest.raises(InputError, match="at least one shard"):
        join_features(tmp_path / "all.npy", [])
    assert torch.equal(read_features(tmp_path / "all.npy"), values)
