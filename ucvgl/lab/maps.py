"""What was retrieved, whether it is right, and where it lies on the map; for the pictures of notebooks 03 and 04 alone."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ucvgl.data.container import Dataset, Positives
from ucvgl.lab.settings import WORLD
from ucvgl.methods.ucvgl import Descriptors, neighbours
from ucvgl.positions import Metres
from ucvgl.pseudo_labels import PseudoLabels, margins, mutual
from ucvgl.search import BothWays
from ucvgl.world.rendering import CITY_GAP_M


@dataclass(frozen=True, eq=False)
class Retrieved:
    """The nearest tiles of N ground images and what is known of them."""

    both: BothWays  # the nearest of each, both ways
    margin: Tensor  # (N,) first minus second similarity
    mutual: Tensor  # (N,) bool, the first tile's nearest is this ground image
    right: Tensor  # (N, k) bool, which of the nearest tiles are right; for the eye


def retrieved(found: Descriptors, positives: Positives) -> Retrieved:
    """Neighbours, margins and what is right of them."""
    both = neighbours(found)
    right = [
        np.isin(row, known if (known := positives[i]) is not None else [])
        for i, row in enumerate(both.ground_index.numpy())
    ]
    return Retrieved(both, margins(both), mutual(both), torch.from_numpy(np.stack(right)))


def places(data: Dataset, labels: PseudoLabels) -> dict[str, object] | None:
    """Arguments of `retrieval_figures.match_map`: where each ground image is, where its label puts it, whether that is right.

    None where the data set has no positions in metres. The world's cities lie 10 km apart: each gets a map of its own.
    """
    at, tiles = data.query.positions, data.gallery.positions
    if at is None or tiles is None or not (isinstance(at.frame, Metres) and isinstance(tiles.frame, Metres)):
        return None
    some = labels.satellite >= 0
    here, to = torch.from_numpy(np.array(at.values)), torch.full((len(at), 2), torch.nan, dtype=torch.float64)
    to[some] = torch.from_numpy(np.array(tiles.values))[labels.satellite[some]]
    status = torch.where(some, (labels.satellite == data.positives.best()).long(), -1)
    if data.name != WORLD:
        corner = here.amin(0)
        return {"position": here - corner, "matched_position": to - corner, "status": status, "city": None}
    number = (here[:, 0] // CITY_GAP_M).long()
    elsewhere = some & ((to[:, 0] // CITY_GAP_M).nan_to_num().long() != number)
    to[elsewhere] = torch.nan  # its line would leave the map
    corner = torch.stack([number * CITY_GAP_M, torch.zeros(len(number))], -1).double()
    city = [f"city {n + 1}" for n in number.tolist()] if len(number.unique()) > 1 else None
    return {"position": here - corner, "matched_position": to - corner, "status": status, "city": city}
