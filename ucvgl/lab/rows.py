"""The rows of the tables, and what each has to train: the unit of work of `make reproduce`.

A row is a line of a table in a notebook; a stage is one computation that the run cache keeps, such as a training. Rows share
stages, and so do seeds where a stage does not depend on one (the rendered world). The Snakefile makes a job of each stage.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ucvgl.data import FRAMES, PLACE_RECOGNITION, detect_layout
from ucvgl.data.container import Dataset, Parts
from ucvgl.data.university import HEIGHTS
from ucvgl.errors import InputError
from ucvgl.lab import material, profiles, real_pairs, stages, variants
from ucvgl.lab.cache import StageResult
from ucvgl.lab.results import plain_settings
from ucvgl.lab.settings import WORLD, RunRequest, asked_rows
from ucvgl.methods.pretraining_losses import WithLoss
from ucvgl.methods.sample4geo import Sample4Geo
from ucvgl.methods.ucvgl import Curriculum, Pretraining, intra_key
from ucvgl.methods.vg_ssl import VgSsl
from ucvgl.paths import files_digest, samples
from ucvgl.pseudo_labels import NoPseudoLabels
from ucvgl.sampling import NeighbourDraw

NORDLAND_TRAINING = 2386  # frames of its first part, about
DRONE_TRAINING = 37_854  # University-1652's drone images


@dataclass(frozen=True)
class Stage:
    """One computation that the run cache keeps."""

    name: str  # as in the run cache
    settings: tuple[Any, ...]  # all it depends on, the images included; of dataclasses, numbers and texts
    run: Callable[[], object] = field(repr=False, compare=False)  # computes it, or finds it
    needs: tuple["Stage", ...] = ()  # stages it begins with
    items: int = 0  # that it trains on in an epoch, or renders or makes ready; about

    @functools.cached_property
    def key(self) -> str:
        """Its name and twelve hex digits of its settings: the same for the rows and seeds that share it."""
        values = [plain_settings(value) if hasattr(value, "__dataclass_fields__") else value for value in self.settings]
        text = json.dumps([self.name, values], sort_keys=True, default=str)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


_Line = tuple[str, str, Stage]  # table, key, stage

# By table: the keys of the rows that ROWS=headline keeps: one a method, and what a notebook's figures cannot do without.
HEADLINE: Mapping[str, tuple[str, ...]] = {
    "02/cold_start": ("full",),
    "02/translation": ("statistics", "cyclegan"),
    "04/main": ("ucvgl_s_0", "ucvgl_s_100"),
    "04/label_ratio": ("labels_10",),
    "04/ablation": ("no_curriculum", "full"),
    "04/ours": ("main", "raw"),
    "05/sampling": ("random", "full"),
    "05/generalisation": ("garden", "cvusa", "cvact", "vigor"),
    "05/drone": ("full",),
    "05/heights": ("full",),
    "05/architecture": ("full",),
    "05/fields_of_view": ("full", "limited"),
    "05/unlabelled": ("ucvgl", "sample4geo"),
    "05/real": ("fold_0",),
    "06/real": tuple(profiles.SSL_METHODS),
    "06/main": tuple(profiles.SSL_METHODS),
    "06/joined": ("simclr",),
    "06/geopair": ("partial",),
    "06/projector": ("2x256_512", "2x256_16", "2x2048_1024"),
    "06/cost": ("triplet_full",),
    "06/pretraining_losses": ("none", "info_nce"),
}


def chosen(table: str, rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Of a table's rows, each with its key first, those that UCVGL_ROWS asks for."""
    return [row for row in rows if asked_rows() == "all" or row[0] in HEADLINE[table]]


def _source(data: str, *world: Any) -> tuple[Any, ...]:
    """What names the images: the world's settings, or a folder's name with the names, sizes and times of its files."""
    return world if data == WORLD else (data, files_digest(data))


# -------------------------------------------------------------------------------------------------- UCVGL, notebooks 02 to 04


@dataclass(frozen=True)
class _Ucvgl:
    """UCVGL's stages on one set of images."""

    images: Stage
    given: Callable[[], Parts] = field(compare=False)
    count: int  # of ground images trained on
    located: bool = True  # whether every tile has a position
    measured: bool = True  # whether a held-out part has known pairs
    part: str = ""  # of the images; '' for all

    @staticmethod
    def of(settings: profiles.UcvglSettings, data: str) -> "_Ucvgl":
        given = functools.cache(lambda: material.material(settings, data, measured=False))
        world, test = settings.train, settings.test
        named = (*_source(data, world, test), settings.images)
        if data == WORLD:
            return _Ucvgl(Stage("images", named, given, items=world.places + test.places), given, world.places)
        listed = material.open_parts(data, world, test)  # the lists alone
        images = Stage("images", named, given, items=sum(map(len, (listed.train, *listed.tests.values()))))
        measured = any(test.labelled for test in listed.tests.values())
        return _Ucvgl(images, given, len(listed.train), material.located(listed.train), measured)

    @property
    def place(self) -> tuple[Any, ...]:
        """What names the images in a stage's settings."""
        return (self.part, *self.images.settings)

    def fewer(self) -> "_Ucvgl":
        """The same on every second place (see `material.fewer`)."""
        given = functools.cache(lambda: material.fewer(self.given()))
        return replace(self, given=given, count=self.count // 2, part="every second place")

    def cold_start(self, start: Pretraining) -> Stage:
        needs, first, named = [self.images], (self.images,), self.place
        if start.intra is not None:
            run = functools.partial(self._run, stages.intra_view, start)
            needs.append(Stage("intra-view", (intra_key(start), *named), run, first, self.count))
        if start.cross is not None and start.translation.kind == "cyclegan":
            run = functools.partial(self._run, stages.translation, start)
            needs.append(Stage("translation", (start.translation, start.projection, *named), run, first, self.count))
        run = functools.partial(self._run, stages.pretrain, start, measured=True)
        return Stage("cross-view", (start, *named), run, tuple(needs), self.count)

    def cold_start_with(self, config: WithLoss) -> Stage:
        run = functools.partial(self._run, stages.cold_start_with, config, measured=True)
        return Stage("cold-start-with", (config, *self.images.settings), run, (self.images,), self.count)

    def curriculum(self, steps: Curriculum, hard: NeighbourDraw | None = None) -> Stage:
        first = self.cold_start(steps.start) if steps.pretrained else self.images
        run = functools.partial(self._run, functools.partial(stages.curriculum, hard=hard), steps, measured=True)
        return Stage("curriculum", (steps, hard, *self.place), run, (first,), self.count)

    def _run(self, step: Callable[..., StageResult], config: object, *, measured: bool = False) -> StageResult | None:
        """A step on the images, which are given without labels, and with all of them where it is measured."""
        given = self.given()
        try:
            return step(given.unlabelled, config, *([given] if measured else []))
        except NoPseudoLabels:  # the row shows the cold start, and says that nothing was found
            return None


def ucvgl_rows(settings: profiles.UcvglSettings, data: str, own: _Ucvgl) -> Iterator[_Line]:
    """(table, key, stage) of notebooks 02 and 04; 03 looks at the first of them."""
    for key, _, start in variants.cold_start(settings.start):
        yield "02/cold_start", key, own.cold_start(start)
    for key, _, start in variants.translations(settings):
        yield "02/translation", key, own.cold_start(start)
    fewer = own.fewer() if data == WORLD else own
    ours = variants.ours(settings.curriculum)
    for table, images, curricula in (
        ("04/main", own, variants.main(settings.curriculum)),
        ("04/ablation", own, variants.ablation(settings.curriculum)),
        ("04/label_ratio", fewer, variants.label_ratios(settings.curriculum)),
        ("04/ours", fewer, ours if settings.images.top_view else ours[:2]),
    ):
        for key, _, steps in curricula:
            yield table, key, images.curriculum(steps)


# --------------------------------------------------------------------------------------------------- Sample4Geo, notebook 05


def sample4geo_rows(settings: profiles.Sample4GeoSettings, asked: RunRequest, given: _Ucvgl) -> Iterator[_Line]:
    """(table, key, stage) of notebook 05; `given` are UCVGL's images."""
    data, other, world = asked.data, asked.other, asked.data == WORLD
    grids = _source(data, settings.trained, settings.unseen)
    opened = functools.partial(material.open_areas, settings, data, settings.method)
    places = settings.trained.places + settings.unseen.places
    images = Stage("areas", (*grids, settings.images), opened, items=2 * places if world else given.count)
    count, few = (settings.trained.places * 3 // 4, settings.small) if world else (given.count, given.count)

    def stage(
        config: Sample4Geo, areas: Callable[[], list[Parts]], named: tuple[Any, ...], count: int = few,
        needs: tuple[Stage, ...] = (images,),
    ) -> Stage:  # fmt: skip
        def run() -> StageResult:
            return [stages.supervise(area.train, config, area.tests) for area in areas()][-1]

        return Stage("sample4geo", (config, *named), run, needs, count)

    for key, _, config in variants.sampling(settings, located=given.located):
        yield "05/sampling", key, stage(config, opened, ("areas", *grids), count)
    if other or world:
        cities = functools.cache(lambda: list(material.open_others(settings, data, other).values()))
        names = (*settings.trained.styles, *settings.unseen.styles) if world else map(detect_layout, (data, other))
        for number, name in enumerate(names):
            named = ("trained on", number, *grids, *(_source(other) if other else ()))
            yield "05/generalisation", name, stage(settings.brief, lambda n=number: [cities()[n]], named)
    flights, heights = settings.flights, settings.heights
    if asked.drone or world:
        named = ("drone", *(_source(asked.drone) if asked.drone else (flights,)))
        # three fifths of the world's places are trained on
        number = DRONE_TRAINING if asked.drone else flights.places * flights.views * 3 // 5
        flown = stage(settings.drone, lambda: [material.open_flights(settings, asked.drone)], named, number, ())
        yield "05/drone", "full", flown
    if world:
        number, named = len(HEIGHTS) * heights.places * heights.views * 3 // 5, ("heights", heights)
        yield "05/heights", "full", stage(settings.drone, lambda: [material.open_heights(settings)], named, number, ())
    panoramas = settings.method.tile_kind != "photo"
    for table, rows in (
        ("05/architecture", variants.architectures(settings)), ("05/fields_of_view", variants.fields_of_view(settings)),
    ):  # fmt: skip
        for key, _, config in rows if panoramas else rows[:-1]:
            area = functools.partial(material.one_area, settings, data, config)
            yield table, key, stage(config, lambda area=area: [area()], ("trained on", 0, *grids))
    fewer = given.fewer() if world else given
    named = ("all", fewer.part, *given.images.settings[:-1])
    for key, _, config in variants.unlabelled(settings):
        if isinstance(config, Curriculum):
            hard = settings.brief.sampling.draw if key == "ucvgl_dss" else None
            found = fewer.curriculum(config, hard)
        else:
            area = functools.partial(material.for_supervision, config)
            found = stage(config, lambda a=area: [a(fewer.given())], named, fewer.count, (given.images,))
        yield "05/unlabelled", key, found
    if world and settings.real is not None and real_pairs.at_hand():
        recipe, files = settings.real, files_digest(str(samples() / real_pairs.FOLDER))
        for fold in range(recipe.folds):
            run = functools.partial(real_pairs.measure_fold, recipe, fold)
            yield "05/real", f"fold_{fold}", Stage("real-pairs", (recipe, fold, files), run)


# ------------------------------------------------------------------------------------------------------ VG-SSL, notebook 06


def vg_ssl_rows(asked: RunRequest, seed: int) -> Iterator[_Line]:
    """(table, key, stage) of notebook 06."""
    data, world = asked.data, asked.data == WORLD
    settings = profiles.vg_ssl(asked.profile, seed, backbone=asked.backbone or "resnet50")
    opened = functools.cache(lambda: material.open_sets(settings, data))
    source = _source(data, settings.train, tuple(settings.tests.items()))
    photos = 2 * sum(drive.places for drive in (*settings.train, *settings.joined, *settings.tests.values()))
    drives = Stage("drives", source, opened, items=photos if world else 0)

    def stage(
        config: VgSsl, sets: Callable[[], tuple[Dataset, Mapping[str, Dataset]]] = opened,
        named: tuple[Any, ...] = source, needs: tuple[Stage, ...] = (drives,), queries: int = 0,
    ) -> Stage:  # fmt: skip
        def run() -> StageResult:
            train, tests = sets()
            return stages.learn(train, config, tests)

        count = queries or config.queries or sum(drive.places for drive in settings.train)
        return Stage("vg-ssl", (config, *named), run, needs, count)

    if settings.real and world and material.real_frames():
        frames = functools.cache(lambda: material.open_frames(settings))
        named = settings.frames, *(files_digest(str(samples() / name)) for name in material.REAL_FRAMES)
        for key, config in settings.real.items():
            yield "06/real", key, stage(config, frames, named, (), settings.frames or NORDLAND_TRAINING)
    for key, config in settings.methods.items():
        yield "06/main", key, stage(config)
    if world:
        every = functools.cache(lambda: (material.open_drives(settings.joined), opened()[1]))
        for key in variants.JOINED:
            yield "06/joined", key, stage(settings.methods[key], every, (*source, settings.joined))
    for key, _, _, config in variants.geopair(settings):
        yield "06/geopair", key, stage(config)
    for key, config in variants.projectors(settings):
        yield "06/projector", key, stage(config)
    for key, _, config in variants.minings(settings):
        yield "06/cost", key, stage(config)
    if world:
        own = _Ucvgl.of(settings.cold_start, WORLD).fewer()
        for key, _, config in variants.pretraining_losses(settings, own.count):
            found = own.cold_start_with(config) if isinstance(config, WithLoss) else own.cold_start(config)
            yield "06/pretraining_losses", key, found


# ------------------------------------------------------------------------------------------------------------ all of a profile


def rows(asked: RunRequest, seed: int, *, measured: bool = False) -> dict[str, Stage]:
    """What each row of a profile shows that is asked for, with one seed of the training, in the order of the notebooks.

    Names are '<number of the notebook>/<table>/<key>', as '04/ablation/no_mutual'.

    measured: leave out the rows of notebooks 02 to 05 where no held-out part has known pairs: there is no table then.
    """
    data = asked.data
    found: list[_Line] = []
    layout = WORLD if data == WORLD else detect_layout(data)
    photos = layout in (*PLACE_RECOGNITION, *FRAMES)
    if not photos:
        settings = profiles.sample4geo(asked.profile, seed, data=data, backbone=asked.backbone)
        own = _Ucvgl.of(settings.unlabelled, data)
        if measured and own.measured and settings.unlabelled.images.top_view is None:
            raise InputError(
                data, expected="panoramas, which notebooks 02 to 05 project", found=f"{layout}: photos",
                todo=f"Train rows (`ucvgl train 04/main/ucvgl_s_0 05/sampling/dss_only --data {data}`; own pairs also "
                "06/main/simclr), then `ucvgl evaluate`; University-1652 is DRONE= beside DATA=.",
            )  # fmt: skip
        if own.measured or not measured:
            found += ucvgl_rows(settings.unlabelled, data, own)
            found += sample4geo_rows(settings, asked, own)
    if photos or layout in (WORLD, "pairs"):
        found += vg_ssl_rows(asked, seed)
    kept = [line for line in found if asked.rows == "all" or line[1] in HEADLINE[line[0]]]
    named = {f"{table}/{key}": stage for table, key, stage in kept}
    assert len(named) == len(kept), "two rows of one name"
    return named


def all_stages(wanted: Iterable[Stage]) -> dict[str, Stage]:
    """These stages and those that they need, by key, each after those that it needs; what rows share stands there once."""
    found: dict[str, Stage] = {}

    def add(stage: Stage) -> None:
        for need in stage.needs:
            add(need)
        found.setdefault(stage.key, stage)

    for stage in wanted:
        add(stage)
    return found
