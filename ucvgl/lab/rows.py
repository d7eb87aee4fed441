"""The rows of the tables, and what each has to train: the unit of work of `make reproduce`.

A row is a line of a table in a notebook; a stage is one computation that the run cache keeps, such as a training. Rows share
stages, and so do seeds where a stage does not depend on one (the rendered world). The Snakefile makes a job of each stage."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Any

from ucvgl.data import FRAMES, PLACE_RECOGNITION, detect_layout
from ucvgl.data.container import Parts
from ucvgl.data.university import HEIGHTS
from ucvgl.errors import InputError, one_of
from ucvgl.lab import material, profiles, real_pairs, stages, variants
from ucvgl.lab.settings import WORLD, RunRequest, asked_rows
from ucvgl.methods import sample4geo, ucvgl, vg_ssl
from ucvgl.paths import files_digest, plain, samples
from ucvgl.sampling import NeighbourDraw

NORDLAND_TRAINING = 2386  # frames of its first part, about
UNIVERSITY, SUES = 37_854, 24_000  # drone images to train on, of University-1652 and SUES-200


def chosen(table: str, tables: Mapping[str, Iterable[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    """Of a table's rows, each with its key first, those that UCVGL_ROWS asks for."""
    return [row for row in tables[table] if _is_wanted(asked_rows(), table, row[0])]


def _is_wanted(choice: str, table: str, key: str) -> bool:
    return choice == "all" or key in variants.HEADLINE.get(table, [key])


@dataclass(frozen=True)
class Stage:
    """One computation that the run cache keeps."""

    name: str  # as in the run cache
    settings: tuple[Any, ...]  # all it depends on, the images included; of dataclasses, numbers and texts
    run: Callable[[], Any] = field(repr=False, compare=False)  # computes it, or finds it
    needs: tuple["Stage", ...] = ()  # stages it begins with
    items: int = 0  # that it trains on in an epoch, or renders or makes ready; about

    @cached_property
    def key(self) -> str:
        """Its name and twelve hex digits of its settings: the same for the rows and seeds that share it."""
        values = [plain(asdict(value)) if hasattr(value, "__dataclass_fields__") else value for value in self.settings]
        text = json.dumps([self.name, values], sort_keys=True, default=str)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


_Line = tuple[str, str, Stage]  # table, key, stage


def _training(
    config: sample4geo.Sample4Geo | vg_ssl.VgSsl,
    opened: Callable[[], Any],
    named: tuple[Any, ...],
    items: int,
    *needs: Stage,
) -> Stage:
    """A training of sample4geo.Sample4Geo or VG-SSL on what `opened` gives: a training part and tests, or a list of them."""
    name, train = ("vg-ssl", stages.learn) if isinstance(config, vg_ssl.VgSsl) else ("sample4geo", stages.supervise)

    def run() -> object:
        areas = opened()
        return [train(given, config, tests) for given, tests in (areas if isinstance(areas, list) else [areas])][-1]

    items = min(items, stages.SMOKE_PAIRS) if asked_rows() == "smoke" else items
    return Stage(name, (config, *named), run, needs, items)


def _source(data: str, *world: Any) -> tuple[Any, ...]:
    """What names the images: the world's settings, or a folder's name with the names, sizes and times of its files."""
    return world if data == WORLD else (data, files_digest(data))


@dataclass(frozen=True)
class _Ucvgl:
    """UCVGL's stages on one set of images."""

    images: Stage  # which gives them as `Parts`
    count: int  # of ground images trained on
    listed: Parts | None = None  # of a data set, without its images
    part: str = ""  # of the images; '' for all

    @staticmethod
    def of(settings: profiles.UcvglSettings, data: str) -> "_Ucvgl":
        worlds = settings.train, settings.test
        given = cache(partial(material.material, settings, data, measured=False))
        images = Stage("images", (*_source(data, *worlds), settings.images), given)
        if data == WORLD:
            return _Ucvgl(replace(images, items=sum(world.places for world in worlds)), settings.train.places)
        listed = material.open_parts(data, *worlds)
        items = sum(map(len, (listed.train, *listed.tests.values())))
        return _Ucvgl(replace(images, items=items), len(listed.train), listed)

    def fewer(self) -> "_Ucvgl":
        """The same on every second place (see `material.fewer`)."""
        return replace(self, count=self.count // 2, part="every second place")

    def given(self) -> Parts:
        given = self.images.run()
        return material.fewer(given) if self.part else given

    def cold_start(self, start: ucvgl.Pretraining | ucvgl.WithLoss) -> Stage:
        if isinstance(start, ucvgl.WithLoss):
            return self._stage("cold-start-with", (start,), lambda on: stages.pretrain(on.unlabelled, start, on))
        needs, part = [self.images], self.part
        if start.intra is not None:
            key = ucvgl.intra_key(start), part
            needs.append(self._stage("intra-view", key, lambda on: stages.intra_view(on.unlabelled, start)))
        if start.cross is not None and start.translation.kind == "cyclegan":
            key = start.translation, start.projection, part
            needs.append(self._stage("translation", key, lambda on: stages.translation(on.unlabelled, start)))
        return self._stage("cross-view", (start, part), lambda on: stages.pretrain(on.unlabelled, start, on), *needs)

    def curriculum(self, steps: ucvgl.Curriculum, hard: NeighbourDraw | None = None) -> Stage:
        needs = [self.cold_start(steps.start)] if steps.pretrained else []
        run = partial(stages.curriculum, hard=hard)
        return self._stage("curriculum", (steps, hard, self.part), lambda on: run(on.unlabelled, steps, on), *needs)

    def _stage(self, name: str, named: tuple[Any, ...], run: Callable[[Parts], object], *needs: Stage) -> Stage:
        """A step on the images, after those that it needs, or the images alone."""
        settings = (*named, *self.images.settings)
        return Stage(name, settings, lambda: run(self.given()), needs or (self.images,), self.count)


def _ucvgl_rows(settings: profiles.UcvglSettings, data: str, own: _Ucvgl) -> Iterator[_Line]:
    """Of notebooks 02 and 04; 03 looks at the first of them."""
    fewer = own.fewer() if data == WORLD else own
    for table, rows in variants.ucvgl(settings).items():
        images = fewer if table in ("04/label_ratio", "04/ours") else own
        for key, _, config in rows[:2] if table == "04/ours" and not settings.images.top_view else rows:
            cold = isinstance(config, ucvgl.Pretraining)
            yield table, key, images.cold_start(config) if cold else images.curriculum(config)


def _sample4geo_rows(settings: profiles.Sample4GeoSettings, asked: RunRequest, given: _Ucvgl) -> Iterator[_Line]:
    """Of notebook 05; `given` are UCVGL's images."""
    data, other, world = asked.data, asked.other, asked.data == WORLD
    tables = variants.sample4geo(settings, located=world or material.located(given.listed.train))
    grids, places = _source(data, settings.trained, settings.unseen), settings.trained.places + settings.unseen.places
    opened = partial(material.open_areas, settings, data, settings.method)
    images = Stage("areas", (*grids, settings.images), opened, items=2 * places if world else given.count)
    count, few = (settings.trained.places * 3 // 4, settings.small) if world else (given.count, given.count)

    for key, _, config in tables["05/sampling"]:
        yield "05/sampling", key, _training(config, opened, ("areas", *grids), count, images)
    if other or world:
        cities = cache(lambda: list(material.open_others(settings, data, other, settings.brief).values()))
        names = [*settings.trained.styles, *settings.unseen.styles] if world else [*map(detect_layout, (data, other))]
        if len({*names}) < len(names):
            raise InputError("other", "a data set of another layout", names[1], "Its table tells them by their layout.")
        for number, name in enumerate(names):
            named = ("trained on", number, *grids, *(_source(other) if other else ()))
            found = _training(settings.brief, lambda number=number: cities()[number], named, few, images)
            yield "05/generalisation", name, found
    drones = (("drone", "university1652", UNIVERSITY, 1, settings.flights, material.open_flights),
              ("heights", "sues200", SUES, len(HEIGHTS), settings.heights, material.open_heights))  # fmt: skip
    if asked.drone:
        one_of("drone", detect_layout(asked.drone), [layout for _, layout, *_ in drones], "Leave it out.")
    for table, layout, items, heights, flights, opens in drones:
        if (root := material.drone_root(layout, asked.drone)) or world:
            # three fifths are for training
            items = items if root else heights * flights.places * flights.views * 3 // 5
            named = (table, *(_source(root) if root else (flights,)))
            yield f"05/{table}", "full", _training(settings.drone, partial(opens, settings, root), named, items)
    for table in ("05/architecture", "05/fields_of_view"):
        for key, _, config in tables[table] if settings.method.tile_kind != "photo" else tables[table][:-1]:
            area = partial(material.one_area, settings, data, config)
            yield table, key, _training(config, area, ("trained on", 0, *grids), few, images)
    fewer = given.fewer() if world else given
    cross = cache(lambda: fewer.given()._replace(tests={"cross": fewer.given().test}))
    for key, _, config in tables["05/unlabelled"]:
        if isinstance(config, ucvgl.Curriculum):
            found = fewer.curriculum(config, settings.brief.sampling.draw if key == "ucvgl_dss" else None)
        else:
            named = ("all", fewer.part, *given.images.settings[:-1])
            found = _training(config, cross, named, fewer.count, given.images)
        yield "05/unlabelled", key, found
    if world and settings.real is not None and real_pairs.at_hand():
        files = files_digest(str(samples() / real_pairs.FOLDER))
        for key, _, fold in tables["05/real"]:
            run = partial(real_pairs.measure_fold, settings.real, fold)
            yield "05/real", key, Stage("real-pairs", (settings.real, fold, files), run)


def _vg_ssl_rows(asked: RunRequest, seed: int) -> Iterator[_Line]:
    """Of notebook 06."""
    data, world = asked.data, asked.data == WORLD
    settings = profiles.vg_ssl(asked.profile, seed, backbone=asked.backbone or "resnet50")
    tables, opened = variants.vg_ssl(settings), cache(partial(material.open_sets, settings, data))
    photos = 2 * sum(drive.places for drive in (*settings.train, *settings.joined, *settings.tests.values()))
    source = _source(data, settings.train, tuple(settings.tests.items()))
    drives = Stage("drives", source, opened, items=photos if world else 0)
    places = sum(drive.places for drive in settings.train)
    if world and settings.real and material.real_frames():
        frames = cache(partial(material.open_frames, settings))
        named = (settings.frames, *(files_digest(str(samples() / name)) for name in material.REAL_FRAMES))
        for key, _, config in tables["06/real"]:
            yield "06/real", key, _training(config, frames, named, settings.frames or NORDLAND_TRAINING)
    for table in ("06/main", "06/geopair", "06/projector", "06/cost"):
        for key, _, config in tables[table]:
            yield table, key, _training(config, opened, source, config.queries or places, drives)
    if world:
        every = cache(lambda: (material.open_drives(settings.joined), opened()[1]))
        for key, _, config in tables["06/joined"]:
            named = (*source, settings.joined)
            yield "06/joined", key, _training(config, every, named, config.queries or places, drives)
        own = _Ucvgl.of(settings.cold_start, WORLD).fewer()
        for key, _, config in tables["06/pretraining_losses"]:
            yield "06/pretraining_losses", key, own.cold_start(config)


def rows(asked: RunRequest, seed: int, *, measured: bool = False) -> dict[str, Stage]:
    """The stage of each row that is asked for, with one seed of the training, by its name, as '04/ablation/no_mutual'. measured:
    without those of notebooks 02 to 05 where no held-out part has known pairs. InputError: their tables are wanted of photos."""
    data, found = asked.data, []
    layout = WORLD if data == WORLD else detect_layout(data)
    photos = layout in (*PLACE_RECOGNITION, *FRAMES)
    if not photos:
        settings = profiles.sample4geo(asked.profile, seed, data=data, backbone=asked.backbone)
        own = _Ucvgl.of(settings.unlabelled, data)
        known = own.listed is None or any(test.labelled for test in own.listed.tests.values())
        if measured and known and settings.unlabelled.images.top_view is None:
            todo = f"Train rows (`ucvgl train 04/main/ucvgl_s_0 05/sampling/dss_only --data {data}`; own pairs also "
            todo += "06/main/simclr), then `ucvgl evaluate`; drone images are DRONE= beside DATA=."
            raise InputError(data, "panoramas, which notebooks 02 to 05 project", f"{layout}: photos", todo)
        if known or not measured:
            found += [*_ucvgl_rows(settings.unlabelled, data, own), *_sample4geo_rows(settings, asked, own)]
    if photos or layout in (WORLD, "pairs"):
        found += _vg_ssl_rows(asked, seed)
    return {f"{table}/{key}": stage for table, key, stage in found if _is_wanted(asked.rows, table, key)}


def all_stages(wanted: Iterable[Stage]) -> dict[str, Stage]:
    """These stages and those that they need, by key, each after those that it needs; what rows share stands there once."""
    found: dict[str, Stage] = {}
    for stage in wanted:
        found |= {key: need for key, need in all_stages(stage.needs).items() if key not in found}
        found.setdefault(stage.key, stage)
    return found
