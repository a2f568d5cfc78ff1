"""Which scenes a model was trained on, as far as its file tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets.config import DataConfig, DataSource
from datasets.formats.registry import DEFAULT_LISTS, choose_scenes
from datasets.formats.splits import find_scene_list
from datasets.scene_index import read_index
from models.baselines.checkpoint import KIND, is_mvsnerf_file
from utils.config import settings_from_plain
from utils.errors import UserError
from utils.files import load_safely, resolve_checkpoint

_MVSNERF = "MVSNeRF's own training: the 88 training scans of DTU"
_DTU_LIST = DEFAULT_LISTS / "dtu_train_88.txt"


@dataclass(frozen=True)
class TrainingScenes:
    """Names of scenes of a training, and what it was in words."""

    text: str
    names: frozenset[str] = frozenset()

    def __contains__(self, scene: str) -> bool:
        """Tell whether a scene of this name was trained on."""
        return scene in self.names

    @staticmethod
    def of_tuned(scene: str) -> TrainingScenes:
        """Return the scene of a fine-tuned file."""
        return TrainingScenes(f"fine-tuned on other views of {scene}", frozenset([scene]))

    @staticmethod
    def of_general(path: str) -> TrainingScenes:
        """Read what a general checkpoint says of its data."""
        file = resolve_checkpoint(path)
        if is_mvsnerf_file(file):
            return TrainingScenes(_MVSNERF, _listed(_DTU_LIST))
        content = load_safely(file)
        data = (content.get(KIND) or content["vggt_nerf"])["settings"].get("data", {})
        if data.get("dataset_name") == "procedural" and not data.get("mix"):
            return TrainingScenes("trained on procedural worlds alone")
        try:
            settings = settings_from_plain(DataConfig, data, f"{file}: data")
            names = [name for source in settings.sources() for name in _scenes_of(source)]
        except UserError as error:
            return TrainingScenes(f"trained on data that are not here ({error})")
        folders = settings.mix or (settings.datadir,)
        return TrainingScenes(f"trained on {', '.join(folders)}", frozenset(names))


def _scenes_of(source: DataSource) -> list[str]:
    if source.url and find_scene_list(source.folder, "train") is None:
        # Of shards elsewhere, the index is what there is on this machine.
        return list(read_index(source.name, source.folder) or ())
    folders = choose_scenes(source.name, source.folder, source.scan, "train")
    return [folder.resolve().name for folder in folders]


def _listed(path: Path) -> frozenset[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(line.strip() for line in lines if not line.startswith("#"))
