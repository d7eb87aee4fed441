"""Pictures on a map: two folders of imagery in, positions with probabilities out. `ucvgl locate` calls `locate`."""

from importlib.util import find_spec

from ucvgl.errors import InputError

if missing := [name for name in ("rasterio", "morecantile") if find_spec(name) is None]:
    raise InputError(
        "ucvgl locate", expected="the packages of the extra 'geo' (rasterio, morecantile, scikit-learn, jinja2)",
        found=f"no {missing[0]}", todo="Install them: pip install 'ucvgl[geo]', or in a clone pip install -e '.[geo]'.",
    )  # fmt: skip

from ucvgl.locate.inputs import Request, read_inputs, read_truth
from ucvgl.locate.located import background, locate

__all__ = ["Request", "background", "locate", "read_inputs", "read_truth"]
