"""What data sets say of images, against what is there: missing, shrunk, moved, listed, split."""

import json
import shutil
import unicodedata
from dataclasses import replace

import pytest
import torch
from PIL import Image

from datasets.config import DataChoice
from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene, recognise_format
from datasets.protocols import assign_roles, plan_task, protocol_of, scene_tasks
from datasets.scene_index import describe
from utils.errors import UserError


@pytest.fixture
def root(tmp_path, write_layout):
    return write_layout("transforms", tmp_path / "scene a")


def change(root, content=None, **keys):
    """Change the file; ``content`` is a function of the frames."""
    path = root / "transforms.json"
    whole = json.loads(path.read_text()) | keys
    if content:
        content(whole["frames"])
    path.write_text(json.dumps(whole))


def four_later(frames):
    for number, frame in enumerate(frames):
        frame["file_path"] = f"images/{number + 4}.png"


def rename(pattern):
    def frames_of(frames):
        for number, frame in enumerate(frames):
            frame["file_path"] = pattern.format(number)

    return frames_of


@pytest.mark.parametrize("name", ["transforms", "colmap", "blendedmvs"])
def test_views_without_image_are_left_out_counted_and_named_once(
    tmp_path, write_layout, name, caplog
):
    root = write_layout(name, tmp_path / "scene")
    whole = open_scene(name, root)
    images = sorted(path for path in root.rglob("*[0-9].*") if path.suffix in (".png", ".jpg"))
    for view in (2, 5):
        images[view].unlink()
    scenes = [open_scene(name, root) for _ in range(2)]
    kept = [0, 1, 3, 4, 6, 7]
    torch.testing.assert_close(scenes[1].cameras.c2w, whole.cameras.c2w[kept])
    assert scenes[1].view_ids == tuple(range(6))
    assert sum("2" in line and "left out" in line for line in caplog.messages) == 1
    assert images[2].stem in caplog.text


def test_test_images_that_were_never_rendered(tmp_path, write_layout, caplog):
    root = write_layout("blender", tmp_path / "scene")
    shutil.rmtree(root / "test")
    scene = open_scene("blender", root)
    assert scene.splits == {"train": (0, 1, 2, 3, 4), "val": (5,)}
    assert "the images of 2 of 8 frames are missing, which are left out" in caplog.text
    shutil.rmtree(root / "train")
    with pytest.raises(UserError, match=r"transforms_train\.json: none of its images exists"):
        open_scene("blender", root)


def test_a_split_without_frames(tmp_path, write_layout, caplog):
    root = write_layout("blender", tmp_path / "scene")
    for split in ("test", "train"):
        path = root / f"transforms_{split}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"frames": []}))
        if split == "test":
            assert open_scene("blender", root).splits == {"train": (0, 1, 2, 3, 4), "val": (5,)}
    assert caplog.text.count("transforms_test.json: holds no frames") == 1
    with pytest.raises(UserError, match=r"transforms_train\.json: 'frames' is empty"):
        open_scene("blender", root)


@pytest.mark.parametrize("stated", [True, False])
def test_only_shrunk_copies_are_there(tmp_path, write_layout, stated, caplog):
    root = write_layout("transforms", tmp_path / "scene")
    whole = open_scene("transforms", root, ReadOptions(scale=0.5))
    depths = whole.load_views([3]).depths
    for factor in (2, 4):
        (root / f"images_{factor}").mkdir()
        for path in (root / "images").iterdir():
            image = Image.open(path).reduce(factor)
            image.save(root / f"images_{factor}" / path.name)
    shutil.rmtree(root / "images")
    if stated:
        change(root, w=80, h=64)
    scene = open_scene("transforms", root)
    assert scene.image_size == (32, 40)
    torch.testing.assert_close(scene.cameras.intrinsics, whole.cameras.intrinsics)
    torch.testing.assert_close(scene.load_views([3]).depths, depths)
    assert "its images are missing; downscaled ones in images_2 are read" in caplog.text
    # Of two copies the smaller serves a smaller wish.
    small = open_scene("transforms", root, ReadOptions(longest_side=20))
    assert small.read_view.photos[0].path.parent.name == "images_4"


@pytest.mark.parametrize(
    "pattern",
    [
        "C:\\Users\\me\\capture\\images\\{:03d}.png",
        "/home/me/capture/images/{:03d}.png",
        "IMAGES/{:03d}.PNG",
        "./..\\captures\\fox\\images/{:03d}.png",
        "data/nerf/fox/images/{:03d}.png",
        ".\\images\\{:03d}",
    ],
)
def test_names_of_other_machines(root, pattern):
    expected = open_scene("transforms", root).load_views([1, 4]).images
    change(root, rename(pattern))
    assert open_scene("transforms", root).load_views([1, 4]).images.equal(expected)


def test_accents_that_a_file_system_took_apart(root):
    expected = open_scene("transforms", root).load_views([0]).images
    (root / "images").rename(root / unicodedata.normalize("NFD", "Büder"))
    change(root, rename(unicodedata.normalize("NFC", "Büder") + "/{:03d}.png"))
    assert open_scene("transforms", root).load_views([0]).images.equal(expected)


@pytest.mark.parametrize("name", ["transforms", "llff"])
def test_views_follow_the_numbers_in_their_names(tmp_path, write_layout, name):
    root = write_layout(name, tmp_path / "scene")
    for path in (root / "images").iterdir():
        path.rename(path.with_name(f"{int(path.stem) + 4}.png"))
    if name == "transforms":
        change(root, four_later)
    names = open_scene(name, root).view_names
    assert [text.removeprefix("images/") for text in names] == [f"{n}.png" for n in range(4, 12)]


def test_the_largest_of_the_models_of_colmap_is_read(tmp_path, write_layout, caplog):
    root, other = (write_layout("colmap", tmp_path / name) for name in "ab")
    (root / "sparse/0").rename(root / "sparse/1")
    small = other / "sparse/0"
    lines = ["1 1 0 0 0 0 0 0 1 000.png", "", "2 1 0 0 0 0 0 0 1 001.png", ""]
    (small / "images.txt").write_text("\n".join(lines))
    (small / "images.bin").unlink()
    small.rename(root / "sparse/0")
    assert recognise_format(root) == "colmap"
    assert len(open_scene("colmap", root).view_ids) == 8
    assert "sparse/1: the largest of 2 models is read, with 8 images; 0 has 2" in caplog.text


def test_lists_of_the_file_are_kept_to(root, caplog):
    names = [f"images/{view:03d}.png" for view in range(8)]
    lists = {"train_filenames": names[:6], "test_filenames": [names[7], names[2], "images/9.png"]}
    change(root, **lists)
    scene = open_scene("transforms", root)
    assert scene.splits == {"train": (0, 1, 3, 4, 5), "test": (2, 7)}
    assert "the list of test images names images without a camera: images/9.png" in caplog.text
    task = plan_task(scene, protocol_of("transforms", scene, 3), DataChoice())
    assert task.targets == (2, 7) and task.pool == (0, 1, 3, 4, 5)
    assert not {view for sources in task.sources for view in sources} & {2, 7}
    entry = describe(scene, root)
    trained = assign_roles("transforms", entry, "train", False, 3)
    validated = assign_roles("transforms", entry, "val", False, 3)
    assert trained.targets == trained.pool == (0, 1, 3, 4, 5)
    assert validated.targets == (2, 7) and validated.pool == (0, 1, 3, 4, 5)
    change(root, train_filenames=names, test_filenames=names)
    with pytest.raises(UserError, match="leave no image to train on"):
        open_scene("transforms", root)
    change(root, train_filenames="all")
    with pytest.raises(UserError, match="train_filenames must list names, found 'all'"):
        open_scene("transforms", root)


def test_depth_in_the_spelling_of_instant_ngp(root):
    expected = open_scene("transforms", root).load_views([1]).depths

    def respell(frames):
        for frame in frames:
            frame["depth_path"] = frame.pop("depth_file_path")

    change(root, respell, depth_unit_scale_factor=1e-3, integer_depth_scale=1.0)
    assert open_scene("transforms", root).load_views([1]).depths.equal(expected)
    change(root, integer_depth_scale=-1)
    with pytest.raises(UserError, match="integer_depth_scale must be positive, found -1"):
        open_scene("transforms", root)


def test_keys_that_are_not_used_are_named_once_for_all_scenes(root, caplog):
    change(root, lambda frames: frames[3].update(rolling_shutter=1), exposure=2, aabb_scale=4)
    other = shutil.copytree(root, root.with_name("scene b"))
    for folder in (root, other, root):
        open_scene("transforms", folder)
    assert caplog.text.count("these keys are not used: exposure, rolling_shutter") == 1
    assert "aabb_scale" not in caplog.text


def test_sources_are_no_test_views_of_the_files(root):
    change(root, test_filenames=["images/003.png"])
    choice = DataChoice(dataset_name="transforms", datadir=str(root), sources=(1, 3))
    with pytest.raises(UserError, match="--sources names 3, .*such as --sources 0 1 2"):
        scene_tasks(choice)
    (task,) = scene_tasks(replace(choice, sources=(0, 1, 2)))
    assert task.targets == (3,)


def test_the_testing_layout_of_mvsnet(tmp_path, write_layout):
    root = write_layout("blendedmvs", tmp_path / "data" / "scan1")
    whole = open_scene("blendedmvs", root)
    (root / "blended_images").rename(root / "images")
    (root / "cams/pair.txt").rename(root / "pair.txt")
    shutil.rmtree(root / "rendered_depth_maps")
    assert recognise_format(root) == recognise_format(root.parent) == "blendedmvs"
    scene = open_scene("blendedmvs", root)
    torch.testing.assert_close(scene.cameras.c2w, whole.cameras.c2w)
    assert scene.neighbours == whole.neighbours
    assert not scene.load_views([0]).depths.any()
    with pytest.raises(UserError, match="testing layout, read with --dataset_name blendedmvs"):
        scene_tasks(DataChoice(dataset_name="dtu", datadir=str(root.parent)))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"cameras.xml": "<document><chunk label='1'>"}, r"Metashape.*--xml '?\S*cameras\.xml"),
        ({"photos/1.jpg": "", "x.xml": "<chunk"}, r"Metashape.*--data \S*photos --xml \S*x\.xml"),
        ({"a.csv": "#name,x,y,alt,heading,pitch,roll,f,px"}, "RealityCapture.*--csv"),
        ({"a.csv": "#name,x,y,alt,heading"}, "RealityCapture.*Internal/External camera parameters"),
        ({"a.xml": "<BlocksExchange>", "p/1.jpg": ""}, r"ContextCapture.*--photos \S*p'?$"),
        ({"reconstruction.json": "[]"}, "OpenSfM.*apps.estimate_cameras"),
        ({"opensfm/reconstruction.json": "[]"}, "OpenDroneMap.*odm"),
        ({"sfm_data.json": "{}"}, "OpenMVG.*apps.estimate_cameras --method colmap"),
        ({"project.out": "# Bundle file v0.3"}, r"Bundler.*cp \S*project\.out \S*bundle\.out"),
        ({"a.nvm": "NVM_V3", "1.jpg": ""}, "VisualSFM.*apps.estimate_cameras"),
        ({"a_calibrated_camera_parameters.txt": ""}, "Pix4D.*apps.estimate_cameras"),
        ({"mesh_info.json": "", "keyframes/images/1.jpg": ""}, "Polycam.*keyframes/images"),
        ({"images/1.xmp": "<xcr:Position", "images/1.jpg": ""}, "RealityCapture.*--photos"),
        ({"rgb/1.png": "", "rgb.txt": "", "groundtruth.txt": ""}, r"TUM.*--photos \S*rgb"),
        ({"results/1.jpg": "", "traj.txt": ""}, r"Replica.*--photos \S*results"),
        ({"a.r3d": ""}, "Record3D.*zipfile -e \\S*a.r3d"),
        ({"cfg_args": "", "cameras.json": ""}, "Gaussian splatting.*source_path"),
    ],
)
def test_folders_of_other_programs_are_named_with_the_way_out(tmp_path, files, words):
    root = tmp_path / "capture"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    with pytest.raises(UserError, match=f"capture: is a folder of {words}"):
        recognise_format(root)
    for name in ("transforms", "colmap"):
        with pytest.raises(UserError, match=f"capture: is a folder of {words}"):
            open_scene(name, root)


def test_a_file_of_another_program_is_named_as_its_folder_is(tmp_path):
    for name, text in {"cameras.xml": "<chunk", "notes.txt": ""}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=r"Metashape.*--xml \S*cameras\.xml"):
            recognise_format(tmp_path / name)
    (tmp_path / "cameras.xml").unlink()
    with pytest.raises(UserError, match=f"not a camera file .* give its folder: {tmp_path}"):
        recognise_format(tmp_path / "notes.txt")


def test_other_tables_are_no_folder_of_another_program(tmp_path):
    (tmp_path / "a.csv").write_text("time,value")
    (tmp_path / "b.xml").write_text("<svg>")
    with pytest.raises(UserError, match="neither it nor a folder in it is a scene"):
        recognise_format(tmp_path)


def test_the_size_that_is_named_for_photos_of_two_sizes_works(root):
    Image.new("RGB", (40, 32)).save(root / "images/003.png")
    change(root, w=80, h=64)
    with pytest.raises(UserError, match="--image_size 32 40"):
        open_scene("transforms", root)
    assert open_scene("transforms", root, ReadOptions((32, 40))).image_size == (32, 40)
