"""Small cities, built once for all tests of the world."""

from collections.abc import Iterator
from functools import cache

import pytest

from ucvgl.world import rendering
from ucvgl.world.city import City, make_city
from ucvgl.world.render import Scene
from ucvgl.world.styles import STYLES


@pytest.fixture(scope="session", autouse=True)
def _cities_are_built_once() -> Iterator[None]:
    """Building is tested with the city; elsewhere it would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "make_city", cache(make_city))
        yield


@pytest.fixture(scope="session")
def cities() -> dict[str, City]:
    return {name: make_city(style, 3, size_m=224, resolution_m=0.5) for name, style in STYLES.items()}


@pytest.fixture(params=STYLES)
def city(cities, request) -> City:
    return cities[request.param]


@pytest.fixture(scope="session")
def garden(cities) -> City:
    return cities["garden"]


@pytest.fixture(scope="session")
def scene(garden) -> Scene:
    return Scene(garden)
