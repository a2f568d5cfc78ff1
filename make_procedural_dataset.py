"""Write procedural scenes to disk in DTU layout, so that DTU's reader can be tried without DTU.

Example: python make_procedural_dataset.py --out data/procedural --scenes 3 --size 128 160
"""

from __future__ import annotations

import argparse
import logging
import sys

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.dtu_writer import DtuSettings, write_dtu
from datasets.procedural.generator import ProceduralGenerator
from utils.errors import UserError


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", required=True, help="folder to write; made if it is missing")
    parser.add_argument("--scenes", type=int, default=3, help="number of scenes")
    parser.add_argument("--first_scene", type=int, default=0, help="number of the first scene")
    parser.add_argument("--seed", type=int, default=0, help="seed of all scenes")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(128, 160), metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument("--views", type=int, default=49, help="views per scene, at most 49")
    parser.add_argument("--lights", type=int, nargs="+", default=[3], help="light settings, 0 to 6")
    parser.add_argument("--held_out", type=int, default=1, help="scenes for validation and test")
    parser.add_argument("--samples", type=int, default=3, help="rays per pixel")
    parser.add_argument("--device", default="cpu", help="where to render, such as cpu or cuda")
    return parser.parse_args()


def main() -> None:
    """Write the data set."""
    arguments = parse_arguments()
    config = ProceduralConfig(seed=arguments.seed, rig="dtu", samples=arguments.samples)
    first = arguments.first_scene
    settings = DtuSettings(
        scene_ids=tuple(range(first, first + arguments.scenes)),
        size=tuple(arguments.size),
        num_views=arguments.views,
        lights=tuple(arguments.lights),
        held_out=arguments.held_out,
    )
    write_dtu(ProceduralGenerator(config, arguments.device), arguments.out, settings)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
