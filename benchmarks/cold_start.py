"""Why two rows of notebook 02's cold start do not stand as published: its fakes are worth little here, its step 3 less.

    python benchmarks/cold_start.py [--seed 0] [ROW ...]

Trains rows of the laptop profile that no notebook has, in the run cache, and prints a line of Markdown for each: R@1 in the
held-out city, labels found by the first mining, and the part of them that is right.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from ucvgl.data.container import ArrayImages, Dataset, Parts
from ucvgl.lab import material, profiles, stages, variants
from ucvgl.lab.settings import WORLD
from ucvgl.methods import ucvgl
from ucvgl.methods.curriculum import first_labels, label_counts
from ucvgl.methods.ucvgl import Pretraining

FALSE_COLOURS = [1, 2, 0]  # a satellite whose red, green and blue are another's green, blue and red


def schedule_of_its_own(start: Pretraining) -> Pretraining:
    """Step 4 with the warm-up and the whole cosine that it has where step 3 is left out."""
    return replace(start, cross=replace(start.cross, epochs_before=0))


def schedule_goes_on(start: Pretraining) -> Pretraining:
    """No step 3, and step 4 at the learning rates that it has after one."""
    return replace(variants.without(start, "no_intra_view"), cross=start.cross)


def no_fakes(start: Pretraining) -> Pretraining:
    """The top view in the place of its fake."""
    return variants.without(start, "no_fakes")


# a row's name: the images it is trained and tested on, and what it changes
ROWS: dict[str, tuple[str, Callable[[Pretraining], Pretraining]]] = {
    "step 4 with a schedule of its own": ("as rendered", schedule_of_its_own),
    "no step 3, the schedule goes on": ("as rendered", schedule_goes_on),
    "tiles in false colours, full": ("false colours", lambda start: start),
    "tiles in false colours, no fakes": ("false colours", no_fakes),
}


def in_false_colours(data: Dataset) -> Dataset:
    """The same data, its tiles' channels changed about."""
    tiles: Tensor = data.gallery[:][:, FALSE_COLOURS].contiguous()
    return replace(data, gallery=ArrayImages(data.gallery.ids, tiles, positions=data.gallery.positions))


def main(names: Sequence[str], seed: int) -> None:
    """Trains the rows and prints them."""
    settings = profiles.ucvgl("laptop", seed)
    given = material.material(settings, WORLD)
    tests = {name: in_false_colours(test) for name, test in given.tests.items()}
    images = {"as rendered": given, "false colours": Parts(in_false_colours(given.train), tests)}
    for name in names:
        which, change = ROWS[name]
        parts, start = images[which], change(settings.start)
        stage = stages.pretrain(parts.unlabelled, start, parts)
        model = ucvgl.pretrained_model(stage.folder, start)
        counts = label_counts(first_labels(model, parts.unlabelled, settings.curriculum), parts)
        recall = stage.numbers["recall"]["r_at_1"]
        print(f"| {name} | {seed} | {recall:.1f} | {counts['labels']:.1f} | {counts['correct']:.0f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    given = parser.parse_args()
    main(given.rows or list(ROWS), given.seed)
