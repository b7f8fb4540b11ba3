"""Files, pictures, tables and names that were made to do harm, and what becomes of them."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import os
import pickletools
import re
import shutil
import string
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import faults
import h5py
import hypothesis
import numpy as np
import pytest
import warm_process
from conftest import flags, run
from hypothesis import strategies as st
from PIL import Image
from saved_runs import newest_weights, seal
from torch_files import pickled_dict, pickled_tensor, write_legacy, write_zip

from spml_tf import networks
from spml_tf.datasets import encoded_images, image_headers, images
from spml_tf.datasets.readers import tables
from spml_tf.networks.torch_file import read_torch_tensors
from spml_tf.networks.weights import load_backbone_weights
from spml_tf.runs import run_flags, run_folder
from spml_tf.runs.settings import Settings, settings_class
from spml_tf.system import cli, files, hdf5_checks, text_files
from spml_tf.system.errors import UserError
from spml_tf.system.hdf5_checks import ROWS, check_hdf5
from spml_tf.training.selection import expected_positives

FILES, PICTURES, TABLES = "Files from others", "Pictures", "Tables and text"
ONE_LINE = "one line that names the file and what it announces; exit code 1"
REFUSED = "one line that names the file and the place in it; exit code 1"


def peak(action: Callable[[], object]) -> float:
    """Megabytes by which the process's resident memory grew at most."""
    Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status")

    def kilobytes(name: str) -> int:
        return int(status.read_text().split(f"{name}:")[1].split()[0])

    before = kilobytes("VmRSS")
    action()
    return (kilobytes("VmHWM") - before) / 1024


def only_error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1 and errors[0].startswith("error: "), done.stderr
    return errors[0]


def refused(path: Path, saying: str) -> None:
    """The file of tensors is refused in one line, and takes hardly any memory."""

    def read() -> None:
        with pytest.raises(UserError, match=saying) as caught:
            read_torch_tensors(path)
        assert "\n" not in str(caught.value) and path.name in str(caught.value)

    assert peak(read) < 200


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


def put(index: int) -> bytes:
    return b"\x80\x02}r" + struct.pack("<I", index) + b"."


@faults.fault(FILES, "a .pth that numbers a value 4 billion", "an instruction of a tiny pickle",
              "read as any other number; networks refuse the empty dict")  # fmt: skip
def test_a_memo_of_four_billion(tmp_path):
    path = write_legacy(tmp_path / "w.pth", put(2**32 - 1), {})
    assert path.stat().st_size < 267
    found = []
    assert peak(lambda: found.append(read_torch_tensors(path))) < 200
    assert found == [{}]
    with pytest.raises(UserError, match=r"w\.pth: not EfficientNet-Lite0's"):
        networks.efficientnet_lite0_cam(3, weights=path, image_size=32)


@faults.fault(FILES, "a .pth that announces texts or tensors it does not hold",
              "2 GB and more, in a pickle, a storage, a member of a zip", ONE_LINE)  # fmt: skip
@pytest.mark.parametrize("length", [2**31, 2**33, 2**62])
def test_announced_sizes(length, tmp_path):
    text = b"\x80\x04\x8e" + struct.pack("<Q", length) + b"."  # bytes of that length
    refused(write_legacy(tmp_path / "text.pth", text, {}), "text.pth")
    state = pickled_dict({"a": pickled_tensor("0", length, 0, (4,), (1,))})
    path = write_legacy(tmp_path / "storage.pth", state, {"0": np.arange(4.0)})
    refused(path, "not as long as it says")
    content = path.read_bytes()
    path.write_bytes(content[: -16 - 8] + struct.pack("<q", length) + content[-16:])
    refused(path, "ends too early")
    path = write_zip(tmp_path / "zip.pth", state, {"0": np.arange(4.0)})
    refused(path, "not as long as it says")


@faults.fault(FILES, "a .pth that unpacks to a thousand times its size",
              "64 MB of zeros, compressed", ONE_LINE)  # fmt: skip
def test_a_compressed_archive(tmp_path):
    state = pickled_dict({"a": pickled_tensor("0", 2**24, 0, (2**24,), (1,))})
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("saved/data.pkl", state)
        archive.writestr("saved/data/0", bytes(2**26))
    assert (tmp_path / "bomb.pth").stat().st_size < 100_000
    refused(tmp_path / "bomb.pth", "compressed")


@faults.fault(FILES, "a .pth whose tensors all are one storage",
              "1,000 tensors of the same 4 MB", ONE_LINE)  # fmt: skip
def test_shared_storages(tmp_path):
    tensor = pickled_tensor("0", 2**20, 0, (2**20,), (1,))
    state = pickled_dict({f"t{number}": tensor for number in range(1000)})
    path = write_legacy(tmp_path / "shared.pth", state, {"0": np.zeros(2**20)})
    refused(path, "larger than what it holds")
    tied = pickled_dict({"a": tensor, "b": tensor})  # which real networks do
    found = read_torch_tensors(write_legacy(tmp_path / "tied.pth", tied, {"0": np.zeros(2**20)}))
    assert [value.shape for value in found.values()] == [(2**20,), (2**20,)]


@faults.fault(FILES, "a .pth that would take hours", "a name nested 60 deep, every level twice",
              ONE_LINE)  # fmt: skip
def test_nested_names_are_not_hashed(tmp_path):
    nested = b"\x80\x02}K\x01" + b"q\x00h\x00\x86" * 60 + b"K\x01s."
    assert [x[0].name for x in pickletools.genops(nested)][3:6] == ["BINPUT", "BINGET", "TUPLE2"]
    start = time.monotonic()
    refused(write_legacy(tmp_path / "nested.pth", nested, {}), "key that is no text")
    assert time.monotonic() - start < 10


@faults.fault(FILES, "bytes of any kind called .pth", "hypothesis draws them", ONE_LINE)
@hypothesis.settings(max_examples=300, deadline=10_000)
@hypothesis.given(st.lists(st.sampled_from(OPCODES) | st.binary(max_size=9), max_size=40))
def test_any_instructions(tmp_path_factory, instructions):
    path = tmp_path_factory.getbasetemp() / "any.pth"
    path.write_bytes(b"\x80\x02" + b"".join(instructions))
    with pytest.raises(UserError, match=r"any\.pth: not a plain PyTorch state dict"):
        read_torch_tensors(path)


@pytest.fixture
def changed(finished, tmp_path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "changed"))


def replace_scores(run_dir: Path, make: Callable[[h5py.Group, h5py.Dataset], object]) -> None:
    with h5py.File(newest_weights(run_dir), "r+") as file:
        group = file["ema_scores/vars"]
        old = group["0"]
        del group["0"]
        make(group, old)
    seal(run_dir)


def external(group: h5py.Group, old: h5py.Dataset) -> None:
    group.create_dataset("0", old.shape, old.dtype, external=[("/etc/passwd", 0, old.nbytes)])


def linked(group: h5py.Group, old: h5py.Dataset) -> None:
    group["0"] = h5py.ExternalLink("/etc/passwd", "0")


def circular(group: h5py.Group, old: h5py.Dataset) -> None:
    group["0"] = h5py.SoftLink("/ema_scores/vars/0")


def elsewhere(group: h5py.Group, old: h5py.Dataset) -> None:
    layout = h5py.VirtualLayout(old.shape, old.dtype)
    layout[:] = h5py.VirtualSource("../other.rows.h5", "0", old.shape)
    group.create_virtual_dataset("0", layout)


def filled(group: h5py.Group, old: h5py.Dataset) -> None:
    group.create_dataset("0", (2**31, 4), old.dtype, fillvalue=1)


HDF5_FAULTS = [
    (external, "scores that lie in another file", "external storage in /etc/passwd",
     "lies in another file"),
    (linked, "scores that are a link to another file", "an external link", "a link"),
    (circular, "scores that are a link to themselves", "a soft link", "a link"),
    (elsewhere, "scores made of a file of another folder", "a virtual dataset of ../other.rows.h5",
     "virtual dataset of another file"),
    (filled, "8 GB of scores in a file of some KB", "a dataset of one fill value", "declares"),
]  # fmt: skip


def of_each(test):
    for _, what, cause, _ in HDF5_FAULTS:
        test = faults.fault(FILES, f"a checkpoint with {what}", cause, REFUSED)(test)
    return pytest.mark.parametrize("make, says", [(x[0], x[3]) for x in HDF5_FAULTS])(test)


@of_each
def test_checkpoints_of_others(make, says, voc, changed, tmp_path):
    replace_scores(changed, make)
    done = run(f"--run_dir={changed}", f"--output_dir={tmp_path / 'a'}", module="audit")
    assert says in only_error(done) and not (tmp_path / "a").exists()
    settings = flags(voc, bank_dtype="uint8", initial_banks=changed)
    done = run(*settings, f"--output_dir={tmp_path / 'next'}")
    assert says in only_error(done)


def test_rows_beside_a_checkpoint_are_read(tmp_path):
    for number in range(2):
        with h5py.File(tmp_path / f"state.3.{number}.rows.h5", "w") as file:
            file["rows"] = np.full((5, 2), number, np.float32)
    layout = h5py.VirtualLayout((10, 2), np.float32)
    for number in range(2):
        source = h5py.VirtualSource(f"state.3.{number}.rows.h5", "rows", (5, 2))
        layout[number::2] = source
    path = tmp_path / "state.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("scores", layout)
        file["loop"] = file["/"]  # a group in itself is looked at once
    check_hdf5(path, ROWS)
    with pytest.raises(UserError, match=r"state\.weights\.h5: /scores: a virtual dataset"):
        check_hdf5(path)
    (tmp_path / "state.3.1.rows.h5").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"state\.3\.1\.rows\.h5: missing"):
        check_hdf5(path, ROWS)
    (tmp_path / "state.3.1.rows.h5").symlink_to(tmp_path / "moved")
    with pytest.raises(UserError, match="missing"):
        check_hdf5(path, ROWS)


@faults.fault(FILES, "a .keras that unpacks to a thousand times its size",
              "weights of 64 MB of zeros, compressed", ONE_LINE)  # fmt: skip
@faults.fault(FILES, "a .keras whose weights are one fill value", "7 GB declared", ONE_LINE)
@faults.fault(FILES, "a .keras with other members", "weights as .npz, which may be compressed",
              ONE_LINE)  # fmt: skip
@pytest.mark.parametrize("kind, says", [("bomb", "unpacks to"), ("fill", "declares 7,"),
                                        ("npz", "holds 'model.weights.npz'")])  # fmt: skip
def test_networks_of_others(kind, says, changed, tmp_path):
    network, content = changed / "network.keras", io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("layers/conv2d/vars/0", (7 * 2**28,), "f4", fillvalue=1)
    with zipfile.ZipFile(network) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = bytes(2**26) if kind == "bomb" else content.getvalue()
    del members["model.weights.h5"]
    members[f"model.weights.{'npz' if kind == 'npz' else 'h5'}"] = weights
    with zipfile.ZipFile(network, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    for copy in (changed / "checkpoint").glob("best*.keras"):
        shutil.copy(network, copy)
    seal(changed)
    done = run(f"--run_dir={changed}", module="evaluate")
    assert says in only_error(done) and "network.keras" in done.stderr


@faults.fault(FILES, "a .h5 of weights that reaches into another file",
              "an external link in place of a layer's group", REFUSED)  # fmt: skip
def test_weights_of_others(tmp_path):
    network = networks.build("small_residual", 3, None, 32, False)
    path = tmp_path / "w.weights.h5"
    network.save_weights(path)
    with h5py.File(path, "r+") as file:
        name = next(iter(file["layers"]))
        del file["layers"][name]
        file["layers"][name] = h5py.ExternalLink(str(tmp_path / "other.h5"), name)
    with pytest.raises(UserError, match=r"w\.weights\.h5: /layers/\w+: a link"):
        load_backbone_weights(network, path)


@faults.fault(FILES, "a .h5 whose names all are one text", "4,000 names that refer to the same "
              "megabyte", ONE_LINE)  # fmt: skip
@pytest.mark.parametrize("block", [7, 2**24])
def test_names_that_are_one_text(block, tmp_path, monkeypatch):
    """Where the file is looked through at once, and where no block holds a heap's size whole."""
    monkeypatch.setattr(hdf5_checks, "_BLOCK", block)
    path = tmp_path / "names.h5"
    with h5py.File(path, "w") as file:
        names = ["x" * 2**20, *["y"] * 3999]
        file.attrs.create("layer_names", names, dtype=h5py.string_dtype())
    content = path.read_bytes()
    # A text's length, the address of its heap and its number there: 16 bytes each.
    places = (x.start() for x in re.finditer(re.escape(struct.pack("<I", 2**20)), content))
    first = next(x for x in places if struct.unpack_from("<16xI12xI", content, x) == (1, 1))
    large = content[first : first + 16]
    path.write_bytes(content[:first] + large * 4000 + content[first + 16 * 4000 :])
    with pytest.raises(UserError, match=r"names\.h5: declares 4,\d+,\d+,\d+ bytes"):
        check_hdf5(path)


def bits(side: int) -> bytes:
    """A PNG of side x side black pixels, one bit each."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    rows = zlib.compress(bytes((1 + (side + 7) // 8) * side))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def sized(content: bytes, place: int, form: str, *sides: int) -> bytes:
    return content[:place] + struct.pack(form, *sides) + content[place + struct.calcsize(form) :]


def encoded(kind: str, side: int = 32, count: int = 1) -> bytes:
    stream = io.BytesIO()
    mode, colour = ("L", 250) if count > 1 else ("RGB", (200, 100, 0))
    first = Image.new(mode, (side, side), colour)
    others = [Image.new(mode, (side, side), 2 * n) for n in range(count - 1)]
    first.save(stream, kind, **({"save_all": True, "append_images": others} if others else {}))
    return stream.getvalue()


@functools.cache
def huge(kind: str) -> bytes:
    """A picture of 23,000 x 23,000 pixels by its header."""
    content, side = encoded(kind), 23_000
    if kind == "PNG":
        return bits(side)
    if kind == "BMP":
        return sized(content, 18, "<ii", side, -side)
    if kind == "GIF":
        return sized(content, 6, "<HH", side, side)
    start = content.index(b"\xff\xc0") + 5  # a JPEG's frame
    return sized(content, start, ">HH", side, side)


KINDS = ("PNG", "JPEG", "GIF", "BMP")


@faults.fault(PICTURES, "a picture that is too large", "23,000 x 23,000 pixels by its header, of "
              "each kind", "refused before it is decoded, with its size")  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_large_pictures_are_not_decoded(kind):
    import tensorflow as tf

    content = huge(kind)
    assert len(content) < 100_000
    says = "23000 x 23000 pixels, more than --max_megapixels=100"
    assert image_headers.refusal(content, 100) == says
    assert image_headers.refusal(content, 529.0) is None  # 23,000 squared, exactly

    def crop(contents: tf.Tensor) -> tf.Tensor:
        return images.decode_crop(contents, tf.fill([4], 0.5), (0.5, 1.0))[0]

    readers = [tf.function(images.decode_image), tf.function(crop)]
    for read in readers:
        read(tf.constant(encoded(kind)))

    def decode() -> None:
        with pytest.raises(encoded_images.BrokenImageError, match=says):
            encoded_images.decode(content)
        for read in readers:
            with pytest.raises(tf.errors.InvalidArgumentError, match=says):
                read(tf.constant(content))

    assert peak(decode) < 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_the_allowed_size_is_decoded(kind):
    pixels = encoded_images.decode(encoded(kind), 32 * 32 / 1e6)
    assert pixels.shape == (32, 32, 3)
    with pytest.raises(encoded_images.BrokenImageError, match="32 x 32 pixels"):
        encoded_images.decode(encoded(kind), 0.001)


@faults.fault(PICTURES, "an animation of many frames", "60 frames of 1,500 x 1,500 in a GIF of "
              "some KB", "its first frame alone is decoded")  # fmt: skip
def test_only_the_first_frame_is_decoded():
    content = encoded("GIF", 1500, 60)
    first = encoded_images.decode(content)
    assert first.shape == (1500, 1500, 3) and (first == first[0, 0]).all()
    assert first[0, 0].tolist() == [250, 250, 250]
    assert peak(lambda: encoded_images.decode(content)) < 100  # all frames: 135 MB and more


@faults.fault(PICTURES, "a GIF of endless blocks", "100,000 extensions before its first frame",
              "refused after 1,000 of them")  # fmt: skip
def test_a_gif_of_many_blocks():
    content = encoded("GIF")[:13] + b"\x21\xff\0" * 100_000
    start = time.monotonic()
    with pytest.raises(encoded_images.BrokenImageError):
        encoded_images.decode(content)
    assert time.monotonic() - start < 10


@hypothesis.settings(max_examples=200, deadline=10_000)
@hypothesis.given(st.sampled_from(KINDS), st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_any_header_is_an_answer_or_an_error(kind, place, patch):
    content = encoded(kind)
    broken = content[:place] + patch + content[place + len(patch) :]
    try:
        pixels = encoded_images.decode(broken, 1)
    except encoded_images.BrokenImageError:
        return
    assert pixels.shape[0] * pixels.shape[1] <= 1e6


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    done = run(f"--run_dir={finished}", f"--export_dir={folder}", module="export")
    assert done.returncode == 0, done.stderr
    return folder


@faults.fault(
    PICTURES,
    "a picture that is too large, sent to an exported model",
    "four at once, to the endpoint serve_bytes",
    "the batch fails, the file is not decoded",
)
def test_serve_bytes_refuses_large_pictures(exported):
    import tensorflow as tf

    model = tf.saved_model.load(str(exported))
    model.serve_bytes(tf.constant([encoded("PNG")]))

    def serve() -> None:
        with pytest.raises(tf.errors.InvalidArgumentError, match="more than --max_megapixels=100"):
            model.serve_bytes(tf.constant([huge("PNG")] * 4))

    assert peak(serve) < 200


def test_an_export_can_allow_less(finished, tmp_path):
    folder = tmp_path / "small"
    words = [f"--run_dir={finished}", f"--export_dir={folder}", "--max_megapixels=0.002"]
    assert run(*words, module="export").returncode == 0
    (tmp_path / "a.png").write_bytes(encoded("PNG", 40))
    (tmp_path / "b.png").write_bytes(encoded("PNG", 60))
    words = [
        f"--model_dir={folder}",
        f"--images={tmp_path}/*.png",
        f"--output={tmp_path / 'p.csv'}",
    ]
    done = run(*words, module="predict")
    says = "b.png: cannot be read as an image, left out (60 x 60 pixels, more than"
    assert done.returncode == 1 and f"{says} --max_megapixels=0.002)" in done.stderr
    assert "1 of 2 images" in done.stdout
    done = run(*words, "--max_megapixels=1", module="predict")
    assert "--max_megapixels=1.0: must lie between" in only_error(done)


def folder_of_photos(
    root: Path, names: list[str], classes: tuple[str, ...] = ("cat", "dog")
) -> list[str]:
    """A data set of photos of few pixels with a table, and the flags that name it."""  # fmt: skip
    root.mkdir()
    for split in ("train", "val"):
        with open(root / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *classes])
            for number, name in enumerate(names):
                (root / split).mkdir(exist_ok=True)
                (root / split / name).write_bytes(encoded("PNG", 33 + number))
                cells = [int(number % len(classes) == column) for column in range(len(classes))]
                writer.writerow([f"{split}/{name}", *cells])
    return ["--dataset=folder", f"--data_dir={root}", "--train_csv=train.csv", "--val_csv=val.csv"]


@faults.fault(PICTURES, "a photo that is too large among those of a data set", "23,000 x 23,000 "
              "pixels in 66 KB", "`check` names it, training stops in one line")  # fmt: skip
def test_a_large_photo_in_a_data_set(tmp_path):
    words = folder_of_photos(tmp_path / "data", ["a.png", "b.png"])
    (tmp_path / "data/train/b.png").write_bytes(huge("PNG"))
    says = "23000 x 23000 pixels, more than --max_megapixels=100"
    done = run("check", *words, module="data")
    assert f"error: {tmp_path}/data/train/b.png: {says}" in done.stdout and done.returncode == 1
    small = ["--network=small_residual", "--weights=none", "--image_size=32", "--epochs=1"]
    done = run(*words, *small, "--method=an", f"--output_dir={tmp_path / 'run'}")
    assert f"train/b.png: cannot be decoded ({says})" in only_error(done)
    done = run("prepare", *words, "--format=tfrecord", f"--output_dir={tmp_path / 'p'}",
               module="data")  # fmt: skip
    assert says in only_error(done)


def test_the_limit_is_free_to_change(voc, finished):
    from conftest import RESUMED

    done = run(*flags(voc, **RESUMED, max_megapixels=0.5), f"--output_dir={finished}")
    assert done.returncode == 0 and "best epoch" in done.stdout, done.stderr


# A number with a sign, which is no formula.
NUMBER = r"[+-]((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf|nan)"
ODD = ["=1+1.png", "+a.png", "-1.png", "@b.png", "'=c.png", "''=d.png", "'90s.png", "\u20ace.png"]


@hypothesis.given(
    st.text(
        st.sampled_from("'=+-@\t1.e")
        | st.characters(codec="utf-8", exclude_characters="\r")  # names hold no line ends
    )
)
def test_names_come_back_from_a_table(tmp_path_factory, name):
    path = tmp_path_factory.getbasetemp() / "names.csv"
    files.write_csv(path, ["image", name], [[name, -1], ["x", name]])
    assert [row for _, row in text_files.read_csv(path)] == [
        ["image", name],
        [name, "-1"],
        ["x", name],
    ]
    with open(path, newline="", encoding="utf-8") as file:
        for cell in (cell for row in csv.reader(file) for cell in row):
            assert not cell or cell[0] not in "=+-@\t\r" or re.fullmatch(NUMBER, cell)


@faults.fault(TABLES, "photos and classes called as formulas of a spreadsheet",
              "names that begin with = + @", "an apostrophe stands before the cell in every CSV "
              "file written; what reads them takes it off")  # fmt: skip
def test_formulas_in_names(tmp_path):
    words = folder_of_photos(tmp_path / "data", [x for x in ODD if "'=" not in x],
                             ("=cat", "dog"))  # fmt: skip
    root = tmp_path / "data"
    for table in ("train", "val"):  # so that a cell begins with the name
        text = (root / f"{table}.csv").read_text().replace(f"{table}/", "")
        (root / f"{table}.csv").write_text(text)
    for name in os.listdir(root / "train"):
        shutil.copy(root / "train" / name, root / name)
    done = run("prepare", *words, f"--output_dir={tmp_path / 'p'}", module="data")
    assert done.returncode == 0, done.stderr
    cells = (tmp_path / "p/labels.csv").read_text().splitlines()
    assert cells[1].startswith("'=1+1.png,train,'=cat,1")
    assert all(line[0] not in "=+-@" for line in cells)
    again = run("summary", *words, f"--train_labels={tmp_path / 'p/labels.csv'}",
                f"--output_dir={tmp_path / 's'}", module="data")  # fmt: skip
    assert again.returncode == 0, again.stderr
    summary = json.loads((tmp_path / "s/summary.json").read_text())
    assert summary["class_names"] == ["=cat", "dog"]
    assert summary["observed"]["labels"]["known"] == 2 * 6
    assert (tmp_path / "s/classes.csv").read_text().splitlines()[1].startswith("'=cat")


@faults.fault(TABLES, "classes called as columns of predictions", "classes image, cat and "
              "cat_decision", "underlines keep the columns apart")  # fmt: skip
def test_columns_of_predictions_differ(exported, tmp_path):
    model = Path(shutil.copytree(exported, tmp_path / "model"))
    classes = json.loads((model / "classes.json").read_text())
    values, names = list(classes["thresholds"].values()), ["image", "cat", "cat_decision"]
    classes |= {"class_names": names, "thresholds": dict(zip(names, values, strict=True))}
    (model / "classes.json").write_text(json.dumps(classes))
    (tmp_path / "=a.png").write_bytes(encoded("PNG"))
    done = warm_process.run("spml_tf.predict", [f"--model_dir={model}", "--images=*.png"], tmp_path)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "predictions.csv", newline="") as file:
        header, row = list(csv.reader(file))
    assert header == ["image_", "image", "image_decision_", "cat", "cat_decision_", "cat_decision",
                      "cat_decision_decision_"]  # fmt: skip
    assert row[0] == "'=a.png" and 0 < float(row[1]) < 1 and row[2] in "01"


@faults.fault(TABLES, "a class called as mark-up", "HTML, a link and a table's bars in its name",
              "MODEL_CARD.md shows it as text")  # fmt: skip
def test_names_in_a_model_card(changed, tmp_path):
    name = "<img src=x onerror=y>[z](http://w.test)|`\x1b[2J"
    for file in ("run.json", "metrics.json"):
        path = changed / file
        path.write_text(path.read_text("utf-8").replace('"dog"', json.dumps(name)), "utf-8")
    seal(changed)
    done = run(f"--run_dir={changed}", f"--export_dir={tmp_path / 'm'}", module="export")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "m/MODEL_CARD.md").read_text()
    (line,) = [line for line in card.splitlines() if "img" in line]
    # A backslash makes any of these marks a character.
    text = r"&lt;img src\=x onerror\=y&gt;\[z\](http\://w.test)\|\`\\x1b\[2J"
    assert line.startswith(f"| {text} | ") and "\x1b" not in card


@faults.fault(TABLES, "a path that would add a flag to flags.txt", "a folder called "
              "x\\n--epochs=9", "one line that names the flag; exit code 1")  # fmt: skip
def test_a_line_break_in_a_path(tmp_path):
    words = folder_of_photos(tmp_path / "x\n--epochs=9", ["a.png", "b.png"])
    done = run(*words, "--network=small_residual", "--weights=none", "--image_size=32",
               "--method=an", "--epochs=1", f"--output_dir={tmp_path / 'run'}")  # fmt: skip
    assert "--data_dir='" in only_error(done) and "line break" in done.stderr
    for odd in ("x\r--epochs=9", "x\u2028y", "x "):
        with pytest.raises(UserError, match="--data_dir="):
            run_flags.flagfile(Settings(data_dir=odd))


def test_a_flagfile_reads_back(finished, tmp_path):
    settings = run_folder.RunFolder(finished).settings()
    odd = dataclasses.replace(settings, data_dir="/a b/#c '\"=d", horizontal_flip=False)
    (tmp_path / "flags.txt").write_text(run_flags.flagfile(odd))
    options = settings_class(Settings)
    assert cli.parse([f"--flagfile={tmp_path / 'flags.txt'}"], options, "") == odd


@faults.fault(TABLES, "names that steer the terminal", "escape sequences in names of photos and "
              "classes", "messages and notes show \\\\x1b as text")  # fmt: skip
def test_escapes_are_shown(tmp_path):
    words = folder_of_photos(tmp_path / "data", ["\x1b[2Ja.png", "b.png"], ("c\x1b]0;t\x07", "dog"))
    done = run("check", *words, module="data")
    assert "\x1b" not in done.stdout + done.stderr and done.returncode == 0
    shutil.copy(tmp_path / "data/train/b.png", tmp_path / "data/train/\x1b[2Ja.png")
    assert r"\x1b[2Ja.png: is the same photo" in only_error(run("check", *words, module="data"))
    done = run("check", *words, "--keep_copies", module="data")
    assert r"\x1b[2Ja.png: identical to" in done.stdout or r"\x1b[2Ja.png in" in done.stdout
    (tmp_path / "data/train/\x1b[2Ja.png").unlink()
    done = run("check", *words, module="data")
    assert "\x1b" not in done.stderr and r"\x1b[2Ja.png: the photo is missing" in only_error(done)
    assert str(UserError("a\nb\u202ec")) == r"a\nb\u202ec"


def table(tmp_path: Path, text: str) -> subprocess.CompletedProcess[str]:
    words = folder_of_photos(tmp_path / "data", ["a.png", "b.png"])
    (tmp_path / "data/train.csv").write_text(text)
    return run("check", *words, module="data")


@faults.fault(TABLES, "a photo called as a folder", "a.png/ in a table", "file and line; exit code "
              "1")  # fmt: skip
def test_a_slash_behind_a_photo(tmp_path):
    done = table(tmp_path, "image,cat,dog\ntrain/a.png/,1,0\n")
    assert "train.csv:2: 'train/a.png/' is the name of a folder" in only_error(done)


DEEP = "[" * 100_000  # Python 3.12 and later read 5,000


@faults.fault(TABLES, "a text nested thousands deep", "5,000 brackets in JSON and TOML files and "
              "in a flag", "one line, code 1", "nothing")  # fmt: skip
@pytest.mark.parametrize("case, told", [
    ("plan", "plan.toml: not valid TOML (maximum recursion depth"),
    ("flag", "--x[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[...: no such flag"),
    ("commits", "commits.json: cannot be read (it is nested too deeply)"),
    ("export", "no spml_tf export (it is nested too deeply)"),
    ("run", "run.json: cannot be read (it is nested too deeply)"),
    ("TF_CONFIG", "ValueError('it is nested too deeply')"),
])  # fmt: skip
def test_nothing_is_read_however_deep(case, told, tmp_path, monkeypatch):
    name, words = {
        "plan": ("plan.toml", ["experiments", "--plan=plan.toml", "--output_dir=out"]),
        "flag": ("a.flags", ["train", "--flagfile=a.flags"]),
        "commits": ("out/commits.json", ["experiments", "--plan=whole.toml", "--output_dir=out"]),
        "export": ("classes.json", ["predict", "--model_dir=.", "--images=whole.toml",
                                    "--output=a.csv"]),
        "run": ("run.json", ["evaluate", "--run_dir=."]),
        "TF_CONFIG": ("none", ["train", "--strategy=multi_worker", "--dataset=digits",
                               "--method=an", "--output_dir=out"]),
    }[case]  # fmt: skip
    (tmp_path / "out").mkdir()
    start = {"plan": "x = ", "flag": "--x"}.get(case, "")
    (tmp_path / name).write_text(start + DEEP)
    (tmp_path / "whole.toml").write_text(
        'title = "T"\nseeds = [0]\n[[rows]]\nname = "an"\nmethod = "an"\n'
        'flags = { dataset = "digits" }\n'
    )
    monkeypatch.chdir(tmp_path)
    if case == "TF_CONFIG":
        monkeypatch.setenv(case, DEEP)
    done = run(*words[1:], module=words[0], new_python=case == "TF_CONFIG")
    assert done.returncode == 1, done.stderr
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert told in line and "Traceback" not in done.stderr


@faults.fault(TABLES, "a photo thousands of folders deep", "1,500 and 2,500 parts",
              "file and line; exit code 1")  # fmt: skip
@pytest.mark.parametrize("parts", [1500, 2500])
def test_a_deep_path(parts, tmp_path):
    done = table(tmp_path, f"image,cat,dog\n{'a/' * parts}a.png,1,0\n")
    assert "train.csv:2: " in only_error(done)


@faults.fault(TABLES, "a table of very many columns", "two million", "one line, after seconds; "
              "21,841 columns take linear time")  # fmt: skip
def test_many_columns(tmp_path):
    names = ",".join(f"c{n}" for n in range(2_000_000))
    (tmp_path / "t.csv").write_text(f"image,{names}\na.png{',1' * 2_000_000}\n")
    start = time.monotonic()
    with pytest.raises(UserError, match=r"t\.csv:1: 2,000,001 columns, at most 100,000"):
        tables.read_table(tmp_path / "t.csv")
    assert time.monotonic() - start < 30

    def seconds(count: int) -> float:
        names = ",".join(f"c{n}" for n in range(count))
        (tmp_path / "t.csv").write_text(f"image,{names}\na.png{',1' * count}\n")
        start = time.process_time()
        found = tables.read_table(tmp_path / "t.csv", [f"c{n}" for n in range(count + 9)])
        assert found.labels.sum() == count - 9 and len(found.missing) == 9
        return time.process_time() - start

    assert seconds(80_000) < 40 * max(seconds(8_000), 0.005)  # quadratic: 100 times as long


@faults.fault(TABLES, "scores that are NaN", "one of four, with every budget", "refused: the "
              "network has diverged")  # fmt: skip
@pytest.mark.parametrize("budget", ["all", "unannotated", "global", [0.5, 0.5]])
def test_nan_selects_nothing(budget):
    scores = np.array([[0.9, np.nan], [0.2, 0.1]], np.float32)
    labels = np.array([[1, -1], [0, 1]], np.int8)
    with pytest.raises(ValueError, match="1 scores are NaN"):
        expected_positives(scores, labels, 1.5, budget)


# What a process reports of sockets, by Python's own events; Unix sockets reach no network.
SPY = string.Template("""
import sys
def note(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo",
                 "socket.gethostbyname", "urllib.Request"):
        with open($log, "a") as file:
            file.write(f"{event} {arguments[1:]}\\n")
sys.addaudithook(note)
sys.audit("socket.connect", None, "watched")
from spml_tf import evaluate, export, predict, train
for command, words in $commands:
    assert command.main(words) == 0, words
""")


def traced(log: Path) -> list[str]:
    """The words before a command that write its network calls, where strace can be used."""
    words = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,bind,sendto,listen",
             "-o", str(log)]  # fmt: skip
    try:
        usable = subprocess.run([*words, "true"], capture_output=True).returncode == 0
    except OSError:
        usable = False
    return words if usable else []


@faults.fault(TABLES, "a library that calls home", "training, evaluation, export and prediction "
              "are watched", "no connection is made, none accepted")  # fmt: skip
@pytest.mark.slow
def test_nothing_opens_a_socket(voc, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    run_dir, model = tmp_path / "run", tmp_path / "model"
    commands = [
        ("train", [*flags(voc, epochs=2), f"--output_dir={run_dir}"]),
        ("evaluate", [f"--run_dir={run_dir}"]),
        ("export", [f"--run_dir={run_dir}", f"--export_dir={model}"]),
        ("predict", [f"--model_dir={model}", f"--images={tmp_path}/*.png",
                     f"--output={tmp_path / 'p.csv'}"]),
    ]  # fmt: skip
    listed = ", ".join(f"({name}, {words!r})" for name, words in commands)
    code = SPY.substitute(log=repr(str(tmp_path / "events")), commands=f"({listed})")
    calls = tmp_path / "calls"
    tracing = traced(calls)
    words = [*tracing, sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.csv").exists()
    # urllib3, which Keras imports, asks whether there is IPv6 by binding a socket of this machine
    # to no port; it never listens and is closed at once.
    events = tmp_path / "events"
    first, *found = events.read_text("utf-8").splitlines()
    assert first == "socket.connect ('watched',)"
    assert set(found) <= {"socket.bind (('::1', 0),)"}
    if tracing:
        network = [x for x in calls.read_text("utf-8", "replace").splitlines()
                   if "AF_INET" in x or " listen(" in x]  # fmt: skip
        assert all(" bind(" in x and '"::1"' in x and "htons(0)" in x for x in network), network
