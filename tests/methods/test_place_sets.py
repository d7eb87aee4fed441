"""Places: photos, positions in metres, and hits against brute force; from drives, from files, from numbered frames."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from ucvgl.methods.places import (
    Places,
    corridor_places,
    in_metres,
    joined,
    open_places,
    prepare_places,
    within,
    world_places,
)

from ucvgl import paths
from ucvgl.data import ArrayImages, Positives, Views
from ucvgl.data.write import write_vpr
from ucvgl.errors import InputError
from ucvgl.methods import images as prepared
from ucvgl.positions import Metres, Positions, Wgs84, from_metres
from ucvgl.world.drives import DriveConfig, render_drives

GRID = Metres("a grid")
WORLD_CONFIG = DriveConfig(
    "hand_held", ("garden",), places=12, spacing_m=9.0, photo_px=(6, 8), city_size_m=200, resolution_m=1.0
)


@pytest.fixture(autouse=True)
def _runs(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path / "runs"))


def metres(*rows, frame=GRID):
    return Positions(np.array(rows, float).reshape(-1, 2), frame)


def brute_force(query, database, radius_m=25.0):
    """For each query the rows within reach, nearest first, by a full table of distances."""
    away = np.hypot(*(query.values[:, None] - database.values[None]).transpose(2, 0, 1))
    return [[j for j in np.argsort(row, kind="stable") if row[j] <= radius_m] for row in away]


def rows_of(positives):
    return [positives[i].tolist() for i in range(len(positives))]


def images(count, positions, prefix, seed=0, size=(8, 10)):
    array = np.random.default_rng(seed).integers(0, 256, (count, 3, *size), np.uint8)
    return ArrayImages([f"{prefix}{i}" for i in range(count)], array, positions)


def utm_views(east_q=(0.0, 20.0, 500.0), east_d=(0.0, 24.0, 60.0), size=(8, 10)):
    """Photos along a line, in UTM; the third query is far from everything."""
    query = metres(*[(690_000 + e, 6_090_000) for e in east_q])
    database = metres(*[(690_000 + e, 6_090_000) for e in east_d])
    return Views(
        "vpr", "test", images(len(query), query, "q", 0, size), images(len(database), database, "d", 1, size),
        within(query, database),
    )  # fmt: skip


# hits


def test_hits_by_hand():
    query = metres((0, 0), (100, 0), (0, 25.001))
    database = metres((0, 25), (3, 4), (-25.001, 0), (0, 0), (90, 10))
    assert rows_of(within(query, database)) == [[3, 1, 0], [4], [0, 1]]
    assert rows_of(within(query, database, 10.0)) == [[3, 1], [], [0]]


@given(
    st.lists(st.tuples(st.integers(-60, 60), st.integers(-60, 60)), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(-60, 60), st.integers(-60, 60)), min_size=1, max_size=12),
    st.sampled_from([0.0, 10.0, 25.0, 300.0]),
)
def test_hits_against_a_full_table(asked, searched, radius_m):
    query, database = metres(*asked), metres(*searched)
    assert rows_of(within(query, database, radius_m)) == brute_force(query, database, radius_m)


def test_degrees_become_metres():
    """One city in degrees and in metres has the same hits, and distances agree to a millimetre."""
    rng = np.random.default_rng(3)
    query, database = (metres(*rng.uniform(-300, 300, (count, 2))) for count in (30, 40))
    degrees = [Positions(from_metres(p.values, (60.17, 24.94)), Wgs84()) for p in (query, database)]
    assert rows_of(within(*degrees)) == brute_force(query, database)
    here, there = in_metres(*degrees)
    assert here.frame == there.frame
    assert isinstance(here.frame, Metres)
    before, after = (
        np.hypot(*(a.values[:, None] - b.values[None]).transpose(2, 0, 1))
        for a, b in ((query, database), (here, there))
    )
    np.testing.assert_allclose(after, before, atol=1e-3)


def test_metres_stay_as_they_are():
    query, database = metres((1, 2)), metres((3, 4))
    assert in_metres(query, database) == (query, database)


def test_bare_numbers_are_refused():
    """They could be degrees: 25 would be most of a continent."""
    bare = np.array([[60.17, 24.94]])
    with pytest.raises(InputError, match=r"degrees or metres, found ndarray.*Wgs84"):
        within(bare, bare)
    with pytest.raises(InputError, match="ndarray"):
        within(metres((0, 0)), bare)


def test_degrees_are_not_mixed_with_metres_nor_metres_of_two_frames():
    degrees = Positions(np.array([[60.17, 24.94]]), Wgs84())
    for other in (degrees, metres((0, 0), frame=Metres("another grid"))):
        with pytest.raises(InputError, match=r"frame.*to_metres"):
            within(metres((0, 0)), other)


def test_unknown_degrees_are_an_error():
    nowhere = Positions(np.full((2, 2), np.nan), Wgs84())
    with pytest.raises(InputError, match="known positions"):
        within(nowhere, nowhere)


def test_an_unknown_query_has_no_hit():
    query = metres((0, 0), (np.nan, np.nan))
    assert rows_of(within(query, metres((0, 1)))) == [[0], []]


# the world


def test_the_world_as_places():
    places = world_places(WORLD_CONFIG, progress=False)
    drives = render_drives(WORLD_CONFIG, progress=False)
    assert len(places) == 12
    assert places.name == "world-hand_held"
    assert places.left_out == 0
    assert torch.equal(places.query, torch.from_numpy(np.array(drives.query)))
    assert torch.equal(places.database, torch.from_numpy(np.array(drives.database)))
    np.testing.assert_array_equal(places.query_positions.values, drives.query_m)
    np.testing.assert_array_equal(places.database_positions.values, drives.database_m)
    found = rows_of(places.positives)
    assert [set(row) for row in found] == [
        set(row) for row in brute_force(places.query_positions, places.database_positions)
    ]
    for i, row in enumerate(found):
        away = np.hypot(*(places.database_positions.values[row] - places.query_positions.values[i]).T)
        assert (np.diff(away) >= 0).all()  # nearest first
        assert set(np.flatnonzero(drives.database_stop == i)) <= set(row)  # its own stop, in all four directions


def test_the_world_is_named_by_what_it_holds():
    names = {world_places(WORLD_CONFIG, progress=False).data_id for _ in range(2)}
    names.add(world_places(replace(WORLD_CONFIG, nuisance=0.5), progress=False).data_id)
    assert len(names) == 2


# files


def test_files_are_read_resized_once_and_named(tmp_path, monkeypatch):
    given = utm_views()
    root = write_vpr({"test": given}, tmp_path / "set")
    places = open_places(root, (4, 5), progress=False)
    assert places.query.shape == (2, 3, 4, 5)
    assert places.database.shape == (3, 3, 4, 5)
    assert (len(places), places.left_out) == (2, 1)
    assert rows_of(places.positives) == [[0, 1], [1, 0]]
    np.testing.assert_allclose(places.query_positions.values[:, 0], [690_000, 690_020])
    assert places.note == "A hit is within 25 m (UTM). 1 of 3 queries have no positive and are left out."
    assert places.name == "vpr"
    fine = open_places(root, (8, 10), progress=False)
    # names sort by easting, as the photos were given
    for side, at_full in ((given.ground, fine.query), (given.satellite, fine.database)):
        for i, photo in enumerate(at_full):
            assert (photo.float() - side.read(i).float()).abs().mean() < 40  # JPEG of noise
            others = [j for j in range(len(side)) if j != i]
            assert all(
                (photo.float() - side.read(i).float()).abs().mean()
                < (photo.float() - side.read(j).float()).abs().mean()
                for j in others
            )
    assert fine.data_id != places.data_id

    def forbidden(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(prepared, "_batches", forbidden)
    again = open_places(root, (4, 5), progress=False)
    assert torch.equal(again.query, places.query)
    assert again.data_id == places.data_id


def test_degrees_in_file_names_are_refused(tmp_path):
    for folder in ("queries", "database"):
        path = tmp_path / "images" / "test" / folder
        path.mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(path / "@40.44@-79.99@@@@@@@@@@@@@.jpg")
    with pytest.raises(InputError, match="look like degrees"):
        open_places(tmp_path, (6, 8), progress=False)


def test_nordland_counts_frames(tmp_path):
    frames = np.arange(30)
    line = metres(*[(0, f * 25 / 10.5) for f in frames])
    sides = [
        ArrayImages([f"{prefix}{f:03d}" for f in frames], np.zeros((30, 3, 4, 4), np.uint8), line) for prefix in "qd"
    ]
    views = Views("nordland", "test", *sides, Positives.one_each(frames))
    root = write_vpr({"test": views}, tmp_path / "set")
    for path in root.rglob("@*.jpg"):
        frame = int(path.name.split("@")[7][1:])
        path.rename(path.with_name(f"@0@{frame * 25 / 10.5:07.1f}@@@@@{frame}@@@@@@@@.jpg"))
    places = open_places(root, (4, 4), name="nordland", frames=2, progress=False)
    assert [sorted(row) for row in rows_of(places.positives)] == [
        [j for j in frames if abs(i - j) <= 2] for i in frames
    ]
    assert [row[0] for row in rows_of(places.positives)] == frames.tolist()
    assert "at most 2 frames" in places.note
    ten = open_places(root, (4, 4), name="nordland", progress=False)
    assert len(ten.positives[15]) == 21
    assert ten.data_id != places.data_id


def test_only_place_recognition_is_opened(tmp_path):
    with pytest.raises(InputError, match=r"name: expected one of pitts30k.*'cvusa'"):
        open_places(tmp_path, name="cvusa")


def numbered(folder, numbers):
    folder.mkdir(parents=True)
    for number in numbers:
        Image.new("RGB", (8, 6), (number % 256, 0, 0)).save(folder / f"{number:07d}.png")


def test_corridor_counts_frames_by_file_name(tmp_path):
    numbered(tmp_path / "query", [0, 1, 2, 3, 9])
    numbered(tmp_path / "ref", [1, 2, 3, 4])
    places = corridor_places(tmp_path, (6, 8), progress=False)
    assert rows_of(places.positives) == [[0, 1], [0, 1, 2], [1, 0, 2, 3], [2, 1, 3, 0]]
    assert places.left_out == 1
    assert places.query[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert places.database[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert "frames" in places.query_positions.frame.origin
    assert rows_of(corridor_places(tmp_path, (6, 8), frames=0, progress=False).positives) == [[0], [1], [2]]


def test_a_frame_without_a_number_is_named(tmp_path):
    numbered(tmp_path / "query", [0])
    numbered(tmp_path / "ref", [0])
    (tmp_path / "query" / "0000000.png").rename(tmp_path / "query" / "door.png")
    with pytest.raises(InputError, match=r"door\.png.*number"):
        corridor_places(tmp_path, progress=False)


def test_the_real_corridor():
    root = paths.samples() / "corridor"
    if not root.exists():
        pytest.skip(f"no sample data: {root} is absent (set UCVGL_SAMPLES)")
    places = corridor_places(root, progress=False)
    assert places.query.shape == places.database.shape == (111, 3, 120, 160)
    assert [sorted(row) for row in rows_of(places.positives)] == [
        [j for j in range(111) if abs(i - j) <= 2] for i in range(111)
    ]
    assert (places.query.float() - places.database.float()).abs().mean() > 1  # two walks


# any views


def test_degrees_of_a_data_set_become_metres():
    given = utm_views()
    degrees = [
        replace(side, positions=Positions(from_metres(side.positions.values - [690_000, 6_090_000], (55, 12)), Wgs84()))
        for side in (given.ground, given.satellite)
    ]
    places = prepare_places(replace(given, ground=degrees[0], satellite=degrees[1]), (8, 10), progress=False)
    assert places.query_positions.frame == places.database_positions.frame
    assert isinstance(places.query_positions.frame, Metres)
    away = places.query_positions.values[1] - places.database_positions.values[1]
    assert np.hypot(*away) == pytest.approx(4.0, abs=1e-3)


def test_photos_do_not_depend_on_what_counts_as_a_hit():
    given = utm_views((0.0, 20.0), (0.0, 24.0))
    places = prepare_places(given, (8, 10), progress=False)
    other = prepare_places(replace(given, positives=Positives.one_each([1, 0])), (8, 10), progress=False)
    assert places.data_id != other.data_id
    assert len(list(paths.runs().glob("plain-images-*"))) == 1


def test_no_positions_no_places():
    given = utm_views((0.0, 20.0), (0.0, 24.0))
    with pytest.raises(InputError, match="a position a photo"):
        prepare_places(replace(given, ground=replace(given.ground, positions=None)), (8, 10), progress=False)


def test_no_answerable_query():
    given = utm_views((500.0,), (0.0,))
    with pytest.raises(InputError, match="within reach, found none"):
        prepare_places(given, (8, 10), progress=False)


@pytest.mark.parametrize("size", [(0, 8), (8, -1), (8,)])
def test_sizes_are_positive(size):
    with pytest.raises(InputError, match="size_px"):
        prepare_places(utm_views(), size, progress=False)


def test_a_damaged_array_is_named(tmp_path):
    given = utm_views()
    prepare_places(given, (8, 10), progress=False)
    (folder,) = (tmp_path / "runs").glob("plain-images-*")
    (folder / "ground.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"ground\.npy.*Delete"):
        prepare_places(given, (8, 10), progress=False)


def whole(**changes):
    photos = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    positions = metres((0, 0), (50, 0))
    return Places(
        **{
            "database": photos, "query": photos, "database_positions": positions, "query_positions": positions,
            "positives": Positives.one_each([0, 1]), "name": "toy", "data_id": "toy", **changes,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"query": torch.zeros(3, 3, 4, 4, dtype=torch.uint8)}, r"expected \(2, 2, 3\).*found \(2, 3, 2\)"),
        ({"query_positions": metres((0, 0))}, "Give a position"),
        ({"query": torch.zeros(2, 3, 4, 5, dtype=torch.uint8)}, r"found \(3, 4, 5\)"),
        ({"positives": Positives.of([[0], []])}, "query 1: expected a positive"),
        ({"positives": Positives.of([None, [1]])}, "query 0: expected a positive"),
        ({"query_positions": np.zeros((2, 2))}, "found ndarray"),
        ({"database_positions": np.zeros((2, 2))}, "found ndarray"),
        ({"query_positions": Positions(np.zeros((2, 2)), Wgs84())}, "in metres"),
        ({"query_positions": metres((0, 0), (1, 1), frame=Metres("other"))}, "one frame"),
    ],
)
def test_places_that_contradict_themselves(changes, named):
    assert len(whole()) == 2
    with pytest.raises(InputError, match=named):
        whole(**changes)


def test_joined_sets_ask_each_others_databases():
    one, two = (prepare_places(utm_views((east,), (0.0, 20.0)), (8, 10), progress=False) for east in (0.0, 20.0))
    both = joined([one, two], "both")
    assert (len(both), len(both.database)) == (2, 4)
    assert sorted(both.positives[0].tolist()) == [0, 1, 2, 3]
    assert torch.equal(both.query[1], two.query[0])
    assert both.data_id != joined([two, one], "both").data_id


def test_joined_sets_are_alike():
    one = prepare_places(utm_views(), (8, 10), progress=False)
    other = prepare_places(utm_views(), (8, 12), progress=False)
    with pytest.raises(InputError, match="photos of one size"):
        joined([one, other], "both")
    with pytest.raises(InputError, match="one set of places"):
        joined([], "none")
