"""Street pictures as the encoders receive them: top views or panoramas, north up, at one heading or at many.

What a picture does not say of itself is assumed (a camera height) or searched for (a heading); `pictures.check_ground`
gathers what it says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm
from tqdm.contrib.concurrent import thread_map

from ucvgl.data.decoding import decode_file, resize
from ucvgl.errors import InputError, check_number
from ucvgl.geometry import TopView, complete_panorama, photo_top_view, top_view
from ucvgl.locate.pictures import WHOLE, Ground, Picture

READ_PX = 1024  # what an encoder of 64 px needs of a picture 360 degrees wide, and more
BATCH = 32  # pictures whose views are made before they are handed on


@dataclass(frozen=True)
class StreetConfig:
    """What is made of a picture."""

    given: Literal["top view", "panorama"] = "top view"  # what the encoder reads
    size_px: tuple[int, int] = (48, 48)  # (height, width) of that; a top view is square
    span_m: float = 50.0  # ground across a top view: the candidates' span
    camera_height_m: float = 2.5  # assumed; 2.5 is a car's roof camera
    # of panoramas cut at top and bottom, how many rows below their middle the horizon is; CVUSA 20
    crop_offset_px: int = 0

    def __post_init__(self) -> None:
        if self.given == "top view" and self.size_px[0] != self.size_px[1]:
            raise InputError(
                "ground input", expected="an encoder of square images, for top views", found=f"one of {self.size_px}",
                todo="If it was trained on panoramas, say --ground-input panorama.",
            )  # fmt: skip
        check_number("camera_height_m", self.camera_height_m, unit="m", low=0)

    @property
    def top_view(self) -> TopView:
        """The projection's settings."""
        return TopView.from_span(self.size_px[0], self.span_m, self.camera_height_m)


def north_up(image: Tensor, picture: Picture, headings_deg: Tensor, config: StreetConfig) -> Tensor:
    """A picture, uint8 (3, H, W), as it looks if its centre shows each of the headings (T,), clockwise from north, north up.

    uint8 (T, 3, h, w); what a photo or a panorama of part of the sphere does not show is black.

    Raises:
        InputError: a photo for an encoder that reads panoramas; a crop that fits no panorama.
    """
    height, width = image.shape[1:]
    if picture.kind == "photo":
        if config.given == "panorama":
            raise InputError(
                "photos", expected="panoramas, which this encoder reads", found="a photo",
                todo="Use an encoder of top views, or --kind panorama if these are panoramas.",
            )  # fmt: skip
        return photo_top_view(image[None], float(picture.fov_deg or 0), config.top_view, headings_deg)
    if picture.crop is not None:  # of the whole sphere, and the heading is that of its centre
        headings_deg = headings_deg - 360 * (picture.crop.left + picture.crop.width / 2 - 0.5)
        height, width = READ_PX // 2, READ_PX
        part, image = image, torch.zeros(3, height, width, dtype=torch.uint8)
        left, top, across, down = picture.crop
        rows, columns = (
            slice(*(min(max(round(at * edge), 0), edge) for at in ends))
            for ends, edge in (((top, top + down), height), ((left, left + across), width))
        )
        image[:, rows, columns] = resize(part, image[0, rows, columns].shape)
    if config.given == "panorama":
        small = resize(image, config.size_px)
        return align_north(small.repeat(len(headings_deg), 1, 1, 1), headings_deg)
    even = width // 2 * 2
    if WHOLE[0] <= width / height <= WHOLE[1]:  # a few rows or columns off 2:1 are the stitching's, not a crop
        whole = resize(image, (even // 2, even))[None]
    else:
        offset = round(config.crop_offset_px * width / picture.width)
        whole = complete_panorama(image[None, :, :, :even], strip_offset=offset / even)
    return top_view(whole, config.top_view, heading_deg=headings_deg)


def align_north(panoramas: Tensor, heading_deg: Tensor) -> Tensor:
    """Panoramas (B, C, H, W) whose centre columns show headings (B,), rolled so that north comes there, to the nearest column."""
    width = panoramas.shape[3]
    shifts = (heading_deg / 360 * width).round().long().tolist()
    return torch.stack([panorama.roll(shift, 2) for panorama, shift in zip(panoramas, shifts, strict=True)])


def street_views(
    ground: Ground, pictures: Sequence[Picture], headings_deg: Sequence[Tensor], config: StreetConfig, *,
    progress: bool = False,
) -> Iterator[tuple[slice, Tensor]]:  # fmt: skip
    """Pictures of a folder, each at its headings (T,), the same T for all: rows, and (rows, T, 3, h, w) uint8."""
    with tqdm(total=len(pictures), desc="projecting", unit="image", disable=not progress) as bar:
        for first in range(0, len(pictures), BATCH):
            rows = range(first, min(first + BATCH, len(pictures)))
            read = thread_map(lambda i: read_picture(ground, pictures[i]), rows, disable=True)
            views = [north_up(image, pictures[i], headings_deg[i], config) for i, image in zip(rows, read, strict=True)]
            yield slice(rows.start, rows.stop), torch.stack(views)
            bar.update(len(rows))


def read_picture(ground: Ground, picture: Picture, longest_px: int = READ_PX) -> Tensor:
    """A picture (3, H, W) uint8, its longer edge no more than that: sampled at full size it would alias."""
    shrink = min(1.0, longest_px / max(picture.width, picture.height))
    size = tuple(max(1, round(edge * shrink)) for edge in (picture.height, picture.width))
    return decode_file(f"{ground.root}/{picture.file}", size)
