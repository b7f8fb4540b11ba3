"""How a run is exported: one field per flag of the command."""

from __future__ import annotations

import dataclasses

from spml_tf.exports import RUNTIME, RUNTIME_PACKAGE
from spml_tf.runs.evaluation_settings import calibration_field
from spml_tf.system.flag_fields import flag_field


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """Which run is exported, where to and how; see the texts of the flags."""

    run_dir: str = flag_field(None, "Folder of the run.", required=True)
    export_dir: str = flag_field(None, "Folder to write, new or empty.", required=True)
    overwrite: bool = flag_field(
        False, "Replace an earlier export in --export_dir (no other folder is replaced).", bool
    )
    format: str = flag_field(
        "saved_model", "Of saved_model, litert, onnx and web, separated by commas."
    )
    serving_version: str | None = flag_field(
        None,
        "Write the folder of this number in --export_dir, as TensorFlow Serving wants it; next: "
        "one more than the highest there.",
    )
    thresholds: str = flag_field(
        "f1",
        "How decisions are made, by the validation images. f1: the highest F1 of each class; "
        "precision:0.9 or recall:0.9: so much of it; count: as many decisions an image as there "
        "are positives (--positives_per_image of the run); a number: this threshold. A class with "
        "fewer than 10 validation positives takes the threshold of all classes together.",
    )
    calibration: str = calibration_field("Probabilities, heatmaps and thresholds")
    max_megapixels: float | None = flag_field(
        None,
        "Endpoints for files refuse pictures whose header tells of more pixels, in millions. "
        "Default: as the run was trained, 100 unless it was told otherwise.",
        float,
        low=1e-3,
        high=1e5,
    )
    data_dir: str | None = flag_field(
        None,
        "Folder of the run's data, where it is not where it was: litert, onnx and web are checked "
        "on its photos.",
    )
    check_images: int | None = flag_field(
        None, "Photos they are checked on, at most. Default: 500.", int, low=1
    )
    web_runtime: str | None = flag_field(
        None,
        f"For web: the file that `npm pack {RUNTIME_PACKAGE}` writes, or the package's folder. "
        f"Default: {RUNTIME}.",
    )
    push: str | None = flag_field(
        None,
        "hf://OWNER/NAME: upload the export to this model repository of the Hugging Face Hub too, "
        "with the model card as README.md.",
    )
    public: bool = flag_field(
        False, "With --push: a repository that is made now can be seen by all.", bool
    )
    dry_run: bool = flag_field(
        False, "With --push: list what would be uploaded, and upload nothing.", bool
    )
