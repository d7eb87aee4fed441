"""Pictures on a map: two folders of imagery in, positions with probabilities out. `ucvgl locate` calls `run.locate`.

InputError where the extra `geo` is not installed; it says what to install.
"""

from ucvgl.errors import InputError

try:
    import jinja2  # noqa: F401
    import morecantile  # noqa: F401
    import rasterio  # noqa: F401
    import sklearn  # noqa: F401
except ImportError as error:
    raise InputError(
        "ucvgl locate", expected="the packages of the extra 'geo' (rasterio, morecantile, scikit-learn, jinja2)",
        found=f"no {error.name}", todo="Install them: pip install 'ucvgl[geo]', or in a clone pip install -e '.[geo]'.",
    ) from error  # fmt: skip

from ucvgl.locate.inputs import Request, read_inputs
from ucvgl.locate.map_page import background_of as background
from ucvgl.locate.run import locate

__all__ = ["Request", "background", "locate", "read_inputs"]
