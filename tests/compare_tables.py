"""Compares the tables of a run of the tiny profile with those stored before: python tests/compare_tables.py figures/tiny

Make the run with `ucvgl reproduce --profile tiny --cores 2`: a training with more threads sums in another order. Prints
what differs and exits with 1 if anything does. Numbers may differ by 1e-5 of their size, times by anything.
`--write <seconds the run took>` stores the run's tables instead.
"""

import csv
import json
import math
import re
import sys
from pathlib import Path

STORED = Path(__file__).parent / "goldens" / "tiny_tables.json"
TOLERANCE = 1.001e-5  # relative; tables are written with six digits
TIMED = re.compile(r"(^|_)(seconds|minutes|hours)(_|$)")  # columns and headline numbers that no two runs share


def number(text):
    try:
        return float(text)
    except ValueError:
        return text


def read(folder):
    """All tables of a folder of figures, {'notebook/table': {'columns': [...], 'rows': [...]}}, and headline numbers."""
    tables, numbers = {}, {}
    for results in sorted(folder.glob("*/results.json")):
        name, found = results.parent.name, json.loads(results.read_text(encoding="utf-8"))
        numbers[name] = found["numbers"]
        for artefact in found["artefacts"]:
            if artefact["kind"] == "table":
                with open(results.parent / artefact["file"], encoding="utf-8", newline="") as file:
                    columns, *rows = csv.reader(file)
                rows = [[number(cell) for cell in row] for row in rows]
                tables[f"{name}/{Path(artefact['file']).stem}"] = {"columns": columns, "rows": rows}
    return {"tables": tables, "numbers": numbers}


def same(now, then):
    if isinstance(now, float | int) and isinstance(then, float | int):
        return math.isclose(now, then, rel_tol=TOLERANCE, abs_tol=1e-12) or (math.isnan(now) and math.isnan(then))
    return now == then


def leaves(found):
    """One mapping from where a value stands to the value."""
    out = {}
    for table, part in found["tables"].items():
        for i, row in enumerate(part["rows"]):
            out |= {(table, f"row {i + 1}", column): cell for column, cell in zip(part["columns"], row, strict=True)}
    for notebook, seeds in found["numbers"].items():
        for seed, numbers in seeds.items():
            out |= {(notebook, f"headline, seed {seed}", name): value for name, value in numbers.items()}
    return {where: value for where, value in out.items() if not TIMED.search(where[-1])}


def differences(now, then):
    """A line for each value that is new, gone or different."""
    now, then = leaves(now), leaves(then)
    lines = [f"{', '.join(where)}: gone, it was {then[where]}" for where in then if where not in now]
    for where, value in now.items():
        if where not in then:
            lines.append(f"{', '.join(where)}: new, {value}")
        elif not same(value, then[where]):
            lines.append(f"{', '.join(where)}: {value}, it was {then[where]}")
    return lines


def written(found):
    """JSON with a line for each row."""
    text = json.dumps({name: value for name, value in found.items() if name != "tables"}, indent=1)
    tables = []
    for name, table in found["tables"].items():
        rows = ",\n   ".join(json.dumps(row) for row in table["rows"])
        columns = json.dumps(table["columns"])
        tables.append(f'  {json.dumps(name)}: {{"columns": {columns},\n   "rows": [\n   {rows}]}}')
    return text[:-2] + ',\n "tables": {\n' + ",\n".join(tables) + "\n }\n}\n"


def main(folder, *more):
    found = read(Path(folder))
    if not found["tables"]:
        sys.exit(f"{folder}: no finished notebook in it")
    if more:
        option, seconds = more
        assert option == "--write"
        versions = json.loads(next(Path(folder).glob("*/results.json")).read_text(encoding="utf-8"))["versions"]
        STORED.write_text(written({"seconds": float(seconds), "versions": versions} | found), encoding="utf-8")
        return
    then = json.loads(STORED.read_text(encoding="utf-8"))
    lines = differences(found, then)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    compared = len(leaves(then))
    sys.stdout.write(f"{len(then['tables'])} tables, {compared} values compared, {len(lines)} differ\n")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
