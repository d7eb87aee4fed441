"""Street pictures as the encoders receive them: top views or panoramas, north up, at one heading or at many."""

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
from ucvgl.locate.pictures import WHOLE, Crop, Ground, Picture

READ_PX = 1024  # what an encoder of 64 px needs of a picture 360 degrees wide, and more
BATCH = 32  # pictures whose views are made before they are handed on


@dataclass(frozen=True)
class StreetConfig:
    """What is made of a picture."""

    given: Literal["top view", "panorama"] = "top view"  # what the encoder reads
    size_px: tuple[int, int] = (48, 48)  # (height, width) of that; a top view is square
    span_m: float = 50.0  # ground across a top view: the candidates' span
    camera_height_m: float = 2.5  # assumed; 2.5 is a car's roof camera
    crop_offset_px: int = 0  # of panoramas cut at top and bottom: rows from their middle down to the horizon; CVUSA 20

    def __post_init__(self) -> None:
        if self.given == "top view" and self.size_px[0] != self.size_px[1]:
            raise InputError("ground input", expected="an encoder of square images, for top views", found=self.size_px,
                             todo="If it was trained on panoramas, say --ground-input panorama.")  # fmt: skip
        check_number("camera_height_m", self.camera_height_m, unit="m", low=0)

    @property
    def top_view(self) -> TopView:
        """The projection's settings."""
        return TopView.from_span(self.size_px[0], self.span_m, self.camera_height_m)


def north_up(image: Tensor, picture: Picture, headings_deg: Tensor, config: StreetConfig) -> Tensor:
    """A picture, uint8 (3, H, W), north up, if its centre shows each of the headings (T,), clockwise from north.

    uint8 (T, 3, h, w), black where it shows nothing. InputError: a photo, where panoramas are read; an impossible crop.
    """
    if picture.kind == "photo":
        if config.given == "panorama":
            raise InputError("photos", expected="panoramas, which this encoder reads", found="a photo",
                             todo="Use an encoder of top views, or say --kind panorama if they are.")  # fmt: skip
        return photo_top_view(image[None], float(picture.fov_deg or 0), config.top_view, headings_deg)
    if picture.crop is not None:  # of the whole sphere, and the heading is that of its centre
        headings_deg = headings_deg - 360 * (picture.crop.left + picture.crop.width / 2 - 0.5)
        image = _in_sphere(image, picture.crop)
    if config.given == "panorama":
        small = resize(image, config.size_px)
        shifts = (headings_deg / 360 * config.size_px[1]).round().long()  # to the nearest column
        return torch.stack([small.roll(shift, 2) for shift in shifts.tolist()])
    height, width = image.shape[1:]
    even = width // 2 * 2
    if WHOLE[0] <= width / height <= WHOLE[1]:  # a few rows or columns off 2:1 are the stitching's, not a crop
        whole = resize(image, (even // 2, even))[None]
    else:
        offset = round(config.crop_offset_px * width / picture.width)
        whole = complete_panorama(image[None, :, :, :even], strip_offset=offset / even)
    return top_view(whole, config.top_view, heading_deg=headings_deg)


def _in_sphere(part: Tensor, crop: Crop) -> Tensor:
    """A part of the sphere, uint8 (3, H, W), in its place in the whole, which is black elsewhere: (3, 512, 1024)."""
    height, width = READ_PX // 2, READ_PX
    whole = torch.zeros(3, height, width, dtype=torch.uint8)
    rows = slice(max(0, round(crop.top * height)), round((crop.top + crop.height) * height))
    columns = slice(max(0, round(crop.left * width)), round((crop.left + crop.width) * width))
    whole[:, rows, columns] = resize(part, whole[0, rows, columns].shape)
    return whole


def street_views(
    ground: Ground, pictures: Sequence[Picture], headings_deg: Sequence[Tensor], config: StreetConfig
) -> Iterator[Tensor]:
    """Pictures of a folder, each at its headings (T,), the same T for all: some at a time, (rows, T, 3, h, w) uint8."""
    with tqdm(total=len(pictures), desc="projecting", unit="image", disable=None) as bar:
        for first in range(0, len(pictures), BATCH):
            some = pictures[first : first + BATCH]
            read = thread_map(lambda picture: read_picture(ground, picture), some, disable=True)
            turns = headings_deg[first : first + BATCH]
            yield torch.stack([north_up(*one, config) for one in zip(read, some, turns, strict=True)])
            bar.update(len(some))


def read_picture(ground: Ground, picture: Picture, longest_px: int = READ_PX) -> Tensor:
    """A picture (3, H, W) uint8, its longer edge no more than that: sampled at full size it would alias."""
    shrink = min(1.0, longest_px / max(picture.width, picture.height))
    size = tuple(max(1, round(edge * shrink)) for edge in (picture.height, picture.width))
    return decode_file(f"{ground.root}/{picture.file}", size)
