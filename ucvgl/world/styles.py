"""City styles: what kind of place is built. Trained on one and tested on another, they make cross-area splits."""

from dataclasses import dataclass

from ucvgl.errors import one_of

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class CityStyle:
    """The numbers a city is built from; lengths in metres, shares in [0, 1], colours as sRGB albedo in 0..255."""

    name: str
    block_m: tuple[float, float]  # distance between parallel streets: shortest, longest
    bend_m: float  # how far streets swerve from straight lines
    bend_cell_m: float  # over what distance they do
    minor_street_m: float  # width of the carriageway
    main_street_m: float
    main_share: float  # of the streets that are main streets
    canal_share: float  # of the streets that have water in the middle
    missing_share: float  # of the street segments left out, so that blocks merge
    pavement_m: float
    lot_m: float  # frontage of a lot
    setback_m: tuple[float, float]  # from pavement to facade
    building_depth_m: tuple[float, float]
    building_width: tuple[float, float]  # share of the frontage
    floors: tuple[int, int]
    pitched_share: float  # of the buildings, with gabled or hipped roofs
    wing_share: float  # of the buildings, with a lower wing behind
    green_share: float  # of the lots, with a lawn rather than paving
    park_share: float  # of the blocks
    parking_share: float  # of the lots
    vacant_share: float  # of the lots: garden, no building
    hedge_share: float  # of the lots
    garden_trees: float  # share of tree sites taken on lawns
    street_trees: float  # share of tree sites taken along pavements
    conifer_share: float  # of the trees
    parked_cars: float  # share of kerb slots that ever hold a car
    lane_lines: float  # share of streets with a marked centre line
    walls: tuple[Colour, ...]
    roofs_pitched: tuple[Colour, ...]
    roofs_flat: tuple[Colour, ...]
    asphalt: Colour
    pavement: Colour
    lawn: Colour


GARDEN = CityStyle(
    name="garden", block_m=(62, 105), bend_m=24, bend_cell_m=150, minor_street_m=8.0, main_street_m=11.5, main_share=0.25,
    canal_share=0.0, missing_share=0.16, pavement_m=2.0, lot_m=19, setback_m=(4.5, 8.5), building_depth_m=(8, 13),
    building_width=(0.48, 0.78), floors=(1, 2), pitched_share=0.94, wing_share=0.45, green_share=0.92, park_share=0.07,
    parking_share=0.02, vacant_share=0.06, hedge_share=0.5, garden_trees=0.34, street_trees=0.20, conifer_share=0.25,
    parked_cars=0.30, lane_lines=0.35,
    walls=((222, 212, 196), (196, 176, 150), (170, 92, 70), (205, 205, 200), (150, 158, 160), (226, 206, 160)),
    roofs_pitched=((96, 88, 84), (120, 100, 86), (128, 72, 58), (76, 78, 84), (104, 110, 104)),
    roofs_flat=((150, 148, 142), (118, 116, 112)),
    asphalt=(98, 97, 96), pavement=(176, 172, 162), lawn=(92, 122, 58),
)  # fmt: skip

OLD_TOWN = CityStyle(
    name="old_town", block_m=(44, 84), bend_m=30, bend_cell_m=120, minor_street_m=6.0, main_street_m=9.5, main_share=0.2,
    canal_share=0.0, missing_share=0.12, pavement_m=1.6, lot_m=11, setback_m=(0.0, 0.4), building_depth_m=(9, 14),
    building_width=(1.0, 1.0), floors=(2, 4), pitched_share=0.86, wing_share=0.5, green_share=0.5, park_share=0.08,
    parking_share=0.02, vacant_share=0.07, hedge_share=0.15, garden_trees=0.30, street_trees=0.10, conifer_share=0.08,
    parked_cars=0.45, lane_lines=0.12,
    walls=((214, 178, 126), (226, 200, 150), (190, 138, 108), (206, 190, 172), (168, 106, 82), (220, 214, 198)),
    roofs_pitched=((164, 84, 58), (148, 74, 54), (178, 102, 72), (120, 84, 72)),
    roofs_flat=((160, 150, 138), (128, 120, 112)),
    asphalt=(112, 108, 104), pavement=(160, 150, 138), lawn=(98, 120, 62),
)  # fmt: skip

DOWNTOWN = CityStyle(
    name="downtown", block_m=(70, 120), bend_m=5, bend_cell_m=260, minor_street_m=11.0, main_street_m=18.0,
    main_share=0.4, canal_share=0.0, missing_share=0.10, pavement_m=3.6, lot_m=27, setback_m=(0.0, 3.0),
    building_depth_m=(17, 27), building_width=(0.7, 1.0), floors=(3, 11), pitched_share=0.07, wing_share=0.35,
    green_share=0.22, park_share=0.09, parking_share=0.15, vacant_share=0.05, hedge_share=0.05, garden_trees=0.35,
    street_trees=0.30, conifer_share=0.05, parked_cars=0.40, lane_lines=0.95,
    walls=((168, 160, 150), (128, 136, 148), (186, 176, 160), (142, 92, 76), (204, 204, 204), (104, 112, 122)),
    roofs_pitched=((110, 100, 94), (140, 90, 74)),
    roofs_flat=((178, 176, 170), (142, 140, 136), (110, 108, 106), (198, 196, 190), (128, 112, 98)),
    asphalt=(86, 86, 88), pavement=(184, 182, 176), lawn=(88, 118, 60),
)  # fmt: skip

CANAL = CityStyle(
    name="canal", block_m=(52, 92), bend_m=14, bend_cell_m=200, minor_street_m=7.0, main_street_m=11.0, main_share=0.2,
    canal_share=0.34, missing_share=0.10, pavement_m=1.8, lot_m=9, setback_m=(0.0, 0.8), building_depth_m=(9, 13),
    building_width=(1.0, 1.0), floors=(2, 4), pitched_share=0.62, wing_share=0.4, green_share=0.62, park_share=0.06,
    parking_share=0.02, vacant_share=0.05, hedge_share=0.2, garden_trees=0.30, street_trees=0.36, conifer_share=0.03,
    parked_cars=0.5, lane_lines=0.2,
    walls=((140, 72, 56), (118, 66, 54), (164, 96, 72), (214, 206, 192), (92, 72, 66), (180, 150, 118)),
    roofs_pitched=((92, 84, 84), (140, 76, 60), (104, 90, 84), (72, 72, 78)),
    roofs_flat=((140, 136, 130), (104, 102, 100)),
    asphalt=(120, 112, 106), pavement=(158, 138, 124), lawn=(86, 122, 58),
)  # fmt: skip

STYLES = {style.name: style for style in (GARDEN, OLD_TOWN, DOWNTOWN, CANAL)}


def style_named(name: str) -> CityStyle:
    """The style of that name; InputError lists the known ones."""
    one_of("city style", name, STYLES, "Pick one.")
    return STYLES[name]
