"""The container: image sets, positives, parts of a data set, and the refusal of what does not fit together."""

import dataset_trees as trees
import numpy as np
import pytest
import torch

from ucvgl.data import ArrayImages, Dataset, Positives
from ucvgl.data.container import joined
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Positions


def test_positives_are_flat_and_read_like_lists():
    rows = Positives.of([[3, 1], None, [], np.array([2])])
    assert [None if row is None else row.tolist() for row in rows] == [[3, 1], None, [], [2]]
    assert rows.best().tolist() == [3, -1, -1, 2]
    assert rows.pairs().tolist() == [[0, 3], [0, 1], [3, 2]]
    assert trees.same(rows.take(np.array([3, 1])), Positives.of([[2], None]))
    assert trees.same(rows.renumbered(np.array([-1, 1, -1, 0])), Positives.of([[0, 1], None, [], []]))
    assert rows.padded().tolist() == [[3, 1], [-1, -1], [-1, -1], [2, -1]]
    assert Positives.unknown(3)[2] is None
    assert Positives.one_each([5, 5])[1].tolist() == [5]
    with pytest.raises(ValueError, match="read-only"):
        rows.indices[0] = 9


def test_unlabelled_means_unlabelled_and_is_said_before_anything_runs():
    data, _ = trees.vigor_city(1)
    hidden = data.without_labels()
    assert all(hidden.positives[i] is None for i in range(5))
    assert hidden.semi_positives is None
    assert "hidden" in hidden.note
    assert hidden.digest() != data.digest()
    data.require_labels("supervised training")
    with pytest.raises(InputError, match=r"no pairs\. supervised training needs them"):
        hidden.require_labels("supervised training")


def test_parts_of_queries_and_of_the_gallery():
    data, _ = trees.vigor_city(1)
    part = data.take([4, 0])
    assert part.query.ids == (data.query.ids[4], data.query.ids[0])
    assert len(part.gallery) == 8
    assert part.positives[0].tolist() == data.positives[4].tolist()
    assert part.query.positions.values[0].tolist() == data.query.positions.values[4].tolist()
    fewer = data.take(range(5), [6, 5, 0])  # positives are tiles 0, 0, 1, 5, 6
    assert [row.tolist() for row in fewer.positives] == [[2], [2], [], [1], [0]]
    assert fewer.gallery.ids == tuple(data.gallery.ids[i] for i in (6, 5, 0))
    assert fewer.semi_positives[4].tolist() == [2]  # of tiles 7, 0 and 1, tile 0 is left


def street(name, along, value):
    """Photos of one grey along a street, a query 4 m behind each of the gallery's, all to the north."""
    pixels, ids = torch.full((len(along), 3, 2, 2), value, dtype=torch.uint8), [str(i) for i in range(len(along))]
    query, gallery = (
        Positions([(at + behind, 0) for at in along], Metres("street"), heading_deg=np.zeros(len(along)))
        for behind in (4, 0)
    )
    sides = ArrayImages(ids, pixels, query, f"{name}0"), ArrayImages(ids, pixels, gallery, f"{name}1")
    return Dataset(name, "all", *sides, Positives.within(query, gallery, 25.0))


def test_queries_without_an_answer_are_left_out_and_counted():
    data = street("a", [0, 20, 500], 1).take(range(3), [0, 1])
    assert (len(data), len(data.answerable())) == (3, 2)
    assert "1 of 3 queries have no positive" in data.answerable().note
    with pytest.raises(InputError, match="a query with a right gallery image"):
        data.take([2]).answerable()


def test_joined_sets_are_looked_up_in_each_others_galleries():
    both = joined([street("a", [0, 500], 1), street("b", [10], 2)], "both", 25.0)
    assert (len(both), len(both.gallery)) == (3, 3)
    assert both.positives[0].tolist() == [0, 2]  # the first set's own at 4 m, the second's at 6 m
    assert both.query[2:].unique().tolist() == [2]
