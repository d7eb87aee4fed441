"""Across the papers: VG-SSL's six losses instead of UCVGL's InfoNCE as intra-view pretraining (its step 3). Neither
paper has this. The heads are dropped before step 4. Without positions, no image is left out as a negative."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from ucvgl.data.container import Dataset
from ucvgl.encoders import TwoViewEncoder, save_model
from ucvgl.heads import Learner, SslLoss
from ucvgl.methods.common import BEST, device
from ucvgl.methods.ucvgl import IntraView, Pretraining, ground_input, new_model
from ucvgl.training import train

VERSION = 1  # of what the stage computes


@dataclass(frozen=True)
class WithLoss:
    """The cold start with another intra-view loss; of `start`, its version tells old stages from new ones."""

    start: Pretraining
    loss: SslLoss
    version: int = VERSION


class TwoLearners(nn.Module):
    """The encoders of both views, each with heads of its own."""

    def __init__(self, views: TwoViewEncoder, config: WithLoss, items: tuple[int, int]) -> None:
        super().__init__()
        seed = 2 * config.start.seed
        self.ground = Learner(views.ground, config.loss, seed, items[0])
        self.satellite = Learner(views.satellite, config.loss, seed + 1, items[1])


class IntraViewWith(IntraView):
    """Step 3 with one of the six losses, for each view by itself."""

    def embed(self, model: TwoLearners, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # type: ignore[override]
        """What the losses compare: the ground view's, then the satellite view's."""
        return *model.ground.compared(*inputs[:2]), *model.satellite.compared(*inputs[2:])

    def loss(self, model: TwoLearners, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:  # type: ignore[override]
        """Their sum."""
        half = len(embeddings) // 2
        return model.ground.loss(embeddings[:half], labels[0]) + model.satellite.loss(embeddings[half:], labels[0])

    def after_step(self, model: TwoLearners, progress: float) -> None:  # type: ignore[override]
        """The momentum encoders follow."""
        model.ground.follow()
        model.satellite.follow()


def intra_view_with(data: Dataset, config: WithLoss, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Step 3 with another loss; numbers as `ucvgl.intra_view`'s."""
    start = config.start
    views = new_model(start).to(device())
    model = TwoLearners(views, config, (len(data), len(data.gallery))).to(device())
    task = IntraViewWith(ground_input(data, start), data.gallery, start)
    whole = replace(start.intra, chunk=None)  # the projectors' batch norms want the whole batch
    rows = train(model, task, whole, folder, name=f"intra-view, {config.loss.method}")
    save_model(views, folder / BEST)
    return {"rows": rows}
