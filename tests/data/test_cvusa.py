"""CVUSA: written and read back; the official lists' quirks."""

import dataset_trees as trees
import pytest

from ucvgl.data import open_dataset


@pytest.mark.parametrize("columns", [2, 3])
def test_round_trip(columns, tmp_path):
    """The official lists name an annotation in a third column."""
    splits, root = trees.cvusa(tmp_path / "set")
    for path in (root / "splits").iterdir():
        path.write_text("".join(",".join(row.split(",")[:columns]) + "\n" for row in path.read_text().split()))
    start = 0
    for split, written in splits.items():
        read = open_dataset("cvusa", root, split)
        assert read.query.ids == tuple(f"{start + i + 1:07d}" for i in range(len(written)))
        assert trees.same(read.positives, written.positives)
        for side in ("query", "gallery"):
            assert trees.same(getattr(read, side).positions, getattr(written, side).positions)
            assert trees.same_pictures(getattr(read, side), getattr(written, side))
        start += len(written)


def test_list_quirks(tmp_path):
    """No final newline, Windows line ends, a byte-order mark, other folders, empty cells, no positions file."""
    _, root = trees.cvusa(tmp_path / "set")
    path = root / "splits" / "val-19zl.csv"
    text = path.read_text()
    plain = open_dataset("cvusa", root, "val")
    for changed in (text.rstrip("\n"), text.replace("\n", "\r\n"), "\ufeff" + text, text + "\n\n"):
        path.write_bytes(changed.encode())
        assert open_dataset("cvusa", root, "val").digest() == plain.digest()
    (root / "bingmap" / "19").rename(root / "tiles")
    path.write_text(text.replace("bingmap/19/", "tiles/"))
    assert open_dataset("cvusa", root, "val").gallery.ids == plain.gallery.ids
    places = root / "split_locations" / "all.csv"
    rows = places.read_text().split("\n")
    places.write_text("\n".join([*rows[:7], ",,,,", "", *rows[9:]]))
    assert open_dataset("cvusa", root, "val").query.positions.known.tolist() == [True, False, False, True]
    places.unlink()
    assert open_dataset("cvusa", root, "val").query.positions is None
