"""Writers of the published layouts: a data set in memory into files that the readers here and the official code bases read.

Beside the layout lies `ucvgl-export.json` with the counts and image sizes, so that `ucvgl data check` compares an export with
itself and not with the published counts. JPEG loses a little, PNG nothing.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ucvgl.data import open_dataset, splits_of
from ucvgl.data.container import Dataset, ImageSet
from ucvgl.data.cvact import SETS
from ucvgl.data.files import MARKER
from ucvgl.errors import InputError

JPEG_QUALITY = 95
Contents = tuple[ImageSet, int] | list[str] | dict[str, Any]  # an image, lines of text, variables of a MATLAB file
Files = list[tuple[str, Contents]]  # by relative path


def write_cvusa(splits: Mapping[str, Dataset], root: Path | str) -> Path:
    """CVUSA: {"train": ..., "val": ...} with positions in WGS84, pairs numbered through."""
    files: Files = []
    places: list[str] = []
    for split, data in splits.items():
        rows = []
        for i, tile in enumerate(data.positives.best().tolist()):
            number = f"{len(places) + 1:07d}"
            tile_path, panorama_path = f"bingmap/19/{number}.jpg", f"streetview/panos/{number}.jpg"
            files += [(tile_path, (data.gallery, tile)), (panorama_path, (data.query, i))]
            # the official lists name an annotation, too; the published fifth column of places is not documented
            rows.append(f"{tile_path},{panorama_path},streetview/annotations/{number}.png")
            at = *data.gallery.positions.values[tile].tolist(), *data.query.positions.values[i].tolist()
            places.append(",".join([*map(repr, at), "0"]))
        files.append((f"splits/{split}-19zl.csv", rows))
    (strip_offset,) = {data.strip_offset for data in splits.values()}
    return _write("cvusa", root, [*files, ("split_locations/all.csv", places)], strip_offset)


def write_cvact(splits: Mapping[str, Dataset], root: Path | str) -> Path:
    """CVACT: {"train", "val", "test"}: a data set with positions in metres, and ids that are file names."""
    # the first field of each set in the published MAT file is not documented; the official readers take the second
    files: Files = []
    utm: dict[str, np.ndarray] = {}  # a panorama may be in two splits
    for split, data in splits.items():
        base = "ANU_data_test" if split == "test" else "ANU_data_small"
        for i, (name, tile) in enumerate(zip(data.query.ids, data.positives.best().tolist(), strict=True)):
            utm.setdefault(name, data.query.positions.values[i])
            files.append((f"{base}/streetview/{name}_grdView.jpg", (data.query, i)))
            files.append((f"{base}/satview_polish/{name}_satView_polish.jpg", (data.gallery, tile)))
    row, metres = {name: i for i, name in enumerate(utm)}, np.array(list(utm.values()))
    contents: dict[str, Any] = {"panoIds": np.array(list(row)), "utm": metres}
    for split, (part, field) in SETS.items():
        rows = np.array([row[name] for name in splits[split].query.ids] if split in splits else (), np.int32)
        contents[part] = {"utm": metres[rows], field: rows[:, None] + np.int32(1)}
    return _write("cvact", root, [*files, ("ACT_data.mat", contents)])


def write_vigor(
    cities: Mapping[str, Dataset], offsets_px: Mapping[str, np.ndarray], train: Mapping[str, Sequence[int]],
    root: Path | str,
) -> Path:  # fmt: skip
    """VIGOR: a data set a city, each panorama with one positive and three semi-positives; positions in WGS84 become file names.
    `offsets_px` are (N, 4, 2) rows and columns in pixels of the 640-pixel tile from the panorama to the centres of the positive
    and the semi-positives (north and east positive); `train` has the panoramas of the same-area training list."""
    files: Files = []
    for city, data in cities.items():
        names = [f"satellite_{lat:.6f}_{lon:.6f}.png" for lat, lon in data.gallery.positions.values]
        files += [(f"{city}/satellite/{name}", (data.gallery, j)) for j, name in enumerate(names)]
        labels = []
        for i, (name, (lat, lon)) in enumerate(zip(data.query.ids, data.query.positions.values, strict=True)):
            cells = [f"{name},{lat:.6f},{lon:.6f},.jpg"]
            files.append((f"{city}/panorama/{cells[0]}", (data.query, i)))
            tiles = [*data.positives[i], *data.semi_positives[i]]
            for tile, away in zip(tiles, offsets_px[city][i].tolist(), strict=True):
                cells += [names[tile], *map(repr, away)]
            labels.append(" ".join(cells))
        lists, learnt = {"satellite_list": names, "pano_label_balanced": labels}, set(train[city])
        lists["same_area_balanced_train"] = [label for i, label in enumerate(labels) if i in learnt]
        lists["same_area_balanced_test"] = [label for i, label in enumerate(labels) if i not in learnt]
        files += [(f"splits/{city}/{name}.txt", rows) for name, rows in lists.items()]
    return _write("vigor", root, files)


def write_university1652(train: Dataset, test: Dataset, queried: Sequence[int], root: Path | str) -> Path:
    """University-1652: drone images against a tile a building; test tiles not in `queried` are distractors."""
    learned, tested = len(train.gallery), len(test.gallery)
    names = [f"{i:04d}" for i in range(learned + tested)]  # numbered through: no number in both parts
    own = "image-{:02d}.jpeg", 1, "{}.jpg"
    files = _buildings(train, range(learned), names[:learned], "train/{}", *own)
    files += _buildings(test, sorted(set(queried)), names[learned:], "test/query_{}", *own)
    files += _buildings(test, range(tested), names[learned:], "test/gallery_{}", *own)
    return _write("university1652", root, files)


def write_sues200(heights: Mapping[int, tuple[Dataset, Dataset]], queried: Sequence[int], root: Path | str) -> Path:
    """SUES-200: height -> (train, test), drone images against a tile a place; as in the benchmark's split, the test galleries hold
    every place (those of training are distractors), and `queried` are the tiles that are looked for."""
    files: Files = []
    for height, (train, test) in heights.items():
        tiles = dict.fromkeys([*test.gallery.ids, *train.gallery.ids])  # one number a place, wherever it occurs
        number = {name: f"{i:04d}" for i, name in enumerate(tiles, 1)}
        learned, tested = ([number[i] for i in data.gallery.ids] for data in (train, test))
        own = "{}.jpg", 0, "0.png"
        files += _buildings(train, range(len(learned)), learned, f"Training/{height}/{{}}", *own)
        files += _buildings(test, sorted(set(queried)), tested, f"Testing/{height}/query_{{}}", *own)
        files += _buildings(test, range(len(tested)), tested, f"Testing/{height}/gallery_{{}}", *own)
    return _write("sues200", root, files)


def _buildings(
    data: Dataset, tiles: Iterable[int], names: Sequence[str], folder: str, image: str, first: int, tile_name: str
) -> Files:
    """A folder a building: its tile, and its drone images numbered from `first`."""
    files: Files = []
    tile_of = data.positives.best().numpy()
    for tile in tiles:
        name = names[tile]
        files.append((f"{folder.format('satellite')}/{name}/{tile_name.format(name)}", (data.gallery, tile)))
        for number, i in enumerate(np.flatnonzero(tile_of == tile).tolist(), first):
            files.append((f"{folder.format('drone')}/{name}/{image.format(number)}", (data.query, i)))
    return files


def write_vpr(splits: Mapping[str, Dataset], root: Path | str) -> Path:
    """Place recognition: images/<split>/{database,queries}/@<easting>@<northing>@...@<id>@...@.jpg, positions in metres."""
    files: Files = []
    for split, data in splits.items():
        for folder, images in (("database", data.gallery), ("queries", data.query)):
            for i, (name, (east, north)) in enumerate(zip(images.ids, images.positions.values, strict=True)):
                file = f"@{east:010.2f}@{north:010.2f}@@@@@{name}@@@@@@@@.jpg"  # to the centimetre, as the official scripts
                files.append((f"images/{split}/{folder}/{file}", (images, i)))
    return _write("vpr", root, files)


def write_frames(data: Dataset, numbers: Sequence[int], root: Path | str) -> Path:
    """Frames on a line: query/ and reference/, numbered alike; `numbers` are those of both sides."""
    sides = (("query", data.query), ("reference", data.gallery))
    files = [(f"{name}/{number:06d}.jpg", (side, i)) for name, side in sides for i, number in enumerate(numbers)]
    return _write("frames", root, files)


def save_image(image: Tensor, path: Path) -> None:
    """uint8 (3, H, W) as JPEG or PNG, by the path's ending; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())  # (H, W, 3)
    picture.save(path, compress_level=1, quality=JPEG_QUALITY, subsampling=0)  # an option of PNG, two of JPEG


@contextmanager
def new_folder(root: Path | str) -> Iterator[Path]:
    """A scratch folder that becomes `root` when all is written, or is removed; InputError: `root` holds something, or is a file."""
    root, todo = Path(root).resolve(), "Choose another folder."
    try:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise InputError(root, expected="an absent or empty folder", found="something there", todo=todo)
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-exporting-") as name:
            made = Path(name) / root.name
            made.mkdir()
            yield made
            if root.is_dir():
                root.rmdir()
            made.replace(root)
    except OSError as error:
        raise InputError(root, expected="a folder to write", found=error, todo=todo) from error


def _write(layout: str, root: Path | str, files: Files, strip_offset: float = 0.0) -> Path:
    """Every file, and beside them the counts and sizes of what the reader finds there."""
    root = Path(root)
    for name, contents in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert not path.exists(), f"two files of one name: {name}"
        if isinstance(contents, dict):
            from scipy.io import savemat  # here: every process would wait for it

            savemat(str(path), contents, oned_as="column")
        elif isinstance(contents, list):
            path.write_text("".join(f"{row}\n" for row in contents), encoding="utf-8", newline="\n")
        else:
            save_image(contents[0].read(contents[1]), path)
    splits = {label: open_dataset(layout, root, **options) for label, options in splits_of(layout, root).items()}
    counts = {label: (len(data.query), len(data.gallery)) for label, data in splits.items()}
    sizes = {
        side: sorted({tuple(getattr(data, side).read(0).shape[1:]) for data in splits.values()})
        for side in ("query", "gallery")
    }
    marker = {"layout": layout, "counts": counts, "sizes": sizes, "strip_offset": strip_offset}
    (root / MARKER).write_text(json.dumps(marker, indent=1), encoding="utf-8")
    return root
