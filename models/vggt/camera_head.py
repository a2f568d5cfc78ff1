"""Iterative prediction of the cameras from their tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.vggt.block import Block, Mlp
from models.vggt.config import VGGTConfig

POSE_DIM = 9
ITERATIONS = 4


class CameraHead(nn.Module):
    """Refines all cameras of a scene together, from their tokens and its own last guess."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = config.token_dim
        self.token_norm = nn.LayerNorm(dim)
        self.trunk = nn.ModuleList(
            Block(dim, config.camera_heads) for _ in range(config.trunk_depth)
        )
        self.trunk_norm = nn.LayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_DIM))
        self.embed_pose = nn.Linear(POSE_DIM, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.adaln_norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.pose_branch = Mlp(dim, dim // 2, POSE_DIM)

    def forward(
        self, camera_tokens: Float[Tensor, "batch view channel"]
    ) -> tuple[Float[Tensor, "batch view 9"], ...]:
        """Return the pose encoding (see ``pose_encoding``) of every iteration, the last is best."""
        tokens = self.token_norm(camera_tokens)
        normalised = self.adaln_norm(tokens)
        pose: Tensor | None = None
        poses = []
        for _ in range(ITERATIONS):
            # No gradient through the guess: each iteration learns to correct what it is given.
            guess = self.empty_pose_tokens if pose is None else pose.detach()
            modulation = self.poseLN_modulation(self.embed_pose(guess))
            shift, scale, gate = modulation.chunk(3, -1)
            hidden = tokens + gate * (normalised * (1 + scale) + shift)
            for block in self.trunk:
                hidden = block(hidden)
            delta: Tensor = self.pose_branch(self.trunk_norm(hidden)).float()
            pose = delta if pose is None else pose + delta
            poses.append(torch.cat([pose[..., :7], functional.relu(pose[..., 7:])], -1))
        return tuple(poses)
