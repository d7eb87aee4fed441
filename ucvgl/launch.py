"""What `accelerate launch -m ucvgl.<stage>` starts: the trainings that a notebook reads, by several processes together.

    accelerate launch -m ucvgl.pretrain      notebooks 02 and 03        --profile paper --data ROOT --seed 0
    accelerate launch -m ucvgl.curriculum    notebook 04
    accelerate launch -m ucvgl.sample4geo    notebook 05, with --other and --drone
    accelerate launch -m ucvgl.vg_ssl        notebook 06, with --backbone

Each calls the functions that the notebook's cells call, with the settings of the same profile: the stages have the same
names in the run cache, and the notebook then loads them. `--no-tables` trains the method itself and no row beside it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import torch.distributed as dist
import typer

from ucvgl.data.container import Parts
from ucvgl.distributed import first_alone, processes
from ucvgl.errors import InputError
from ucvgl.methods import sample4geo_study, ucvgl_study, vg_ssl_study
from ucvgl.methods import ucvgl as method
from ucvgl.methods.sample4geo import supervise
from ucvgl.methods.ucvgl_study import Study
from ucvgl.methods.vg_ssl import learn
from ucvgl.results import WORLD, check_data, check_profile, check_seed

Profile = Annotated[str, typer.Option(help="tiny (tests), laptop (readers) or paper (results).")]
Data = Annotated[str, typer.Option(help="'world', the embedded city, or the root folder of a data set.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random in it.")]
Tables = Annotated[bool, typer.Option(help="Also the trainings of the notebook's tables, a row each.")]


def main(stage: Callable[..., None]) -> None:
    """Runs one of the stages below with the options of the command line; bad input ends every process, with status 2."""
    try:
        typer.run(stage)
    except InputError as error:
        sys.stderr.write(f"ucvgl: process {processes().process_index}: {error}\n")
        sys.exit(2)


@contextmanager
def _together(profile: str, data: str, seed: int) -> Iterator[str]:
    """Checks what was asked for and says who computes; gives the data as the notebooks name it."""
    check_profile(profile)
    check_seed(seed)
    root = check_data(data)
    place = processes()
    if place.is_main_process:
        sys.stdout.write(f"profile {profile}, seed {seed}: {place.num_processes} process(es), {place.device.type}\n")
        sys.stdout.flush()
    yield root
    place.wait_for_everyone()
    if dist.is_initialized():
        dist.destroy_process_group()


def _material(settings: Study, data: str) -> Parts:
    """The pictures, rendered and projected by the first process."""
    with first_alone():
        return ucvgl_study.material(settings, data, progress=processes().is_main_process)


def pretrain(profile: Profile = "laptop", data: Data = WORLD, seed: Seed = 0, tables: Tables = True) -> None:
    """UCVGL's cold start, which notebooks 02 and 03 read."""
    with _together(profile, data, seed) as root:
        settings = ucvgl_study.study(profile, seed, data=root)
        given = _material(settings, root)
        method.pretrain(given.unlabelled, settings.start, given)
        if tables:
            ucvgl_study.cold_start_table(settings, given)
            ucvgl_study.translation_table(settings, given)


def curriculum(profile: Profile = "laptop", data: Data = WORLD, seed: Seed = 0, tables: Tables = True) -> None:
    """UCVGL's curriculum, which notebook 04 reads, on its cold start."""
    with _together(profile, data, seed) as root:
        settings = ucvgl_study.study(profile, seed, data=root)
        given = _material(settings, root)
        method.curriculum(given.unlabelled, settings.curriculum, given)
        if not tables:
            return
        names = ucvgl_study.MAIN | ucvgl_study.RATIOS | ucvgl_study.ablation_names()
        ucvgl_study.curriculum_table(settings, given, names, "part")
        if root == WORLD:
            _material(ucvgl_study.study(profile, seed, level="hard"), root)
            ucvgl_study.harder_table(profile, seed)
            ucvgl_study.harder_ablation(profile, seed)


def sample4geo(
    profile: Profile = "laptop",
    data: Data = WORLD,
    seed: Seed = 0,
    tables: Tables = True,
    other: Annotated[str, typer.Option(help="A second data set, for the table on generalisation.")] = "",
    drone: Annotated[str, typer.Option(help="University-1652, for the table on drones.")] = "",
) -> None:
    """Sample4Geo's trainings, which notebook 05 reads."""
    with _together(profile, data, seed) as root:
        settings = sample4geo_study.study(profile, seed, data=root)
        with first_alone():
            areas = sample4geo_study.open_areas(settings, root, settings.method)
            others = sample4geo_study.open_others(settings, root, other)
        home = next(iter(others.values()), areas[0])
        supervise(home.train, settings.method, home.tests)
        if not tables:
            return
        sample4geo_study.sampling_table(settings, areas)
        if others:
            sample4geo_study.generalisation_table(settings, others)
        if drone or root == WORLD:
            with first_alone():
                flights = sample4geo_study.open_flights(settings, drone)
            sample4geo_study.drone_table(settings, flights)
        sample4geo_study.architecture_table(settings, root)
        sample4geo_study.unlabelled_table(settings, _material(settings.unlabelled, root))


def vg_ssl(
    profile: Profile = "laptop",
    data: Data = WORLD,
    seed: Seed = 0,
    tables: Tables = True,
    backbone: Annotated[str, typer.Option(help="Of the paper profile: resnet50 or deit_small.")] = "resnet50",
) -> None:
    """VG-SSL's seven methods and its tables, which notebook 06 reads."""
    with _together(profile, data, seed) as root:
        settings = vg_ssl_study.study(profile, seed, backbone=backbone)
        with first_alone():
            train, tests = vg_ssl_study.open_sets(settings, root)
        for config in settings.methods.values():
            learn(train, config, tests)
        if not tables:
            return
        for table in (vg_ssl_study.geopair_table, vg_ssl_study.projector_table, vg_ssl_study.cost_table):
            table(settings, train, tests)
        if root == WORLD:
            vg_ssl_study.pretraining_table(settings, _material(settings.cold_start, root))
