"""Profiles: each has its sizes, larger from one to the next; no other name is known."""

import pytest

from ucvgl.errors import InputError
from ucvgl.lab import profiles


def test_sizes_grow_from_profile_to_profile() -> None:
    tiny, laptop, paper = (profiles.projection(name, 7) for name in ("tiny", "laptop", "paper"))
    for name in ("accuracy_places", "accuracy_panorama_px", "picture_px"):
        assert getattr(tiny, name) < getattr(laptop, name) < getattr(paper, name)
    assert tiny.world.places < laptop.world.places < paper.world.places
    assert {tiny.world.seed, laptop.world.seed, paper.world.seed} == {7}


def test_unknown_profile() -> None:
    with pytest.raises(InputError, match="tiny, laptop or paper"):
        profiles.projection("huge", 0)
