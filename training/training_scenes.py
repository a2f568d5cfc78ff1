"""Scenes that a model was trained on, according to its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from datasets.config import DataConfig
from datasets.data_source import DataSource
from datasets.formats.registry import DEFAULT_LISTS, choose_scenes
from datasets.formats.splits import find_scene_list
from datasets.scene_index import read_index
from models.checkpoints.baselines import is_mvsnerf_file
from models.checkpoints.general import saved_settings
from utils.checkpoints import load_safely, resolve_checkpoint
from utils.config import settings_from_plain
from utils.errors import UserError, first_line


@dataclass(frozen=True)
class TrainingScenes:
    """Names of training scenes, and a description of the training."""

    text: str
    names: frozenset[str] = frozenset()

    def __contains__(self, scene: str) -> bool:
        """Return whether a scene of this name was trained on."""
        return scene in self.names

    @staticmethod
    def of_tuned(scene: str) -> TrainingScenes:
        """Return the scene of a fine-tuned model."""
        return TrainingScenes(f"fine-tuned on other views of {scene}", frozenset([scene]))

    @staticmethod
    def of_general(path: str) -> TrainingScenes:
        """Read the training scenes of a general model from its checkpoint and data folders."""
        file = resolve_checkpoint(path)
        if is_mvsnerf_file(file):
            lines = (DEFAULT_LISTS / "dtu_train_88.txt").read_text(encoding="utf-8").splitlines()
            names = frozenset(line.strip() for line in lines if not line.startswith("#"))
            return TrainingScenes("MVSNeRF's own training: the 88 training scans of DTU", names)
        data = saved_settings(load_safely(file), file).get("data", {})
        worlds = isinstance(data, dict) and data.get("dataset_name") == "procedural"
        if worlds and not data.get("mix"):
            return TrainingScenes("trained on procedural worlds alone")
        try:
            settings = settings_from_plain(DataConfig, data, f"{file}: data")
            names = [name for source in settings.sources() for name in _scenes_of(source)]
        except (UserError, OSError) as error:
            # No file can have some names, such as very long ones.
            return TrainingScenes(f"trained on data that are not here ({first_line(error)})")
        folders = settings.mix or (settings.datadir,)
        return TrainingScenes(f"trained on {', '.join(folders)}", frozenset(names))


def _scenes_of(source: DataSource) -> list[str]:
    if source.url and find_scene_list(source.folder, "train") is None:
        # Only the index of remote shards is on this machine.
        return list(read_index(source.name, source.folder) or ())
    folders = choose_scenes(source.name, source.folder, source.scan, "train")
    return [folder.resolve().name for folder in folders]
