"""Pictures on a map: two folders of imagery in, positions with probabilities out. `ucvgl locate` calls `run.locate`."""

from ucvgl.locate.looked import Request, look
from ucvgl.locate.map_page import background_of as background
from ucvgl.locate.run import locate

__all__ = ["Request", "background", "locate", "look"]
