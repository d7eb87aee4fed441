"""The published tables of the three papers, from published.json; nothing else may fill a 'published' column.

Columns are named `<data set>_<measure>` (`cvusa_r_at_1`), in percent but for the counts of the cold start; rows by a short key
(`full`, `no_fakes`, `labels_10`) that notebooks use for their own rows too. Not known is None, in frames NaN. A mark says where
a value comes from: A the authors' own material, B quoted by a third party, C inferred; a table's caption tells B and C.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

TRAINING_PAIRS = 35_532  # of CVUSA, and of CVACT: where the cold start looked for labels
CONTENT: dict[str, Any] = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
# VG-SSL's methods by key: names and families (section 2); test sets, the world's by what they stand for -> columns' prefix
SSL, FAMILIES, STANDS_FOR = (CONTENT["vg_ssl"][name] for name in ("names", "families", "columns_of_test_sets"))


def frame(name: str) -> pd.DataFrame:
    """A published table by its row keys, float columns; `frame(...).reindex(keys)` has the rows that `keys` name, NaN for None."""
    table = CONTENT["tables"][name]
    values = {key: row["values"] for key, row in table["rows"].items()}
    return pd.DataFrame.from_dict(values, "index", "float64", table["columns"])


def label_rates(data_set: str) -> pd.DataFrame:
    """The cold start's label counts on cvusa or cvact in percent, by row key: `labels` found, of the training pairs; `correct`
    ones, of those found (NaN where nothing was)."""
    counts = frame("ucvgl_cold")
    found, right = counts[f"{data_set}_labels"], counts[f"{data_set}_correct"]
    return pd.DataFrame({"labels": 100 * found / TRAINING_PAIRS, "correct": 100 * right / found})
