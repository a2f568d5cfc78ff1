"""Everything that a training run of the small backbone can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from datasets.procedural import ProceduralConfig
from datasets.replay import ReplayConfig
from models.vggt.config import VGGTConfig
from models.vggt_training.curriculum import CurriculumConfig
from models.vggt_training.held_out import HeldOutConfig
from models.vggt_training.jitter import JitterConfig
from models.vggt_training.losses import GeometryLossConfig
from models.vggt_training.matching import MatchingConfig
from models.vggt_training.optimization import MiniOptimizerConfig


@dataclass(frozen=True)
class MiniRunConfig:
    """Where a run lives, what it starts from and on what it runs."""

    expname: str = "vggt_mini"
    """name of the run; its folder under save_dir"""
    save_dir: str = "runs_mini"
    """folder of all runs"""
    ckpt: str | None = None
    """resume this run exactly"""
    init_weights: str | None = None
    """start a new run from this folder of weights, as training exports them"""
    evaluate: str | None = None
    """train nothing: print the metrics of this folder of weights on the held-out scenes"""
    training_seed: int = 0
    """seed of weights, shapes and colours; the worlds have their own"""
    layer_scale: float = 1.0
    """initial weight of the residual branches; the 0.01 of VGGT, which starts from a trained patch
    embedding, halves the speed at which matching is learnt from scratch"""
    val_every: int = 1000
    """steps between validations; each writes the averaged weights to export/"""
    save_every: int = 500
    """steps between writes of last.ckpt"""
    stop_at: int = -1
    """end this sitting after this step of the run; -1: at max_steps"""
    num_workers: int = 2
    """processes on each device that plan scenes ahead; 0: none"""
    compile_blocks: bool = False
    """compile the transformer blocks: a slow start, then much faster steps"""
    network_precision: Literal["auto", "bf16", "32"] = "auto"
    """arithmetic of the network; auto: bf16 on a GPU, 32 elsewhere"""
    accelerator: str = "auto"
    """Lightning's accelerator: auto, gpu, cpu, ..."""
    devices: str = "auto"
    """Lightning's devices: a count, auto, or a list like 0,2"""
    num_nodes: int = 1
    """machines that take part"""
    strategy: str = "auto"
    """Lightning's strategy: auto, ddp, ..."""

    def __post_init__(self) -> None:
        """Refuse intervals that never come round."""
        if self.val_every < 1 or self.save_every < 1 or self.num_workers < 0:
            raise ValueError("val_every and save_every must be positive, num_workers not negative")


@dataclass(frozen=True)
class MiniTrainingConfig:
    """The parts, each documented beside what it configures."""

    run: MiniRunConfig = field(default_factory=MiniRunConfig)
    network: VGGTConfig = field(default_factory=VGGTConfig)
    scenes: ProceduralConfig = field(default_factory=ProceduralConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    loss: GeometryLossConfig = field(default_factory=GeometryLossConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    jitter: JitterConfig = field(default_factory=JitterConfig)
    optimizer: MiniOptimizerConfig = field(default_factory=MiniOptimizerConfig)

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
        patch = self.network.patch_size
        if self.held_out.val_height % patch or self.held_out.val_width % patch:
            raise ValueError(
                f"val_height={self.held_out.val_height} and val_width={self.held_out.val_width} "
                f"must be multiples of patch_size={patch}"
            )
        for name in ("matching_layers", "shift_layers"):
            if not all(0 <= layer < 4 for layer in getattr(self.matching, name)):
                raise ValueError(f"{name} must lie in 0..3: the four layers that are read")
        if not all(0 <= block < self.network.depth for block in self.matching.attention_blocks):
            raise ValueError(f"attention_blocks must lie in 0..{self.network.depth - 1}")
        if not 1 <= self.matching.attention_heads <= self.network.num_heads:
            raise ValueError(f"attention_heads must lie in 1..{self.network.num_heads}")
