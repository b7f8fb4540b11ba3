"""Gives spoiled files to every reader, which must answer or refuse in one line, soon.

python tools/fuzz_parsers.py [--cases=100000] [--minutes=10] [--seed=0] [NAME ...]

Files that are right are cut, have bits and numbers changed, parts doubled, moved or taken from
another file, and words put in that mean something to such a file. Each reader gets so many cases or
minutes, whichever is over first, in a process of its own. A fault is another error than a
`UserError`, more than one line, more than five seconds, over 1 GiB more memory, or an end of the
process; its file is kept and named. Prints a row of a table for each reader; the exit code is 1 if
there was a fault.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
TESTS = Path(__file__).parent.parent / "tests"

WORDS = (
    b",", b";", b"|", b"\t", b'"', b"'", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"{", b"}",
    b"[", b"]", b"<", b">", b"&amp;", b"<!DOCTYPE x [<!ENTITY y 'z'>]>", b"/", b"../", b"\\", b"=",
    b"-1", b"0", b"1", b"1.0", b"1e999", b"NaN", b"null", b"true", b"*", b"9" * 400, b"a" * 5000,
    b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"[[" * 3000, b"{\"a\":" * 3000,
    "é\u2028\u202e".encode(),
)  # fmt: skip
LONGEST_SECONDS = 5
LARGEST_KIB = 2**20


@dataclasses.dataclass(frozen=True)
class Reader:
    """What is spoiled, and who reads it.

    Attributes:
        files: right files by name, written anew before each case; one of them is spoiled.
        read: reads the folder that holds them.
        prepare: makes what stands beside them, once.
    """

    files: dict[str, bytes]
    read: Callable[[Path], object]
    prepare: Callable[[Path], object] = lambda folder: None


def tables() -> Reader:
    from spml_tf.datasets.readers.tables import read_table

    files = {
        "lists.csv": b"image,labels,negatives\na.jpg,cat;dog,cow\nb/c.jpg,cow,*\nd.jpg,,\n",
        "columns.csv": b'image,cat,"dog, large",cow\na.jpg,1,1,0\nb.jpg,0.0,,1.0\nc.jpg,,,\n',
    }

    def read(folder: Path) -> None:
        for name in files:
            read_table(folder / name)

    return Reader(files, read)


def label_files() -> Reader:
    from spml_tf.datasets.label_files import read_observed, read_reviewed

    rows = b"a.jpg,train,cat,1\na.jpg,train,dog,0\nb.jpg,train,,\nc.jpg,val,,\n"
    files = {
        "observed.csv": b"image,split,class,label\n" + rows,
        "reviewed.csv": b"image,class,label,score\na.jpg,cat,1,0.5\nb.jpg,dog,,0.1\n",
    }
    names, classes = ["a.jpg", "b.jpg", "c.jpg"], ["cat", "dog"]

    def read(folder: Path) -> None:
        read_observed(folder / "observed.csv", names, classes)
        read_reviewed([folder / "reviewed.csv"], names, classes)

    return Reader(files, read)


def plans() -> Reader:
    from spml_tf.plans.plan_files import read_plan

    files = {
        "plan.toml": b'title = "T"\npaper = "mAP"\nseeds = [0, 1]\nbaseline = "an"\n'
        b'oracle = "en"\n\n[search]\n'
        b"seed = 0\nepochs = 2\nflag_grid = { learning_rate = [1e-4, 2e-4] }\n\n[[rows]]\n"
        b'name = "an"\nflagfile = "a.flags"\npaper = 86.0\n\n[[rows]]\nname = "en"\n'
        b'flagfile = "a.flags"\nflags = { batch_size = 8 }\n',
        "a.flags": b"--dataset=digits\n--method=an\n--epochs=3\n# a line\n",
    }
    return Reader(files, lambda folder: read_plan(folder / "plan.toml"))


def built(name: str, kept: str, read: Callable[[Path], object]) -> Reader:
    """A reader of the tests' miniature data set of a name, whose `kept` files are spoiled."""
    sys.path.append(str(TESTS))
    from miniature import BUILDERS

    def prepare(folder: Path) -> None:
        BUILDERS[name](folder, 3, 2)

    with tempfile.TemporaryDirectory() as made:
        prepare(Path(made))
        found = {
            str(path.relative_to(made)): path.read_bytes()
            for pattern in kept.split() for path in sorted(Path(made).glob(pattern))
        }  # fmt: skip
    return Reader(found, read, prepare)


def voc() -> Reader:
    from spml_tf.datasets.readers import voc

    return built("voc", "ImageSets/Main/[a-d]*_train.txt ImageSets/Main/train.txt Annotations/*",
                 voc.load)  # fmt: skip


def coco() -> Reader:
    from spml_tf.datasets.readers import coco

    return built("coco", "annotations/*_train2014.json", coco.load)


def nuswide() -> Reader:
    from spml_tf.datasets.readers import nuswide

    return built("nuswide", "ImageList/*Train* Groundtruth/TrainTestLabels/*concept[0-3]_Train*",
                 nuswide.load)  # fmt: skip


def cub() -> Reader:
    from spml_tf.datasets.readers import cub

    return built("cub", "CUB_200_2011/*.txt CUB_200_2011/attributes/*", cub.load)


def imagenet_lists() -> Reader:
    from spml_tf.datasets.readers import imagenet_lists

    files = {
        "LOC_val_solution.csv": b"ImageId,PredictionString\nILSVRC2012_val_00000001,n10000001 1 2 "
        b"3 4 n10000001 5 6 7 8\nILSVRC2012_val_00000002,n10000002 9 9 9 9\n"
    }
    known = [f"n1000000{number}" for number in range(5)]
    return Reader(files, lambda folder: imagenet_lists.read_classes(folder, known, ""))


def imports() -> Reader:
    from spml_tf.datasets.label_formats import FORMATS
    from spml_tf.datasets.label_formats.sources import label_files
    from spml_tf.datasets.table_options import TableOptions

    files = {
        "roboflow/_classes.csv": b"filename, Acne, Dark Spots\na.jpg, 1, 0\nb.jpg, 0, 1\n",
        "openimages/labels.csv": b"ImageID,Source,LabelName,Confidence\n0a,verification,/m/1,0\n"
        b"0a,verification,/m/2,1\n0b,machine,/m/2,0.7\n",
        "openimages/class-descriptions.csv": b"/m/1,Human head\n/m/2,Cat\n",
        "chexpert/train.csv": b"Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema\n"
        b"CheXpert-v1.0-small/train/p1/s1/v1.jpg,Male,60,Frontal,AP,1.0,-1.0\n",
        "nih/Data_Entry.csv": b"Image Index,Finding Labels,Follow-up #,Patient ID\n"
        b"1.png,Cardiomegaly|Emphysema,1,2\n2.png,No Finding,1,2\n",
        "labelstudio/a.csv": b'image,choice,id\na.jpg,"{""choices"": [""cat"",""dog""]}",1\n'
        b"b.jpg,cat,2\n",
        "labelstudio/a.json": b'[{"image": "/data/upload/1/a.jpg", "choice": {"choices": ["cat"]}, '
        b'"id": 1}, {"image": "b.jpg", "choice": "dog", "id": 2}]',
        "hf/metadata.jsonl": b'{"file_name": "1.png", "labels": ["cat", "dog"]}\n{"file_name": '
        b'"2.png", "labels": []}\n',
        "azureml/a.jsonl": b'{"image_url": "azureml://x/I_02.jpg", "image_details": {"width": 1}, '
        b'"label": ["can", "milk"]}\n',
        "fiftyone/labels.json": b'{"classes": ["A", "B"], "labels": {"1": [0, 1], "2": null}}',
        "cvat/annotations.xml": b'<annotations><image id="0" name="a.jpg" width="6" height="2"'
        b'><tag label="good" source="manual"/></image></annotations>',
        "coco/a.json": b'{"images": [{"id": "7", "file_name": "a.jpg"}], "annotations": [{"id": '
        b'1, "image_id": "7", "category_id": 2, "bbox": []}], "categories": [{"id": 2, '
        b'"name": "c"}]}',
        "voc/a.xml": b"<annotation><filename>a.jpg</filename><object><name>cat</name><bndbox>"
        b"<xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></object></annotation>",
        "yolo/data.yaml": b'train: images/train\nnames:\n  0: cat\n  1: "dog"\n',
        "yolo/labels/train/a.txt": b"0 0.5 0.5 1 1\n1 0.1 0.2 0.3 0.4 0.5 0.6\n",
        "csv/labels.tsv": b"\timage\tcat\tdog\n0\ta.jpg\tTrue\tFalse\n1\tb.jpg\tFalse\tTrue\n",
    }

    def read(folder: Path) -> None:
        for name in sorted({Path(file).parts[0] for file in files}):
            known = FORMATS[name]
            for file in label_files(folder / name, folder / "none"):
                if known.recognises(file):
                    known.read(file, TableOptions())

    return Reader(files, read)


def torch() -> Reader:
    from spml_tf.networks.torch_file import read_torch_tensors

    sys.path.append(str(TESTS))
    import numpy as np
    from torch_files import pickled_dict, pickled_tensor, write_legacy, write_zip

    tensors = {"a": pickled_tensor("0", 12, 0, (3, 2), (1, 3)),
               "b": pickled_tensor("1", 1, 0, (), ())}  # fmt: skip
    files, state = {}, pickled_dict(tensors)
    with tempfile.TemporaryDirectory() as made:
        for name, write in (("legacy.pth", write_legacy), ("zip.pth", write_zip)):
            path = write(Path(made) / name, state, {"0": np.arange(12.0), "1": np.zeros(1)})
            files[name] = path.read_bytes()

    def read(folder: Path) -> None:
        for name in files:
            read_torch_tensors(folder / name)

    return Reader(files, read)


def image_headers() -> Reader:
    """What is decoded is never larger than what the header told."""
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    from spml_tf.datasets import image_headers

    frames = [Image.fromarray(np.full((9, 12, 3), x, np.uint8)) for x in (0, 90)]
    files = {}
    for kind in ("jpeg", "png", "bmp", "gif"):
        content = io.BytesIO()
        more = {"save_all": True, "append_images": frames[1:]} if kind == "gif" else {}
        frames[0].save(content, kind, **more)
        files[f"a.{kind}"] = content.getvalue()
    progressive = io.BytesIO()
    frames[1].save(progressive, "jpeg", progressive=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0")
    files["b.jpeg"] = progressive.getvalue()

    def read(folder: Path) -> None:
        for name in files:
            content = (folder / name).read_bytes()
            if content == files[name]:
                continue
            try:
                told = image_headers.limited(tf.constant(content), 0.25)
                assert 1 <= int(image_headers.orientation(told)) <= 8
                sides = image_headers.size(told).numpy()
                decoded = tf.io.decode_image(told, expand_animations=False)
            except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError):
                continue
            assert decoded.shape[0] * decoded.shape[1] <= sides.prod(), (sides, decoded.shape)

    return Reader(files, read)


def hdf5() -> Reader:
    import h5py
    import numpy as np

    from spml_tf.system.hdf5_checks import check_hdf5

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("a/b", data=np.arange(6.0))
        file.create_dataset("c", data=np.arange(64, dtype="u1"), compression="gzip")
        file.attrs["names"] = np.array([b"one", b"two"])
        file["same"] = file["c"]
    files = {"weights.h5": content.getvalue()}
    return Reader(files, lambda folder: check_hdf5(folder / "weights.h5"))


READERS = {
    x.__name__: x
    for x in (tables, label_files, imports, plans, voc, coco, nuswide, cub, imagenet_lists, torch,
              image_headers, hdf5)
}  # fmt: skip


def spoiled(content: bytes, others: list[bytes], draws: random.Random) -> bytes:
    """A file with one to four changes."""
    changed = bytearray(content)
    for _ in range(draws.choice((1, 1, 2, 4))):
        at = draws.randrange(len(changed) + 1)
        end = min(at + draws.choice((1, 2, 4, 16, 64, 500)), len(changed))
        kind = draws.randrange(8)
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            del changed[at:end]
        elif kind == 2 and at < len(changed):
            changed[at] ^= 1 << draws.randrange(8)
        elif kind == 3:
            changed[at:end] = draws.choice(WORDS)
        elif kind == 4:
            changed[at:at] = draws.choice(WORDS)
        elif kind == 5:
            changed[at:at] = changed[at:end] * draws.choice((1, 1, 50))
        elif kind == 6:
            other = draws.choice(others)
            start = draws.randrange(len(other) + 1)
            changed[at:end] = other[start : start + draws.choice((4, 64, 1000))]
        else:
            changed[at:end] = draws.randbytes(end - at)
    return bytes(changed)


def peak() -> int:
    """The most memory that this process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fuzz(name: str, cases: int, minutes: float, seed: int, folder: Path, pipe: Any) -> None:
    """Spoils and reads; sends the number of cases, of refusals, the longest time and the memory."""
    from spml_tf.system.errors import UserError

    reader, draws = READERS[name](), random.Random(f"{seed} {name}")
    reader.prepare(folder)
    names, refused, longest, faults = sorted(reader.files), 0, 0.0, 0
    for other in names:
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_bytes(reader.files[other])
    reader.read(folder)  # else nothing below means anything
    before, until, case = peak(), time.monotonic() + minutes * 60, 0
    while case < cases and time.monotonic() < until:
        case += 1
        chosen = draws.choice(names)
        content = spoiled(reader.files[chosen], list(reader.files.values()), draws)
        (folder / chosen).write_bytes(content)
        began, reason = time.perf_counter(), ""
        try:
            reader.read(folder)
        except UserError as error:
            refused += 1
            if len(str(error).splitlines()) != 1:
                reason = f"{len(str(error).splitlines())} lines: {error}"
        except Exception:
            reason = traceback.format_exc(limit=-3)
        seconds = time.perf_counter() - began
        longest = max(longest, seconds)
        if seconds > LONGEST_SECONDS:
            reason = f"{seconds:.0f} s"
        if peak() - before > LARGEST_KIB:
            reason, before = f"{peak() - before:,} KiB", peak()
        if reason:
            faults += 1
            kept = Path(tempfile.gettempdir()) / f"spoiled_{name}_{case}_{Path(chosen).name}"
            kept.write_bytes(content)
            print(f"{name}, case {case}: {kept}: {reason}", flush=True)
        (folder / chosen).write_bytes(reader.files[chosen])
    pipe.send((case, refused, longest, (peak() - before) // 1024, faults))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("names", nargs="*", choices=[[], *READERS], metavar="NAME")
    given = parser.parse_args()
    start, total = multiprocessing.get_context("spawn"), 0
    print("| reader | cases | refused | longest, s | memory, MiB | faults |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in given.names or READERS:
        folder = Path(tempfile.mkdtemp())
        ours, theirs = start.Pipe()
        words = (name, given.cases, given.minutes, given.seed, folder, theirs)
        process = start.Process(target=fuzz, args=words)
        process.start()
        theirs.close()
        try:
            case, refused, longest, memory, faults = ours.recv()
            row = f"| {name} | {case:,} | {refused:,} | {longest:.2f} | {memory} | {faults} |"
        except EOFError:
            process.join()
            row, faults = f"| {name} | ended with code {process.exitcode}; see {folder} |", 1
        else:
            shutil.rmtree(folder)
        print(row, flush=True)
        total += faults
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
