"""Pictures on a map: two folders of imagery in, positions with probabilities out. `ucvgl locate` calls `run.locate`."""

from ucvgl.locate.inputs import Request, read_inputs
from ucvgl.locate.map_page import background_of as background
from ucvgl.locate.run import locate

__all__ = ["Request", "background", "locate", "read_inputs"]
