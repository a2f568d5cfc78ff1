"""From what the views say about ray points to density and colour."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from models.aggregation import masked_softmax, view_statistics, working_precision
from models.config import RadianceFieldConfig
from models.projection import SourceSamples
from models.ray_attention import RayAttention, mlp

CUES, DIRECTIONS = 3, 4


class RadianceField(nn.Module):
    """Density from consensus of the views along the ray, colour blended from their pixels.

    Where no view sees a point, and wherever else it pays, a regressed colour takes part in the
    blend, so that nothing is black for want of a source.
    """

    def __init__(
        self, config: RadianceFieldConfig, feature_channels: int, context_channels: int
    ) -> None:
        """Build the field.

        Args:
            config: Sizes.
            feature_channels: Channels of what a view says about a point.
            context_channels: Channels of what the target's volume says about it.
        """
        super().__init__()
        width, narrow = config.field_width, config.view_width
        self.groups = config.similarity_groups
        seen = feature_channels + 3
        statistics = 2 * seen + self.groups + 1 + context_channels
        self.view_input = nn.Linear(seen + DIRECTIONS + CUES, narrow)
        # What all views share enters once per point, not once per view.
        self.shared_input = nn.Linear(statistics, narrow, bias=False)
        self.view_hidden = nn.Linear(narrow, narrow)
        # A bias would shift all views alike, which a softmax does not see.
        self.view_score = nn.Linear(narrow, 1, bias=False)
        self.point_encoder = mlp(narrow + statistics, width, width)
        self.ray_layers = nn.ModuleList(
            RayAttention(width, config.ray_heads) for _ in range(config.ray_layers)
        )
        self.density = nn.Linear(width, 1)
        # Mostly empty space at the start: rays reach the surface, and so do the gradients.
        nn.init.constant_(self.density.bias, -4.0)
        self.blend_view = nn.Linear(narrow, narrow)
        self.blend_point = nn.Linear(width, narrow, bias=False)
        self.blend_score = nn.Linear(narrow, 1)
        self.regressed = mlp(width, narrow, 3 + 1)

    def forward(
        self,
        observations: SourceSamples,
        context: Float[Tensor, "batch ray sample context"],
        positions: Float[Tensor, "batch ray sample"],
    ) -> tuple[Float[Tensor, "batch ray sample"], Float[Tensor, "batch ray sample 3"]]:
        """Return densities (of no unit yet, not negative) and colours in [0, 1].

        Args:
            observations: What every source view says about each point.
            context: What the target's volume says about it.
            positions: Place of each sample between near (0) and far (1).
        """
        valid, cues = observations.valid, observations.cues
        features = working_precision(observations.features)
        cues = torch.stack([cues.residuals, cues.trust, cues.visibility], -1)
        parts = [features, observations.colors, observations.directions, cues]
        seen = torch.cat([part.to(features.dtype) for part in parts], -1)
        statistics = self._statistics(features, observations, context)
        views = F.gelu(self.view_input(seen) + self.shared_input(statistics)[:, None])
        views = F.gelu(self.view_hidden(views))
        attention = masked_softmax(self.view_score(views)[..., 0], valid)
        pooled = (attention[..., None] * views).sum(1)
        points = self.point_encoder(torch.cat([pooled, statistics], -1))
        for layer in self.ray_layers:
            points = layer(points, positions)
        densities = F.softplus(self.density(points)[..., 0].float())
        return densities, self._blend(points, views, observations)

    def _statistics(
        self,
        features: Float[Tensor, "batch view ray sample feature"],
        observations: SourceSamples,
        context: Float[Tensor, "batch ray sample context"],
    ) -> Float[Tensor, "batch ray sample statistic"]:
        seen = view_statistics(features, observations.valid)
        colors = view_statistics(observations.colors, observations.valid)
        count = seen.count[..., None]
        parts = [
            *(seen.mean, seen.variance, colors.mean, colors.variance),
            *(seen.similarity(self.groups), count / (1 + count), context),
        ]
        return torch.cat([part.to(features.dtype) for part in parts], -1)

    def _blend(
        self,
        points: Float[Tensor, "batch ray sample width"],
        views: Float[Tensor, "batch view ray sample view_width"],
        observations: SourceSamples,
    ) -> Float[Tensor, "batch ray sample 3"]:
        hidden = F.gelu(self.blend_view(views) + self.blend_point(points)[:, None])
        scores = self.blend_score(hidden)[..., 0].float()
        own = self.regressed(points).float()
        logits = torch.cat([scores, own[:, None, ..., 3]], 1)
        allowed = torch.cat([observations.valid, torch.ones_like(observations.valid[:, :1])], 1)
        weights = masked_softmax(logits, allowed)
        blended = (weights[:, :-1, ..., None] * observations.colors.float()).sum(1)
        return blended + weights[:, -1, ..., None] * torch.sigmoid(own[..., :3])
