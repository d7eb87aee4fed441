"""What each profile makes of a notebook: sizes and budgets, side by side, so that two profiles can be compared line by line."""

from dataclasses import dataclass

from ucvgl.errors import InputError
from ucvgl.world.pairs import WorldConfig


@dataclass(frozen=True)
class Projection:
    """Sizes of notebook 01."""

    world: WorldConfig  # the gallery of the difficulty table; its difficulty is replaced by each level in turn
    accuracy_places: int  # over which the projection's error is measured
    accuracy_panorama_px: int  # height of the panoramas there
    picture_px: int  # height of the panoramas and side of the tiles that are drawn
    camera_height_m: float = 2.5  # what the projection assumes: the middle of every level


def projection(profile: str, seed: int) -> Projection:
    """Notebook 01's sizes; InputError for an unknown profile."""
    match profile:
        case "tiny":
            world = WorldConfig(("garden",), seed, 40, panorama_px=64, tile_px=32, city_size_m=256, resolution_m=0.5)
            return Projection(world, accuracy_places=8, accuracy_panorama_px=128, picture_px=128)
        case "laptop":
            world = WorldConfig(("garden", "canal"), seed, 1000, panorama_px=128, tile_px=64)
            return Projection(world, accuracy_places=64, accuracy_panorama_px=256, picture_px=256)
        case "paper":
            world = WorldConfig(("garden", "canal"), seed, 2000, panorama_px=512, tile_px=384, city_size_m=1500)
            return Projection(world, accuracy_places=256, accuracy_panorama_px=512, picture_px=512)
    raise InputError("profile", expected="tiny, laptop or paper", found=repr(profile), todo="Choose one.")
