"""How fast the embedded world is made, how much memory it takes, and that threads don't change a bit of it.

Everything is on: tilt, season, shadows, cars, blur, noise, as `ucvgl.world.pairs` renders it. Repeats are interleaved and the
median counts, its spread beside it: other work on the machine shows there. Writes world.csv and world.md into --out.

    python benchmarks/world.py --size 128 --repeats 5
"""

import argparse
import csv
import hashlib
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ucvgl.world.appearance import Condition
from ucvgl.world.city import make_city
from ucvgl.world.pairs import WorldConfig, city_of, panorama_bytes, world_pairs
from ucvgl.world.render import Scene
from ucvgl.world.rendering import RENDER_BATCH
from ucvgl.world.sensor import expose
from ucvgl.world.styles import STYLES
from ucvgl.world.views import drone_images, photos, satellite_tiles

PLACES = 96
TARGET = 150  # panoramas of 128x256 a second on two cores, with everything on
CITY_M = 512.0
ROWS: list[dict[str, object]] = []


def timed(work: Callable[[], object]) -> float:
    """Seconds that some work takes."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def rates(works: dict[str, tuple[int, Callable[[], object]]], repeats: int, unit: str) -> None:
    """Time several works, interleaved, and note how many items a second each makes."""
    for _, work in works.values():
        work()  # lights the days, warms the caches
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, (_, work) in works.items():
            seconds[name].append(timed(work))
    for name, (count, _) in works.items():
        note(
            name, count / statistics.median(seconds[name]), unit, count / max(seconds[name]), count / min(seconds[name])
        )


def note(what: str, value: float | str, unit: str, low: float | str = "", high: float | str = "") -> None:
    """Keep and print one measurement."""
    ROWS.append({"what": what, "value": value, "unit": unit, "lowest": low, "highest": high})
    text = value if isinstance(value, str) else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
    print(f"{what:<58} {text:>12} {unit}", flush=True)


def batches(count: int = PLACES) -> list[np.ndarray]:
    """Numbers of places, a rendering batch at a time."""
    return [np.arange(first, min(first + RENDER_BATCH, count)) for first in range(0, count, RENDER_BATCH)]


def pictures(size: int, repeats: int, device: torch.device) -> None:
    """Pictures a second: panoramas by level, tiles by size, photos, drone images."""
    works: dict[str, tuple[int, Callable[[], object]]] = {}
    for level in ("easy", "medium", "hard"):
        config = WorldConfig(difficulty=level, places=PLACES, city_size_m=CITY_M)
        scene, places, nuisance = city_of(config, 0, PLACES, device)

        def panoramas(scene=scene, places=places, nuisance=nuisance) -> None:  # noqa: ANN001
            for here in batches():
                panorama_bytes(scene, places, nuisance, here, size)

        works[f"panoramas {size}x{2 * size}, {level}"] = (PLACES, panoramas)

    day, sensor = nuisance.satellite_day, nuisance.satellite_sensor
    east, north, heading = (torch.from_numpy(v).to(device) for v in (places.east_m, places.north_m, places.heading_deg))
    for tile_px in (64, 128):

        def tiles(tile_px: int = tile_px) -> None:
            for here in batches():
                view = satellite_tiles(scene, day, east[here], north[here], span_m=50, size_px=tile_px)
                expose(view.rgb, sensor.take(here))

        works[f"satellite tiles {tile_px}x{tile_px}"] = (PLACES, tiles)

    few = slice(0, 32)
    eye = torch.full_like(east[few], 2.5)
    works["photos 96x128"] = (32, lambda: photos(scene, day, east[few], north[few], eye, heading[few]))
    # drones stand back from their place by 0.84 of their altitude: keep to the middle of the city
    inner = [torch.clamp(v[few], 100, CITY_M - 100) for v in (east, north)]
    works["drone images 128x128"] = (32, lambda: drone_images(scene, day, *inner, eye * 20, heading[few], size_px=128))
    rates(works, repeats, "a second")
    value = ROWS[[str(row["what"]).endswith("medium") for row in ROWS].index(True)]["value"]
    if size == 128:
        note("  of the target of 150 on two cores (medium)", float(value) / TARGET * 100, "%")


def cities(repeats: int, device: torch.device) -> None:
    """Seconds and bytes of a city, and of lighting a day."""
    for name, style in STYLES.items():
        seconds = [timed(lambda style=style: make_city(style, 1, size_m=CITY_M)) for _ in range(repeats)]
        note(f"city of {CITY_M:g} m at 0.25 m: {name}", statistics.median(seconds), "s", min(seconds), max(seconds))
    city = make_city(STYLES["garden"], 1, size_m=CITY_M)
    layers = sum(layer.nbytes for layer in (city.relief, city.surface, city.facade, city.extra))
    square_km = (CITY_M / 1000) ** 2
    note("city at 0.25 m", layers / square_km / 1e6, "MB a square km")
    scene, days = Scene(city, device), iter(range(10**6))
    for above in (False, True):
        seconds = [
            timed(lambda above=above: scene.lit(Condition(traffic=next(days)), from_above=above))
            for _ in range(repeats)
        ]
        what = "from above" if above else "from the street"
        note(
            f"lighting a day of {CITY_M:g} m at 0.25 m, {what}",
            statistics.median(seconds),
            "s",
            min(seconds),
            max(seconds),
        )
    lit = scene.lit(Condition(), from_above=True)
    note("a lit day at 0.25 m", (lit.texels.nbytes + lit.ceiling.nbytes) / square_km / 1e6, "MB a square km")


def render_some(places: int, size: int, folder: str) -> str:
    """Render a world anew into a folder; gives the hash of its pictures."""
    os.environ["UCVGL_RUNS"] = folder
    city_m = 768.0 if places > 200 else CITY_M
    config = WorldConfig(
        styles=("garden", "canal"), places=places, panorama_px=size, city_size_m=city_m, difficulty="hard"
    )
    pairs = world_pairs(config, progress=False)
    return hashlib.sha256(pairs.query[:].numpy().tobytes() + pairs.gallery[:].numpy().tobytes()).hexdigest()[:16]


def in_subprocess(threads: int | None, places: int, size: int) -> tuple[str, float, float]:
    """The same in a fresh process: hash, seconds, peak resident megabytes of the process."""
    environment = dict(os.environ)
    if threads:
        environment |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--only-render", str(places), str(size), folder]
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        digest, megabytes = done.stdout.split()
    return digest, time.perf_counter() - start, float(megabytes)


def whole_worlds(size: int) -> None:
    """A world of 1,000 pairs in a process of its own; the same bits for one thread and for two."""
    _, seconds, megabytes = in_subprocess(None, 1000, size)
    note("1,000 pairs, hard, two cities of 768 m, start to end", seconds, "s")
    note("  peak resident memory, imports and mapped files included", megabytes, "MB")
    digests = {threads: in_subprocess(threads, 64, size)[0] for threads in (1, 2)}
    note("64 pairs, digest with 1 thread", digests[1], "")
    note("64 pairs, digest with 2 threads", digests[2], "")
    note("  the same bits", "yes" if digests[1] == digests[2] else "NO", "")


def write(folder: Path, device: torch.device) -> None:
    """world.csv and world.md with what the numbers depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    about = {
        "device": name, "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "numpy": np.__version__, "python": platform.python_version(), "load_before": f"{LOAD:.1f}",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "world.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [*ROWS[0], *about])
        table.writeheader()
        table.writerows({**row, **about} for row in ROWS)
    lines = ["# The embedded world", "", ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in about.items()) + ".", ""]
    lines += ["| what | median | unit | lowest | highest |", "|---|---|---|---|---|"]
    for row in ROWS:
        cells = [
            f"{v:.3g}" if isinstance(v, float) and v < 100 else f"{v:.0f}" if isinstance(v, float) else v
            for v in row.values()
        ]
        lines.append("| " + " | ".join(str(cells[k]).strip() for k in (0, 1, 2, 3, 4)) + " |")
    (folder / "world.md").write_text("\n".join(lines) + "\n")


def cpu_name() -> str:
    """What the machine calls its processor."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


LOAD = os.getloadavg()[0]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="height of the panoramas; their width is twice that")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--only-render", nargs=3, metavar=("PLACES", "SIZE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_render:
        places, size, folder = options.only_render
        digest = render_some(int(places), int(size), folder)
        print(digest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    device = torch.device(options.device)
    pictures(options.size, options.repeats, device)
    cities(options.repeats, device)
    whole_worlds(options.size)
    write(options.out, device)


if __name__ == "__main__":
    main()
