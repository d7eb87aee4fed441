"""The example city: its places are all there, the most varied first."""

import torch
from torch.nn import functional as F

from ucvgl.world.appearance import Condition
from ucvgl.world.example import CANDIDATES, MARGIN_M, SIZE_M, SPACING_M, example_city
from ucvgl.world.kinds import Kind
from ucvgl.world.places import street_places
from ucvgl.world.views import panoramas


def test_most_varied_place_comes_first_and_none_is_lost() -> None:
    scene, places = example_city("garden", 0, resolution_m=0.5)
    assert scene.city.size_m == SIZE_M
    plain = street_places(scene.city, SPACING_M, margin_m=MARGIN_M)
    assert sorted(zip(places.east_m, places.north_m, strict=True)) == sorted(
        zip(plain.east_m, plain.north_m, strict=True)
    )
    looked_at = places.take(slice(CANDIDATES))
    east, north = torch.from_numpy(looked_at.east_m), torch.from_numpy(looked_at.north_m)
    kind = panoramas(scene, Condition(), east, north, torch.full_like(east, 2.5), height_px=32).kind
    variety = []
    for seen in kind.flatten(1):
        share = F.one_hot(seen.long(), len(Kind)).float().mean(0)[: Kind.SKY]
        variety.append(float(-(share[share > 0] * share[share > 0].log()).sum()))
    assert variety == sorted(variety, reverse=True)
    assert variety[0] > variety[-1]
