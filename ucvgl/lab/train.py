"""`ucvgl train`: rows of the tables or single stages, by one process or several together; notebooks then load them."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
import torch.distributed as dist

from ucvgl.data.container import Parts
from ucvgl.distributed import processes
from ucvgl.errors import InputError
from ucvgl.lab import rows
from ucvgl.lab.cost import check_fits, cost_of
from ucvgl.lab.graph import marker
from ucvgl.lab.results import device
from ucvgl.lab.settings import RunRequest
from ucvgl.lab.sources import suggest
from ucvgl.lab.stages import StageResult
from ucvgl.methods.common import BEST
from ucvgl.paths import write_json
from ucvgl.pseudo_labels import NoPseudoLabels


def train(names: Sequence[str], asked: RunRequest) -> None:
    """Computes stages that the run cache lacks, and notes for the graph that it has them.

    names: of rows, tables or notebooks, as '04/ablation/no_mutual', '04/ablation', '05'; or keys of single stages. asked: with
    one seed. InputError: a name that is none of these, or a step that takes more memory than the GPU has.
    """
    if int(os.environ.get("RANK", "0")) > 0:
        os.environ["TQDM_DISABLE"] = "1"  # one process shows the bars
    (seed,), place = asked.seeds, processes()
    known = rows.rows(asked, seed)
    wanted = {key: stage for name in names for key, stage in _find(name, known).items()}
    many = place.num_processes
    place.print(f"profile {asked.profile}, seed {seed}: {many} process(es), {place.device.type}", flush=True)
    for key, stage in wanted.items() if place.device.type == "cuda" else ():  # all before anything runs
        check_fits(key, cost_of(stage), torch.cuda.get_device_properties(place.device).total_memory)
    for key, stage in wanted.items():
        begun, found = time.time(), None
        with suppress(NoPseudoLabels):  # the row shows the cold start, and says that nothing was found
            found = stage.run()
        if isinstance(found, Parts) and not any(test.labelled for test in found.tests.values()):
            place.print("no pairs are known in a held-out part: recall cannot be measured", flush=True)
        if isinstance(found, StageResult) and (found.folder / BEST).is_file():
            place.print(f"{key}: {found.folder / BEST}", flush=True)  # for `ucvgl evaluate`
        if place.is_main_process:
            write_json(marker(key), {"seconds": round(time.time() - begun, 1), "device": device()})
        place.wait_for_everyone()
    if dist.is_initialized():
        dist.destroy_process_group()


def _find(name: str, known: Mapping[str, rows.Stage]) -> dict[str, rows.Stage]:
    """The stages of the rows whose names are `name` or begin with it, or the one stage of that key."""
    found = [stage for row, stage in known.items() if f"{row}/".startswith(f"{name.rstrip('/')}/")]
    stages = rows.all_stages(found or known.values())
    if found or name in stages:
        return stages if found else {name: stages[name]}
    expected = f"a row or a table, such as {', '.join(dict.fromkeys(row.rpartition('/')[0] for row in known))}"
    raise InputError("row", expected=expected, found=repr(name), todo=suggest(name, [*known]))
