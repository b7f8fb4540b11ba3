"""Label files of other tools: a table of formats, each read into `Labels`. Needs no TensorFlow.

To add a format: a file beside this one with recognises(file) and read(file, options), and a row in
`FORMATS`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from spml_tf.system.errors import UserError

if TYPE_CHECKING:
    from spml_tf.datasets.label_formats.collected_labels import LabelFile, Labels
    from spml_tf.datasets.table_options import TableOptions

# The flags that are not about columns, which formats without columns take too.
COMMON_OPTIONS = (
    "add_extension", "strip_prefix", "no_label", "unlisted", "keep_copies", "trust_table",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Format:
    """A format that the command line knows by name.

    Attributes:
        module: the module of this folder; recognises(file) says by its content whether a file is of
            the format, read(file, options) returns `Labels`.
        title: what messages call it.
        columns: whether it is a table, which takes all flags about tables.
        many: whether each photo has a file of its own.
        ending: of photos that are not found, where names have none.
    """

    module: str
    title: str
    columns: bool = True
    many: bool = False
    ending: str = ""

    def recognises(self, file: LabelFile) -> bool:
        """Whether a file is of this format."""
        found: bool = self._module().recognises(file)
        return found

    def read(self, file: LabelFile, options: TableOptions) -> Labels:
        """What a file says.

        Raises:
            UserError: it is malformed; the message names file and line or entry.
        """
        labels: Labels = self._module().read(file, options)
        return labels

    def _module(self) -> Any:
        return importlib.import_module(f"{__name__}.{self.module}")


# The first that recognises a file has it; csv takes any table that no other knows.
FORMATS: dict[str, Format] = {
    "roboflow": Format("roboflow", "Roboflow's multi-label _classes.csv"),
    "openimages": Format("openimages", "Open Images' image labels"),
    "chexpert": Format("chexpert", "CheXpert's table"),
    "nih": Format("nih", "NIH ChestX-ray14's table"),
    "labelstudio": Format("labelstudio", "Label Studio's CSV, JSON or JSON-MIN"),
    "hf": Format("huggingface", "Hugging Face's ImageFolder metadata"),
    "azureml": Format("azureml", "Azure AutoML's JSON Lines"),
    "fiftyone": Format("fiftyone", "FiftyOne's image classification", columns=False, ending=".jpg"),
    "cvat": Format("cvat", "CVAT for images 1.1", columns=False),
    "coco": Format("coco", "COCO json", columns=False),
    "voc": Format("voc", "Pascal VOC's XML", columns=False, many=True, ending=".jpg"),
    "yolo": Format("yolo", "YOLO's text files", columns=False, many=True, ending=".jpg"),
    "csv": Format("csv_table", "a table"),
    "folders": Format("folders", "a folder per class", columns=False),
}


def recognise(files: Iterable[LabelFile], name: str, place: str) -> tuple[str, list[LabelFile]]:
    """Which format some files are of, and which of them belong to it.

    Args:
        files: candidates.
        name: a key of `FORMATS`, or "auto".
        place: what messages call the source.

    Returns:
        The format's name, and its files.

    Raises:
        UserError: none or several formats are recognised, or no file is of the named one.
    """
    files = list(files)
    if name != "auto":
        if name == "folders" or (len(files) == 1 and files[0].path.is_file()):
            return name, files[-1:]
        there = [file for file in files if file.path.is_file()]
        own = [file for file in there if FORMATS[name].recognises(file)]
        if not own:
            look = _instead(files)
            if there:
                look = (
                    f"; --from=auto looks for other formats, and --source={there[0].path} says "
                    "what is wrong with this file"
                )
            raise UserError(f"{place}: holds no file of {FORMATS[name].title}{look}")
        return name, own
    found: dict[str, list[LabelFile]] = {}
    for file in files:
        for other, known in FORMATS.items():
            if known.recognises(file):
                found.setdefault(other, []).append(file)
                break
    for weak in ("folders", "csv", "yolo"):  # what may lie beside the label files of a tool
        if len(found) > 1:
            found.pop(weak, None)
    if not found:
        raise UserError(
            f"{place}: holds no label file that is recognised; name its format with --from="
            f"{'|'.join(FORMATS)}{_instead(files)}"
        )
    if len(found) > 1:
        words = " or ".join(
            f"--from={other} ({files[0].path.name})" for other, files in found.items()
        )
        raise UserError(f"{place}: holds label files of several formats; give {words}")
    return next(iter(found.items()))


def _instead(files: Sequence[LabelFile]) -> str:
    """What to do about what is not read; the last candidate is the source itself."""
    # Only where it fails, and heavy: this table of formats is read for every --help.
    from spml_tf.datasets.label_formats.sources import other_files

    return other_files(files[-1].path)
