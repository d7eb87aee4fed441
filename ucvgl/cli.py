"""The command line: `ucvgl --help`. Bad input is one line on stderr and exit status 2."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ucvgl.errors import InputError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Cross-view geo-localisation, step by step.")

Profile = Annotated[str, typer.Option(help="tiny (tests), laptop (readers) or paper (results).")]
Data = Annotated[str, typer.Option(help="'world', the embedded city, or the root folder of a data set.")]


def _pairs(entries: list[str]) -> dict[str, str]:
    """`name=value` entries as a mapping; InputError for an entry without '=' or a name given twice."""
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not (name and equals) or name in found:
            raise InputError("--set", expected="name=value, each name once", found=repr(entry), todo="Correct it.")
        found[name] = value
    return found


@app.command()
def notebook(
    name: Annotated[str, typer.Argument(help="The notebook's name without suffix, as 01_projection.")],
    out: Annotated[Path, typer.Option(help="The folder to write; it is replaced when the run is complete.")],
    profile: Profile = "laptop",
    data: Data = "world",
    seed: Annotated[int, typer.Option(help="Seed of everything random in it.")] = 0,
    parameter: Annotated[list[str] | None, typer.Option("--set", help="Another parameter, as name=value.")] = None,
) -> None:
    """Execute one notebook: its executed copy, artefacts and results.json go to a folder."""
    from ucvgl import engine

    try:
        engine.run_notebook(name, profile=profile, data=data, seed=seed, extra=_pairs(parameter or []), out=out)
    except engine.NotebookError as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from error


@app.command()
def publish(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs of one notebook: their folders, one a seed.")],
    out: Annotated[Path, typer.Option(help="The folder to write, as figures/laptop/01_projection.")],
) -> None:
    """Merge the runs of one notebook, a folder a seed, into one folder of tables and figures."""
    from ucvgl import results

    results.publish(runs, out)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def reproduce(
    context: typer.Context,
    profile: Profile = "laptop",
    data: Data = "world",
    seed: Annotated[str, typer.Option(help="One seed, or several separated by commas.")] = "0",
    panorama: Annotated[str, typer.Option(help="A panorama of yours for the notebooks that take one.")] = "",
    other: Annotated[str, typer.Option(help="A second data set, for notebook 05's table on generalisation.")] = "",
    drone: Annotated[str, typer.Option(help="University-1652, for notebook 05's table on drones.")] = "",
    backbone: Annotated[str, typer.Option(help="Of notebook 06's paper profile: resnet50 or deit_small.")] = "",
    cores: Annotated[str, typer.Option(help="How many CPU cores to use, or 'all'.")] = "all",
) -> None:
    """Regenerate every table and figure that is not up to date. What follows `--` is handed to Snakemake."""
    from ucvgl import engine

    given = {"panorama": panorama, "other": other, "drone": drone, "backbone": backbone}
    raise typer.Exit(
        engine.reproduce(profile=profile, data=data, seed=seed, given=given, cores=cores, more=context.args)
    )


@app.command("refresh-notebooks")
def refresh_notebooks() -> None:
    """Renew the outputs shown in the committed notebooks (laptop profile, embedded world, seed 0)."""
    from ucvgl import engine

    raise typer.Exit(engine.refresh_notebooks())


data_app = typer.Typer(no_args_is_help=True, help="Data sets: check one, or export the embedded world as one.")
app.add_typer(data_app, name="data")


@data_app.command()
def check(
    name: Annotated[
        str, typer.Argument(help="cvusa, cvact, vigor, university1652, sues200, msls, ..., folders or auto.")
    ],
    root: Annotated[Path, typer.Argument(help="The data set's folder.")],
    quick: Annotated[bool, typer.Option("--quick", help="Decode a sample of the images instead of all.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say whether a data set is complete and what to mend. Exit status: 0 complete, 1 findings, 2 not usable."""
    from ucvgl.datasets.check import check as check_dataset

    report = check_dataset(name, root, quick=quick, progress=not as_json)
    typer.echo(report.json() if as_json else report.text())
    raise typer.Exit(report.exit_status)


@data_app.command()
def export(
    source: Annotated[str, typer.Argument(help="'world', the embedded city.")],
    out: Annotated[Path, typer.Argument(help="The folder to write: absent or empty.")],
    layout: Annotated[str, typer.Option(help="cvusa, cvact, vigor, university1652, sues200 or vpr.")],
    places: Annotated[int, typer.Option(help="How many places, over all cities.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed of the cities and of everything drawn.")] = 0,
    style: Annotated[list[str] | None, typer.Option(help="A city's style; repeat it. Else garden and canal.")] = None,
    difficulty: Annotated[str, typer.Option(help="easy, medium or hard.")] = "medium",
    span_m: Annotated[float, typer.Option(help="Edge of a tile on the ground, metres.")] = 50.0,
    tile_px: Annotated[int, typer.Option(help="Edge of a tile.")] = 128,
    panorama_px: Annotated[int, typer.Option(help="Height of a panorama; CVUSA's strips show 224/616 of it.")] = 128,
    photo_px: Annotated[int, typer.Option(help="Edge of a drone image, width of a photo.")] = 128,
    city_size_m: Annotated[float, typer.Option(help="Edge of a city, metres.")] = 768.0,
    resolution_m: Annotated[float, typer.Option(help="Of the city's rasters, metres a pixel.")] = 0.25,
) -> None:
    """Write the embedded world in the layout of a published data set; the folder appears when it is complete."""
    if source != "world":
        raise InputError("data export", expected="world", found=repr(source), todo="Only that one is exported.")
    from ucvgl.datasets.export import export_world

    root = export_world(
        layout, out, places=places, seed=seed, styles=tuple(style or ("garden", "canal")), difficulty=difficulty,
        span_m=span_m, tile_px=tile_px, panorama_px=panorama_px, photo_px=photo_px, city_size_m=city_size_m,
        resolution_m=resolution_m,
    )  # fmt: skip
    typer.echo(f"Written: {root}. Check it with: ucvgl data check {layout} {root}")


weights_app = typer.Typer(no_args_is_help=True, help="Published weights.")
app.add_typer(weights_app, name="weights")


@weights_app.callback()
def _weights() -> None:
    """Published weights."""


@weights_app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="As the authors of Sample4Geo published it, a .pth file.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    ground_px: Annotated[tuple[int, int], typer.Option(help="Height and width of the ground images.")] = (140, 768),
    satellite_px: Annotated[tuple[int, int], typer.Option(help="Height and width of the tiles.")] = (384, 384),
) -> None:
    """Turn a checkpoint of Sample4Geo's authors into one that ucvgl opens; nothing in it is run."""
    from ucvgl.sample4geo_weights import convert_sample4geo

    model = convert_sample4geo(checkpoint, target, ground_px, satellite_px)
    typer.echo(
        f"Written: {target}, a shared encoder of {model.ground.dim} numbers, scale {float(model.scale.detach()):.1f}"
    )


def main() -> None:
    """The `ucvgl` command."""
    try:
        app()
    except InputError as error:
        sys.stderr.write(f"ucvgl: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
