"""What `ucvgl train` trains, alone or by several processes together: the trainings that a notebook reads.

Each function calls what the notebook's cells call, with the settings of the same profile: the stages have the same names
in the run cache, and the notebook then loads them. Without `tables` the method itself is trained and no row beside it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from ucvgl.data.container import Parts
from ucvgl.distributed import main_process_first, processes
from ucvgl.lab.results import WORLD, check_data, check_profile, check_seed
from ucvgl.methods import ucvgl as method
from ucvgl.methods.sample4geo import supervise
from ucvgl.methods.vg_ssl import learn
from ucvgl.studies import sample4geo_study, ucvgl_study, vg_ssl_study
from ucvgl.studies.ucvgl_study import Study


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


def _material(settings: Study, data: str, *, measured: bool = True) -> Parts:
    """The images, rendered and projected by the main process; says so where nothing can be measured by them."""
    with main_process_first():
        given = ucvgl_study.material(settings, data, measured=measured, progress=processes().is_main_process)
    if not given.tests and processes().is_main_process:
        sys.stdout.write("trained without labels; recall cannot be measured: no pairs are known\n")
    return given


def pretrain(profile: str, data: str, seed: int, tables: bool) -> None:
    """UCVGL's cold start, which notebooks 02 and 03 read."""
    with _together(profile, data, seed) as root:
        settings = ucvgl_study.study(profile, seed, data=root)
        given = _material(settings, root, measured=tables)
        method.pretrain(given.unlabelled, settings.start, given)
        if tables:
            ucvgl_study.cold_start_table(settings, given)
            ucvgl_study.translation_table(settings, given)


def curriculum(profile: str, data: str, seed: int, tables: bool) -> None:
    """UCVGL's curriculum, which notebook 04 reads, on its cold start."""
    with _together(profile, data, seed) as root:
        settings = ucvgl_study.study(profile, seed, data=root)
        given = _material(settings, root, measured=tables)
        method.curriculum(given.unlabelled, settings.curriculum, given)
        if not tables:
            return
        names = ucvgl_study.MAIN | ucvgl_study.RATIOS | ucvgl_study.ablation_names()
        ucvgl_study.curriculum_table(settings, given, names, "part")
        if root == WORLD:
            _material(ucvgl_study.study(profile, seed, level="hard"), root)
            ucvgl_study.harder_table(profile, seed)
            ucvgl_study.harder_ablation(profile, seed)


def sample4geo(profile: str, data: str, seed: int, tables: bool, other: str = "", drone: str = "") -> None:
    """Sample4Geo's trainings, which notebook 05 reads."""
    with _together(profile, data, seed) as root:
        settings = sample4geo_study.study(profile, seed, data=root)
        with main_process_first():
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
            with main_process_first():
                flights = sample4geo_study.open_flights(settings, drone)
            sample4geo_study.drone_table(settings, flights)
        sample4geo_study.architecture_table(settings, root)
        sample4geo_study.unlabelled_table(settings, _material(settings.unlabelled, root))


def vg_ssl(profile: str, data: str, seed: int, tables: bool, backbone: str = "resnet50") -> None:
    """VG-SSL's seven methods and its tables, which notebook 06 reads."""
    with _together(profile, data, seed) as root:
        settings = vg_ssl_study.study(profile, seed, backbone=backbone)
        with main_process_first():
            train, tests = vg_ssl_study.open_sets(settings, root)
        for config in settings.methods.values():
            learn(train, config, tests)
        if not tables:
            return
        for table in (vg_ssl_study.geopair_table, vg_ssl_study.projector_table, vg_ssl_study.cost_table):
            table(settings, train, tests)
        if root == WORLD:
            vg_ssl_study.pretraining_table(settings, _material(settings.cold_start, root))
