"""Writers: a data set in memory into the published layouts, so that the readers here and the official code bases read
it.

Each writer takes `Dataset` (any image sets) and a folder that is absent or empty. Beside the layout it leaves
`ucvgl-export.json` with the counts and image sizes, so that `data check` compares an export with itself and not with
the published counts. Images are written at the size they have; JPEG loses a little, PNG nothing.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from ucvgl.data.container import Dataset, ImageSet
from ucvgl.data.files import MARKER
from ucvgl.data.vigor import CROSS
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Positions, Wgs84, to_utm

JPEG_QUALITY = 95


def write_cvusa(splits: Mapping[str, Dataset], root: Path | str, columns: int = 3, ending: str = "jpg") -> Path:
    """CVUSA: {"train": ..., "val": ...}, pairs numbered through; tile and panorama of the best positive.

    Args:
        splits: which Dataset is which split.
        root: an absent or empty folder.
        columns: 3 repeats the panorama as annotation path (as the official lists name one), 2 leaves it out.
        ending: "jpg", or "png" to lose nothing.
    """
    root = _fresh(root)
    _only_keys(splits, ("train", "val"))
    number, rows = 0, []
    for split, views in splits.items():
        text = []
        for i, tile in enumerate(_one_each(views, f"cvusa {split}")):
            number += 1
            sat, pano = f"bingmap/19/{number:07d}.{ending}", f"streetview/panos/{number:07d}.{ending}"
            _image(views.gallery, tile, root / sat)
            _image(views.query, i, root / pano)
            text.append(",".join([sat, pano, f"streetview/annotations/{number:07d}.png"][:columns]))
            rows.append((_degrees(views.gallery.positions, tile), _degrees(views.query.positions, i)))
        _text(root / "splits" / f"{split}-19zl.csv", text)
    if all(a is not None and b is not None for a, b in rows):
        # the published list has a fifth column whose meaning is not documented
        _text(root / "split_locations" / "all.csv", [f"{a[0]!r},{a[1]!r},{b[0]!r},{b[1]!r},0" for a, b in rows])
    return _mark(root, "cvusa", _one_each_counts(splits), splits.values())


def write_cvact(splits: Mapping[str, Dataset], root: Path | str) -> Path:
    """CVACT: {"train", "val", "test"}: Dataset whose positions are metres; ids of one length, as the MAT file holds them.

    The first field of each set in the published MAT file is not documented; the official readers take the second.
    """
    root = _fresh(root)
    _only_keys(splits, ("train", "val", "test"))
    ids: list[str] = []
    utm: list[np.ndarray] = []
    row: dict[str, int] = {}
    rows: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for split, views in splits.items():
        base = root / ("ANU_data_test" if split == "test" else "ANU_data_small")
        places = views.query.positions
        if places is None or not isinstance(places.frame, Metres):
            raise InputError(
                f"cvact {split}", expected="positions in metres", found="none", todo="Give the ground set positions."
            )
        for i, tile in enumerate(_one_each(views, f"cvact {split}")):
            name = views.query.ids[i]
            if "/" in name or "\\" in name or (ids and len(name) != len(ids[0])):
                raise InputError(
                    f"cvact {split}: {name!r}",
                    expected="ids of equal length without slashes, as the MAT file holds them",
                    found=f"length {len(name)}",
                    todo="Give ids such as 22 letters and digits.",
                )
            if name not in row:
                row[name] = len(ids)
                ids.append(name)
                utm.append(places.values[i])
            rows[split].append(row[name] + 1)
            _image(views.query, i, base / "streetview" / f"{name}_grdView.jpg")
            _image(views.gallery, tile, base / "satview_polish" / f"{name}_satView_polish.jpg")

    def one(field: str, numbers: list[int]) -> dict[str, np.ndarray]:
        index = np.array(numbers, np.int32).reshape(-1, 1)
        return {"utm": np.array(utm)[index.ravel() - 1].reshape(-1, 2), field: index}

    contents = {
        "panoIds": np.array(ids),
        "utm": np.array(utm),
        "trainSet": one("trainInd", rows["train"]),
        "valSet": one("valInd", rows["val"]),
        "valSetAll": one("valInd", rows["test"]),
    }
    scipy.io.savemat(str(root / "ACT_data.mat"), contents, oned_as="column")
    return _mark(root, "cvact", _one_each_counts(splits), splits.values())


def write_vigor(
    cities: Mapping[str, Dataset],
    offsets_px: Mapping[str, np.ndarray],
    train: Mapping[str, Sequence[int]],
    root: Path | str,
    corrected: bool = False,
) -> Path:
    """VIGOR: a Dataset a city, each panorama with one positive, three semi-positives and offsets.

    Args:
        cities: city -> Dataset with positions in WGS84, which become the file names, to 6 decimals as in VIGOR.
        offsets_px: city -> (N, 4, 2) rows and columns in pixels of the 640-pixel tile from the panorama to the centres of the
            positive and the semi-positives (north and east positive).
        train: city -> the panoramas of the same-area training list; the rest are its test list.
        root: an absent or empty folder.
        corrected: also write the label files under splits__corrected.
    """
    root = _fresh(root)
    for city, views in cities.items():
        sat = [f"satellite_{_six(views.gallery.positions, j, '_')}.png" for j in range(len(views.gallery))]
        if len(set(sat)) != len(sat):
            raise InputError(
                f"vigor {city}",
                expected="tiles a microdegree apart",
                found="two with one name",
                todo="Space the tiles out.",
            )
        pano = [
            f"{views.query.ids[i].rpartition('/')[2]},{_six(views.query.positions, i, ',')},.jpg"
            for i in range(len(views.query))
        ]
        for j, name in enumerate(sat):
            _image(views.gallery, j, root / city / "satellite" / name)
        labels = []
        for i, name in enumerate(pano):
            _image(views.query, i, root / city / "panorama" / name)
            best = views.positives[i]
            semi = None if views.semi_positives is None else views.semi_positives[i]
            if best is None or len(best) != 1 or semi is None or len(semi) != 3:
                raise InputError(
                    f"vigor {city}: panorama {i}",
                    expected="one positive, three semi-positives and four offsets",
                    found=f"{best}, {semi}",
                    todo="VIGOR's lists hold exactly these.",
                )
            cells = [name]
            for tile, (lat, lon) in zip([*best, *semi], offsets_px[city][i], strict=True):
                cells += [sat[tile], repr(float(lat)), repr(float(lon))]
            labels.append(" ".join(cells))
        chosen = {int(i) for i in train[city]}
        lists = {
            "pano_label_balanced": labels,
            "same_area_balanced_train": [text for i, text in enumerate(labels) if i in chosen],
            "same_area_balanced_test": [text for i, text in enumerate(labels) if i not in chosen],
        }
        for base, suffix in [("splits", "")] + ([("splits__corrected", "__corrected")] if corrected else []):
            _text(root / base / city / "satellite_list.txt", sat)
            for stem, text in lists.items():
                _text(root / base / city / f"{stem}{suffix}.txt", text)
    counts = {}
    for split in ("train", "test"):
        tiles = sum(len(v.gallery) for v in cities.values())
        inside = sum((i in set(train[c])) == (split == "train") for c, v in cities.items() for i in range(len(v.query)))
        counts[f"same-{split}"] = inside, tiles
        held = [cities[c] for c in CROSS[split] if c in cities]
        counts[f"cross-{split}"] = sum(len(v.query) for v in held), sum(len(v.gallery) for v in held)
    return _mark(root, "vigor", counts, cities.values())


def write_university1652(train: Dataset, test: Dataset, queried: Sequence[int], root: Path | str) -> Path:
    """University-1652: drone -> satellite Dataset, a tile a building; test tiles not in `queried` are distractors."""
    root = _fresh(root)
    pattern, base, asked = "image-{:02d}.jpeg", root / "test", sorted(set(queried))
    learned, tested = (
        len(train.gallery),
        len(test.gallery),
    )  # buildings are numbered through: no number in both parts
    names = [f"{i:04d}" for i in range(learned + tested)]
    _buildings(train, range(learned), names[:learned], root / "train/drone", root / "train/satellite", pattern, 1)
    for kind, some in (("query", asked), ("gallery", range(tested))):
        folders = base / f"{kind}_drone", base / f"{kind}_satellite"
        _buildings(test, some, names[learned:], *folders, pattern, 1)
    counts = {"train": (len(train.query), learned), **_drone_counts(test, asked, "test {}")}
    return _mark(root, "university1652", counts, (train, test))


def write_sues200(heights: Mapping[int, tuple[Dataset, Dataset]], queried: Sequence[int], root: Path | str) -> Path:
    """SUES-200: height -> (train, test) drone -> satellite Dataset; as the benchmark's split, galleries hold every place.

    `test` holds every place (the training ones too, if they shall be distractors); `queried` are its tiles that are
    asked for.
    """
    root = _fresh(root)
    counts, asked = {}, sorted(set(queried))
    for height, (train, test) in heights.items():
        tiles = dict.fromkeys([*test.gallery.ids, *train.gallery.ids])  # one number a place, wherever it occurs
        number = {name: f"{i:04d}" for i, name in enumerate(tiles, 1)}
        of_train, of_test = ([number[i] for i in v.gallery.ids] for v in (train, test))
        a, b = root / "Training" / str(height), root / "Testing" / str(height)
        _buildings(train, range(len(of_train)), of_train, a / "drone", a / "satellite", "{}.jpg", 0, "0.png")
        for kind, some in (("query", asked), ("gallery", range(len(of_test)))):
            folders = b / f"{kind}_drone", b / f"{kind}_satellite"
            _buildings(test, some, of_test, *folders, "{}.jpg", 0, "0.png")
        counts[f"train {height} m drone2satellite"] = len(train.query), len(of_train)
        counts |= _drone_counts(test, asked, f"test {height} m {{}}")
    return _mark(root, "sues200", counts, [v for pair in heights.values() for v in pair])


def _drone_counts(test: Dataset, asked: Sequence[int], label: str) -> dict[str, tuple[int, int]]:
    queries = int(np.isin(test.positives.best(), asked).sum())
    return {
        label.format("drone2satellite"): (queries, len(test.gallery)),
        label.format("satellite2drone"): (len(asked), len(test.query)),
    }


def _buildings(
    views: Dataset,
    tiles: Iterable[int],
    names: Sequence[str],
    drones: Path,
    satellites: Path,
    pattern: str,
    start: int,
    tile_name: str | None = None,
) -> None:
    """A folder a building: its tile, and its drone images numbered from `start`."""
    of_tile: dict[int, list[int]] = {}
    for i, tile in enumerate(_one_each(views, "drone images")):
        of_tile.setdefault(int(tile), []).append(i)
    for tile in tiles:
        _image(views.gallery, tile, satellites / names[tile] / (tile_name or f"{names[tile]}.jpg"))
        for n, i in enumerate(of_tile.get(tile, ()), start):
            _image(views.query, i, drones / names[tile] / pattern.format(n))


def write_vpr(splits: Mapping[str, Dataset], root: Path | str, frames: bool = False, decimals: int = 2) -> Path:
    """Place recognition: images/<split>/{database,queries}/@easting@northing@...@<id>@...@.jpg, ids without `@` and
    `/`.

    Args:
        root: an absent or empty folder.
        splits: Dataset whose positions are metres, or WGS84, which become UTM of the first image's zone.
        frames: Nordland's form: the pano id is the frame number, the ids' trailing digits, and positions are 25 / 10.5
            m apart.
        decimals: of the metres in the names; the official scripts write two, a centimetre.
    """
    root = _fresh(root)
    _only_keys(splits, ("train", "val", "test"))
    for split, views in splits.items():
        zone = None
        for folder, images in (("database", views.gallery), ("queries", views.query)):
            places = images.positions
            if places is None or not places.known.all():
                raise InputError(
                    f"vpr {split} {folder}", expected="a position an image", found="none", todo="Give positions."
                )
            east, north, rest = places.values[:, 0], places.values[:, 1], [("", "", "", "")] * len(images)
            if isinstance(places.frame, Wgs84):
                lat, lon = places.values.T
                east, north, zone, letter = to_utm(lat, lon, zone)
                rest = [
                    (f"{zone:02d}", letter, f"{a:09.5f}"[:9], f"{b:010.5f}"[:10]) for a, b in zip(lat, lon, strict=True)
                ]
            for i, name in enumerate(images.ids):
                if "@" in name or "/" in name:
                    raise InputError(
                        f"vpr {split}: {name!r}", expected="an id without @ and /", found=name, todo="Rename it."
                    )
                if frames:
                    frame = int("".join(c for c in name if c.isdigit()) or -1)
                    file = f"@0@{frame * 25 / 10.5:07.1f}@@@@@{frame}@@@@@@@@.jpg"
                else:
                    width = 8 + decimals
                    head = f"@{east[i]:0{width}.{decimals}f}@{north[i]:0{width}.{decimals}f}@{'@'.join(rest[i])}"
                    file = f"{head}@{name}@@@@@@@@.jpg"
                _image(images, i, root / "images" / split / folder / file)
    counts = {split: (len(v.query), len(v.gallery)) for split, v in splits.items()}
    return _mark(root, "vpr", counts, splits.values())


# shared


def _fresh(root: Path | str) -> Path:
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(
            root, expected="an absent or empty folder", found="something there", todo="Choose another folder."
        )
    root.mkdir(parents=True, exist_ok=True)
    return root


def _only_keys(splits: Mapping[str, Dataset], allowed: tuple[str, ...]) -> None:
    for split in splits:
        if split not in allowed:
            raise InputError(
                "split", expected=f"one of {', '.join(allowed)}", found=split, todo="This layout has these."
            )


def _one_each(views: Dataset, where: str) -> np.ndarray:
    best = views.positives.best()
    if (best < 0).any():
        raise InputError(
            f"{where}: ground image {int(np.flatnonzero(best < 0)[0])}",
            expected="a right satellite image",
            found="none, or unknown",
            todo="This layout writes pairs.",
        )
    return best


def _image(images: ImageSet, index: int, path: Path) -> None:
    if path.exists():
        raise InputError(
            path, expected="a new file", found="two images with one name", todo="Make ids and positions unique."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = images.read(int(index)).permute(1, 2, 0).numpy()  # (H, W, 3)
    image = Image.fromarray(pixels)
    if path.suffix == ".png":
        image.save(path, compress_level=1)
    else:
        image.save(path, format="JPEG", quality=JPEG_QUALITY, subsampling=0)


def _degrees(positions: Positions | None, index: int) -> tuple[float, float] | None:
    if positions is None or not isinstance(positions.frame, Wgs84) or not positions.known[index]:
        return None
    return float(positions.values[index, 0]), float(positions.values[index, 1])


def _six(positions: Positions | None, index: int, separator: str) -> str:
    place = _degrees(positions, index)
    if place is None:
        raise InputError(
            "vigor", expected="positions in WGS84 degrees", found="none", todo="VIGOR's file names hold them."
        )
    return f"{place[0]:.6f}{separator}{place[1]:.6f}"


def _text(path: Path, rows: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("".join(f"{row}\n" for row in rows))


def _one_each_counts(splits: Mapping[str, Dataset]) -> dict[str, tuple[int, int]]:
    return {split: (len(v.query), len(v.query)) for split, v in splits.items()}


def _mark(root: Path, layout: str, counts: Mapping[str, tuple[int, int]], views: Iterable[Dataset]) -> Path:
    """Write the marker last, in one step: an export that was interrupted has none."""
    views = list(views)
    sizes = {side: sorted({tuple(getattr(v, side).read(0).shape[1:]) for v in views}) for side in ("query", "gallery")}
    (strip_offset,) = {v.strip_offset for v in views}
    text = json.dumps({"layout": layout, "counts": counts, "sizes": sizes, "strip_offset": strip_offset}, indent=1)
    partial = root / f".{MARKER}.part"
    partial.write_text(text, encoding="utf-8")
    partial.replace(root / MARKER)
    return root


def remove(root: Path | str) -> None:
    """Remove an export; refuses a folder without the marker."""
    root = Path(root)
    if not (root / MARKER).is_file():
        raise InputError(root, expected=f"an export ({MARKER})", found="another folder", todo="Remove it by hand.")
    shutil.rmtree(root)
