"""The rows of the tables, and what each has to train: the unit of work of `make reproduce`.

A row is a line of a table in a notebook; a stage is one computation that the run cache keeps, such as a training. Rows share
stages, and so do seeds where a stage does not depend on one (the rendered world). The Snakefile makes a job of each stage.
"""

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ucvgl.data import FRAMES, PLACE_RECOGNITION, detect_layout
from ucvgl.data.container import Dataset, Parts
from ucvgl.data.university import HEIGHTS
from ucvgl.encoders import EncoderConfig
from ucvgl.errors import InputError
from ucvgl.lab import material, profiles, real_pairs, stages, variants
from ucvgl.lab.cache import StageResult
from ucvgl.lab.memory import training_of
from ucvgl.lab.results import plain_settings
from ucvgl.lab.settings import WORLD, RunRequest, asked_rows
from ucvgl.methods.pretraining_losses import WithLoss
from ucvgl.methods.sample4geo import Sample4Geo
from ucvgl.methods.ucvgl import Curriculum, Pretraining, intra_key
from ucvgl.methods.vg_ssl import VgSsl
from ucvgl.paths import files_digest, samples
from ucvgl.pseudo_labels import NoPseudoLabels
from ucvgl.sampling import NeighbourDraw
from ucvgl.translation import CycleGanConfig


@dataclass(frozen=True)
class Stage:
    """One computation that the run cache keeps."""

    name: str  # as in the run cache
    settings: tuple[Any, ...]  # all it depends on, the images included; of dataclasses, numbers and texts
    run: Callable[[], object] = field(repr=False, compare=False)  # computes it, or finds it
    needs: tuple["Stage", ...] = ()  # stages it begins with
    passes: int = 0  # images that are rendered, or that go through an encoder forwards and backwards, about
    work: str = ""  # what is done with each, a line of rates.csv; '' where that takes no time to speak of
    steps: int = 0  # of the optimiser, about

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


# ----------------------------------------------------------------------------------------------------------- work of a stage


def trained(
    name: str, settings: tuple[Any, ...], run: Callable[[], object], needs: tuple[Stage, ...], items: int
) -> Stage:
    """A stage that trains the encoders of its first setting, on so many `items` an epoch."""
    found = training_of(name, settings[0])
    if found is None:  # left out: no intra-view, or no cross-view step
        return Stage(name, settings, run, needs)
    training, views = found
    first, _ = views[0]
    seen = sum(images * math.prod(encoder.image_px) for encoder, images in views) / math.prod(first.image_px)
    if name == "curriculum":  # embedded for mining after each epoch: a quarter of a step's work
        seen *= 1.25
    steps = training.epochs * max(1, items // training.batch_size)
    return Stage(name, settings, run, needs, int(training.epochs * seen * items), encoder_work(first), steps)


def encoder_work(encoder: EncoderConfig) -> str:
    """A line of rates.csv."""
    depth = "" if encoder.depth is None else f" to stage {encoder.depth}"
    return f"training {encoder.backbone}{depth}, {encoder.image_px[0]} x {encoder.image_px[1]} px"


def gan_work(gan: CycleGanConfig) -> str:
    """A line of rates.csv."""
    return f"training CycleGAN of {gan.channels} channels and {gan.blocks} blocks, {gan.crop_px} px"


def rendering_work(what: str, height_px: int) -> str:
    """A line of rates.csv."""
    return f"rendering {what}, {height_px} px high"


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
    located: bool  # whether every tile has a position
    measured: bool  # whether a held-out part has known pairs
    part: str = ""  # of the images; '' for all

    @staticmethod
    def of(settings: profiles.UcvglSettings, data: str) -> "_Ucvgl":
        given = functools.cache(lambda: material.material(settings, data, measured=False))
        world, named = settings.train, (*_source(data, settings.train, settings.test), settings.images)
        if data == WORLD:
            work = rendering_work("panoramas and tiles", world.panorama_px)
            images = Stage("images", named, given, (), world.places + settings.test.places, work)
            return _Ucvgl(images, given, world.places, located=True, measured=True)
        listed = material.open_parts(data, world, settings.test)  # the lists alone
        measured = any(test.labelled for test in listed.tests.values())
        located = material.located(listed.train)
        return _Ucvgl(Stage("images", named, given), given, len(listed.train), located, measured)

    @property
    def place(self) -> tuple[Any, ...]:
        """What names the images in a stage's settings."""
        return (self.part, *self.images.settings)

    def fewer(self) -> "_Ucvgl":
        """The same on every second place (see `material.fewer`)."""
        given = functools.cache(lambda: material.fewer(self.given()))
        return replace(self, given=given, count=self.count // 2, part="every second place")

    def cold_start(self, start: Pretraining) -> Stage:
        needs = [self.images]
        if start.intra is not None:
            needs.append(trained(
                "intra-view", (intra_key(start), *self.place), lambda: stages.intra_view(self.given().unlabelled, start),
                (self.images,), self.count,
            ))  # fmt: skip
        if start.cross is not None and start.translation.kind == "cyclegan":
            gan = start.translation.gan
            needs.append(Stage(
                "translation", (start.translation, start.projection, *self.place),
                lambda: stages.translation(self.given().unlabelled, start), (self.images,),
                (gan.epochs + gan.decay_epochs) * gan.batch * (gan.steps_per_epoch or 0), gan_work(gan),
            ))  # fmt: skip
        return trained(
            "cross-view", (start, *self.place), lambda: stages.pretrain(self.given().unlabelled, start, self.given()),
            tuple(needs), self.count,
        )  # fmt: skip

    def cold_start_with(self, config: WithLoss) -> Stage:
        return trained(
            "cold-start-with", (config, *self.images.settings),
            lambda: stages.cold_start_with(self.given().unlabelled, config, self.given()), (self.images,), self.count,
        )  # fmt: skip

    def curriculum(self, steps: Curriculum, hard: NeighbourDraw | None = None) -> Stage:
        def run() -> object:
            try:
                return stages.curriculum(self.given().unlabelled, steps, self.given(), hard=hard)
            except NoPseudoLabels:  # the row shows the cold start, and says that nothing was found
                return None

        first = self.cold_start(steps.start) if steps.pretrained else self.images
        return trained("curriculum", (steps, hard, *self.place), run, (first,), self.count)


def ucvgl_rows(settings: profiles.UcvglSettings, data: str, own: _Ucvgl) -> Iterator[_Line]:
    """(table, key, stage) of notebooks 02 and 04; 03 looks at the first of them."""
    for table, starts in (
        ("02/cold_start", variants.cold_start(settings.start)), ("02/translation", variants.translations(settings)),
    ):  # fmt: skip
        for key, _, start in starts:
            yield table, key, own.cold_start(start)
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
    data, other = asked.data, asked.other
    world, photos = data == WORLD, settings.method.tile_kind == "photo"
    grids = _source(data, settings.trained, settings.unseen)
    opened = functools.partial(material.open_areas, settings, data, settings.method)
    images = Stage("areas", (*grids, settings.images), opened)
    count, few = given.count, given.count
    if world:
        work = rendering_work("panoramas and tiles", settings.trained.panorama_px)
        images = replace(images, passes=2 * (settings.trained.places + settings.unseen.places), work=work)
        count, few = settings.trained.places * 3 // 4, settings.small

    def stage(
        config: Sample4Geo, areas: Callable[[], list[Parts]], named: tuple[Any, ...], count: int,
        needs: tuple[Stage, ...] = (images,),
    ) -> Stage:  # fmt: skip
        def run() -> StageResult:
            return [stages.supervise(area.train, config, area.tests) for area in areas()][-1]

        return trained("sample4geo", (config, *named), run, needs, count)

    for key, _, config in variants.sampling(settings, located=given.located):
        yield "05/sampling", key, stage(config, opened, ("areas", *grids), count)
    if other or world:
        cities = functools.cache(lambda: list(material.open_others(settings, data, other).values()))
        names = (*settings.trained.styles, *settings.unseen.styles) if world else map(detect_layout, (data, other))
        for number, name in enumerate(names):
            named = ("trained on", number, *grids, *(_source(other) if other else ()))
            yield "05/generalisation", name, stage(settings.brief, lambda n=number: [cities()[n]], named, few)
    if asked.drone or world:
        named = ("drone", *(_source(asked.drone) if asked.drone else (settings.flights,)))
        # University-1652's training drone images; three fifths of the world's places are trained on
        number = 37_854 if asked.drone else settings.flights.places * settings.flights.views * 3 // 5
        yield (
            "05/drone",
            "full",
            stage(settings.drone, lambda: [material.open_flights(settings, asked.drone)], named, number, ()),
        )
    if world:
        number = len(HEIGHTS) * settings.heights.places * settings.heights.views * 3 // 5
        named = ("heights", settings.heights)
        yield "05/heights", "full", stage(settings.drone, lambda: [material.open_heights(settings)], named, number, ())
    for table, rows in (
        ("05/architecture", variants.architectures(settings)), ("05/fields_of_view", variants.fields_of_view(settings)),
    ):  # fmt: skip
        for key, _, config in rows[:-1] if photos else rows:
            area = functools.partial(material.one_area, settings, data, config)
            yield table, key, stage(config, lambda area=area: [area()], ("trained on", 0, *grids), few)
    fewer = given.fewer() if world else given
    for key, _, config in variants.unlabelled(settings):
        if isinstance(config, Curriculum):
            hard = settings.brief.sampling.draw if key == "ucvgl_dss" else None
            yield "05/unlabelled", key, fewer.curriculum(config, hard)
        else:
            area = functools.partial(material.for_supervision, config)
            named = ("all", fewer.part, *given.images.settings[:-1])
            yield (
                "05/unlabelled",
                key,
                stage(config, lambda a=area: [a(fewer.given())], named, fewer.count, (given.images,)),
            )
    if world and settings.real is not None and real_pairs.at_hand():
        recipe, files = settings.real, files_digest(str(samples() / real_pairs.FOLDER))
        passes = 4 * recipe.training.epochs * recipe.images * (recipe.folds - 1) // recipe.folds
        for fold in range(recipe.folds):
            run = functools.partial(real_pairs.measure_fold, recipe, fold)
            one = Stage("real-pairs", (recipe, fold, files), run, (), passes, encoder_work(recipe.encoder))
            yield "05/real", f"fold_{fold}", one


# ------------------------------------------------------------------------------------------------------ VG-SSL, notebook 06


NORDLAND_TRAINING = 2386  # frames of its first part, about


def vg_ssl_rows(asked: RunRequest, seed: int) -> Iterator[_Line]:
    """(table, key, stage) of notebook 06."""
    data, settings = asked.data, profiles.vg_ssl(asked.profile, seed, backbone=asked.backbone or "resnet50")
    opened = functools.cache(lambda: material.open_sets(settings, data))
    photos = 2 * sum(drive.places for drive in (*settings.train, *settings.joined, *settings.tests.values()))
    source = _source(data, settings.train, tuple(settings.tests.items()))
    drives = Stage("drives", source, opened, (), photos, rendering_work("photos", settings.photo_px[0]))

    def stage(
        config: VgSsl, sets: Callable[[], tuple[Dataset, Mapping[str, Dataset]]] = opened,
        named: tuple[Any, ...] = source, needs: tuple[Stage, ...] = (drives,), queries: int = 0,
    ) -> Stage:  # fmt: skip
        def run() -> StageResult:
            train, tests = sets()
            return stages.learn(train, config, tests)

        count = queries or config.queries or sum(drive.places for drive in settings.train)
        return trained("vg-ssl", (config, *named), run, needs, count)

    if settings.real and data == WORLD and material.real_frames():
        frames = functools.cache(lambda: material.open_frames(settings))
        named = settings.frames, *(files_digest(str(samples() / name)) for name in material.REAL_FRAMES)
        for key, config in settings.real.items():
            yield "06/real", key, stage(config, frames, named, (), settings.frames or NORDLAND_TRAINING)
    for key, config in settings.methods.items():
        yield "06/main", key, stage(config)
    if data == WORLD:
        every = functools.cache(lambda: (material.open_drives(settings.joined), opened()[1]))
        for key in variants.JOINED:
            yield "06/joined", key, stage(settings.methods[key], every, (*source, settings.joined))
    for key, _, _, config in variants.geopair(settings):
        yield "06/geopair", key, stage(config)
    for key, config in variants.projectors(settings):
        yield "06/projector", key, stage(config)
    for key, _, config in variants.minings(settings):
        yield "06/cost", key, stage(config)
    if data == WORLD:
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
