"""The command line: `ucvgl --help`. Bad input is one line on stderr and exit status 2."""

import gc
import json
import os
import shlex
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Context, Exit, Option, Typer, echo

from ucvgl.errors import InputError

app = Typer(no_args_is_help=True, add_completion=False, help="Cross-view geo-localisation, step by step.")
data_app, weights_app = Typer(no_args_is_help=True), Typer(no_args_is_help=True)
PAPERS, YOURS = "The papers, reproduced", "Your own images"  # the panels of `ucvgl --help`
Imagery, Search = (partial(Option, rich_help_panel=panel) for panel in ("What the imagery does not say", "Search"))
app.add_typer(data_app, name="data", help="Check a data set, or export the world as one.", rich_help_panel=YOURS)
app.add_typer(weights_app, name="weights", help="Published weights.", rich_help_panel=YOURS)
Profile = Annotated[str, Option(help="tiny (tests), laptop (readers) or paper (results).")]
Data = Annotated[str, Option(help="'world', the embedded city, or the root folder of a data set.")]
Seed = Annotated[int, Option(help="Seed of everything random in a run.")]
Panorama = Annotated[str, Option(help="Your own panorama, for the notebooks that take one.")]
Other = Annotated[str, Option(help="A second data set, for notebook 05's table on generalisation.")]
Drone = Annotated[str, Option(help="University-1652 or SUES-200, for notebook 05's tables on drones.")]
Json = Annotated[bool, Option("--json", help="Print the result as JSON, on stdout.")]
Backbone = Annotated[str, Option(help="For the paper profile: a timm name; with ':frozen' only the head is trained.")]
Rows = Annotated[str, Option(help="all, headline (fewer; the paper profile's default) or smoke (a few steps).")]


def _skip(skip: bool) -> None:
    """What this process and those it starts (kernels, Snakemake's jobs) do with unreadable images."""
    if skip:
        os.environ["UCVGL_SKIP_UNREADABLE"] = "1"


Skip = Annotated[bool, Option("--skip-unreadable", callback=_skip, help="Leave out unreadable images, and count them.")]


@app.command(rich_help_panel=PAPERS)
def notebook(
    name: Annotated[str, Argument(help="The notebook's name without suffix, such as 01_projection.")],
    out: Annotated[Path, Option(help="The folder to write; it is replaced when the run is complete.")],
    profile: Profile = "laptop", data: Data = "world", seed: Seed = 0,
    panorama: Panorama = "", other: Other = "", drone: Drone = "", backbone: Backbone = "", skip_unreadable: Skip = False,
) -> None:  # fmt: skip
    """Execute one notebook; its executed copy, artefacts and results.json go to a folder."""
    from ucvgl.lab import settings, sources

    asked = settings.RunRequest(profile, data, (seed,), "", panorama, other, drone, backbone)
    try:
        sources.run_notebook(name, asked, out)
    except sources.NotebookError as error:
        raise SystemExit(str(error)) from error


@app.command(rich_help_panel=PAPERS)
def publish(
    runs: Annotated[list[Path], Argument(help="Folders of finished runs of one notebook, one per seed.")],
    out: Annotated[Path, Option(help="The folder to write, such as figures/laptop/01_projection.")],
) -> None:
    """Merge the runs of one notebook, one folder per seed, into one folder of tables and figures."""
    from ucvgl.lab import results

    results.publish(runs, out)


@app.command(rich_help_panel=PAPERS, context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def reproduce(
    context: Context, profile: Profile = "laptop", data: Data = "world", rows: Rows = "", panorama: Panorama = "",
    other: Other = "", drone: Drone = "", backbone: Backbone = "", skip_unreadable: Skip = False,
    seed: Annotated[str, Option(help="One seed, or several separated by commas.")] = "0",
    cores: Annotated[str, Option(help="How many CPU cores to use, or 'all'.")] = "all",
    stage_jobs: Annotated[bool | None, Option(help="Make each stage a job; else the notebooks train.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Print the rows, what is cached, and the cost of the rest.")] = False,
) -> None:  # fmt: skip
    """Regenerate every table and figure that is not up to date. What follows `--` is passed to Snakemake."""
    from ucvgl.lab import graph, settings

    asked = settings.RunRequest(profile, data, settings.seeds_of(seed), rows, panorama, other, drone, backbone)
    with ProcessPoolExecutor(1) as apart:  # a new plan is made with torch, which would hold 0.9 GB until Snakemake ends
        apart.submit(graph.kept_plan, asked, stage_jobs).result()
    raise Exit(graph.reproduce(asked, stage_jobs=stage_jobs, cores=cores, dry=dry_run, more=context.args))


@app.command(rich_help_panel=YOURS)
def locate(
    ground: Annotated[Path, Option(help="Folder of street panoramas or photos; no positions are needed.")],
    tiles: Annotated[Path, Option(help="Folder of satellite tiles: z/x/y names, GeoTIFF, or with a table.")],
    out: Annotated[Path, Option(help="Folder to write: new, empty, or from an earlier run.")],
    ground_table: Annotated[Path | None, Imagery(help="CSV: file, and heading_deg, fov_deg or both.")] = None,
    tiles_table: Annotated[Path | None, Imagery(help="CSV: file, latitude, longitude, span_m or metres_per_pixel.")] = None,
    kind: Annotated[Literal["panorama", "photo"] | None, Imagery(help="Kind of pictures, if their shape does not tell.")] = None,
    fov: Annotated[float | None, Imagery(help="Field of view, degrees, of photos that do not state one.")] = None,
    heading: Annotated[float | None, Imagery(help="Azimuth of the image centre, degrees; 0: north. Else searched.")] = None,
    camera_height: Annotated[float, Imagery(help="Metres above the ground.")] = 2.5,
    scheme: Annotated[Literal["xyz", "tms", "zyx"] | None, Imagery(help="tms: from the south; zyx: ArcGIS.")] = None,
    epsg: Annotated[int | None, Imagery(help="Coordinate system of tiles that do not state one.")] = None,
    span: Annotated[float, Search(help="Edge of a candidate in metres.")] = 50.0,
    stride: Annotated[float | None, Search(help="Metres between candidates. Default: a quarter of the span.")] = None,
    checkpoint: Annotated[str, Search(help="Encoders: world (committed), or a .safetensors file.")] = "world",
    epochs: Annotated[int, Search(help="Epochs of training on this imagery, without labels, such as 10.", min=0)] = 0,
    truth: Annotated[Path | None, Imagery(help="CSV to compare with: file, latitude, longitude.")] = None,
    seed: Annotated[int, Search(help="Seed of everything random.")] = 0,
    drive: Annotated[Literal["time", "name"] | None, Search(help="Place a drive's pictures together, in this order.")] = None,
    speed: Annotated[float, Search(help="Highest speed of a drive by time, metres per second.")] = 15.0,
    step: Annotated[float, Search(help="Largest step of a drive by name, metres between two pictures.")] = 50.0,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what the folders hold, and stop.")] = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Place street pictures on a map of satellite tiles. Exit status: 0 written, 2 not usable, 130 stopped."""
    from ucvgl.locate import inputs, located

    request = inputs.Request(
        ground=ground, tiles=tiles, out=out, ground_table=ground_table, tiles_table=tiles_table, kind=kind, fov_deg=fov,
        heading_deg=heading, camera_height_m=camera_height, scheme=scheme, epsg=epsg,
        span_m=span, stride_m=stride, checkpoint=checkpoint, epochs=epochs, truth=truth,
        seed=seed, drive=drive, speed_m_s=speed, step_m=step,
    )  # fmt: skip
    try:
        with redirect_stdout(sys.stderr if as_json else sys.stdout):  # stages say what they do: beside the JSON
            if dry_run:
                located.check_folder(out)
                seen = inputs.read_inputs(request)
                tiles, candidates = len(seen.candidates.mosaic.rasters), len(seen.candidates)
                summary = seen.ground.counts() | {"tiles": tiles, "candidates": candidates}
                text = located.rendered("inputs.txt.j2", inputs=seen)
            else:
                outcome = located.locate(request, command=shlex.join(["ucvgl", *sys.argv[1:]]))
                summary, text = outcome.summary(), located.rendered("outcome.txt.j2", outcome=outcome)
    except KeyboardInterrupt:
        echo("ucvgl: stopped; what was computed is kept, and the same command goes on from there", err=True)
        raise Exit(130) from None
    echo(json.dumps(summary, indent=2) if as_json else text)


@app.command(rich_help_panel=PAPERS)
def train(
    rows: Annotated[list[str], Argument(help="Such as 04/ablation/no_mutual; 04/ablation for a table, 05 for a notebook.")],
    profile: Profile = "laptop", data: Data = "world", seed: Seed = 0,
    other: Other = "", drone: Drone = "", backbone: Backbone = "", skip_unreadable: Skip = False,
) -> None:  # fmt: skip
    """Train rows, which `reproduce --dry-run` lists, into the run cache; by `accelerate launch` each in several processes."""
    from ucvgl.lab import settings, train

    train.train(rows, settings.RunRequest(profile, data, (seed,), "all", "", other, drone, backbone))
    os._exit(0)  # all is written; what torch has loaded is not taken apart, a second of every job


@app.command()
def evaluate(
    data: Annotated[Path, Option(help="The root folder of a data set.")],
    weights: Annotated[Path | None, Option(help="The .safetensors of a training or of `weights convert`.")] = None,
    backbone: Annotated[str, Option(help="Or a timm name, with its published weights.")] = "",
    image_px: Annotated[tuple[int, int] | None, Option(help="Height and width for --backbone, if not its own.")] = None,
    layout: Annotated[str, Option(help="As for `data check`; recognised by default.")] = "auto",
    part: Annotated[list[str] | None, Option(help="Such as val or 'test drone2satellite'; repeatable. Default: all.")] = None,
    ranks: Annotated[Path | None, Option(help="A CSV to write: the rank of each query's best positive.")] = None,
    as_json: Json = False, skip_unreadable: Skip = False,
) -> None:  # fmt: skip
    """Evaluate an encoder on a data set by its published protocol: recall, hit rate or AP. Nothing is trained."""
    from ucvgl.lab import evaluate as lab

    tests = lab.open_tests(data, layout, part or ())  # what it lacks is said before weights are fetched
    table = lab.evaluate(lab.encoder_of(weights, backbone, image_px), tests, ranks=ranks)
    notes = "".join(f"\n{label}: {test.note}" for label, test in tests.items() if test.note)
    echo(table.to_json(orient="index", indent=2) if as_json else f"{table.round(2).to_string()}\n{notes}")


@data_app.command()
def check(
    name: Annotated[str, Argument(help="cvusa, cvact, vigor, university1652, sues200, msls, ..., folders or auto.")],
    root: Annotated[Path, Argument(help="The data set's folder.")],
    quick: Annotated[bool, Option("--quick", help="Decode a sample of the images instead of all.")] = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Say whether a data set is complete and what to fix. Exit status: 0 complete, 1 findings, 2 not usable."""
    from ucvgl.data.check import check as check_dataset

    report = check_dataset(name, root, quick=quick)
    echo(report.json() if as_json else report.text())
    raise Exit(report.exit_status)


@data_app.command()
def export(
    source: Annotated[Literal["world"], Argument(help="The embedded city.")],
    out: Annotated[Path, Argument(help="The folder to write: absent or empty.")],
    layout: Annotated[str, Option(help="cvusa, cvact, vigor, university1652, sues200, vpr or frames.")],
    places: Annotated[int, Option(help="How many places, over all cities.")] = 300,
    seed: Annotated[int, Option(help="Seed of the cities and of everything drawn.")] = 0,
    tile_px: Annotated[int, Option(help="Edge of a tile.")] = 128,
    panorama_px: Annotated[int, Option(help="Height of a panorama; CVUSA's strips show 224/616 of it.")] = 128,
    photo_px: Annotated[int, Option(help="Edge of a drone image, width of a photo.")] = 128,
    city_size_m: Annotated[float, Option(help="Edge of a city, metres.")] = 768.0,
) -> None:
    """Write the embedded world in the layout of a published data set; the folder appears when it is complete."""
    from ucvgl.world import export, pairs

    city = pairs.WorldConfig(("garden", "canal"), seed, places, panorama_px=panorama_px, tile_px=tile_px)
    root = export.export_world(layout, out, replace(city, city_size_m=city_size_m), photo_px=photo_px)
    echo(f"The {source} is written: {root}. Check it with: ucvgl data check {layout} {root}")


@data_app.command()
def city(
    out: Annotated[Path, Argument(help="The folder to write: absent or empty.")],
    style: Annotated[str, Option(help="garden, canal, old_town or downtown.")] = "downtown",
    places: Annotated[int, Option(help="How many pictures.")] = 300,
    seed: Annotated[int, Option(help="Seed of the city and of everything drawn.")] = 0,
    photo_fov: Annotated[float | None, Option(help="Photos of this many degrees across instead of panoramas.")] = None,
) -> None:
    """Write a synthetic city as unlabelled pictures and positioned tiles, for `ucvgl locate`, with the truth beside them."""
    from ucvgl.world.export import OWN_CITY, export_own_city

    world = replace(OWN_CITY, styles=(style,), places=places, seed=seed, panorama_px=128 if photo_fov is None else 512)
    root = shlex.quote(str(export_own_city(out, world, photo_fov_deg=photo_fov)))
    more = "--heading 0" if photo_fov is None else f"--ground-table {root}/ground.csv"
    echo(f"Written: {root}. Its places: ucvgl locate --ground {root}/ground --tiles {root}/tiles {more} --out FOLDER")


@weights_app.command()
def convert(
    checkpoint: Annotated[Path, Argument(help="A .pth file, as the authors of Sample4Geo published it.")],
    target: Annotated[Path, Argument(help="The .safetensors file to write.")],
    ground_px: Annotated[tuple[int, int], Option(help="Height and width of the ground images.")] = (140, 768),
    satellite_px: Annotated[tuple[int, int], Option(help="Height and width of the tiles.")] = (384, 384),
) -> None:
    """Turn a checkpoint of Sample4Geo's authors into one that ucvgl opens; nothing in it is run."""
    from ucvgl.encoders import convert_sample4geo

    model = convert_sample4geo(checkpoint, target, ground_px, satellite_px)
    echo(f"Written: {target}, a shared encoder of {model.ground.dim} numbers")


def main() -> None:
    """The `ucvgl` command."""
    gc.set_threshold(200_000)  # torch loads a fifth quicker
    try:
        app()
    except InputError as error:
        sys.stderr.write(f"ucvgl: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
