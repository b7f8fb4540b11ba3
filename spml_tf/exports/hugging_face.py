"""Pushes an export to the Hugging Face Hub, with its model card as README.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from spml_tf.exports import MODEL_CARD
from spml_tf.system.errors import UserError, reason_of
from spml_tf.system.optional_packages import needed

_PREFIX = "hf://"
# What the model card becomes there.
_README = "README.md"


class Repository(NamedTuple):
    """A model repository of the Hub.

    Attributes:
        address: as the user gave it.
        name: OWNER/NAME.
        public: whether one that is made now can be seen by all.
    """

    address: str
    name: str
    public: bool

    @property
    def kind(self) -> str:
        """As a sentence calls it."""
        return f"{'public' if self.public else 'private'} repository {self.name}"


def repository(address: str, public: bool, uploads: bool) -> Repository:
    """The repository of an address.

    Args:
        address: hf://OWNER/NAME.
        public: whether one that is made now can be seen by all.
        uploads: whether anything is uploaded, for which somebody must be logged in.

    Raises:
        UserError: another address, huggingface_hub is missing, or nobody is logged in.
    """
    needed("huggingface_hub", "huggingface", f"--push={address}")
    import huggingface_hub
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    name = address.removeprefix(_PREFIX)
    try:
        validate_repo_id(name)
    except HFValidationError:
        name = ""
    if not address.startswith(_PREFIX) or name.count("/") != 1:
        raise UserError(
            f"--push={address}: give hf://OWNER/NAME, of letters, digits, '-', '_' and '.'"
        )
    if uploads and huggingface_hub.get_token() is None:
        raise UserError(
            f"--push={address}: nobody is logged in; run `hf auth login`, or set HF_TOKEN"
        )
    return Repository(address, name, public)


def readme(name: str, card: str, record: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """A model card with the front matter that the Hub reads.

    Args:
        name: OWNER/NAME.
        card: MODEL_CARD.md.
        record: the run's run.json.
        results: the run's metrics.json.
    """
    from huggingface_hub import EvalResult, ModelCardData

    flags = record["flags"]
    found = [
        EvalResult(
            task_type="image-classification",
            dataset_type=flags["dataset"],
            dataset_name=flags["dataset"],
            dataset_split=split,
            metric_type="mAP",
            metric_name="mean average precision, percent",
            metric_value=round(results[split]["map"], 2),
        )
        for split in ("val", "test")
        if split in results and results[split]["map"] is not None
    ]
    data = ModelCardData(
        library_name="spml_tf",
        pipeline_tag="image-classification",
        tags=["multi-label-classification", "single-positive-labels", flags["method"]],
        model_name=name.partition("/")[2] if found else None,
        eval_results=found or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{card}"


def contents(folder: Path, card: str) -> dict[str, Path | bytes]:
    """What is uploaded, by its path in the repository.

    Args:
        folder: of the export.
        card: what README.md is to hold.
    """
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    shown = (path for path in paths if path.name != MODEL_CARD and not path.name.startswith("."))
    return {
        _README: card.encode("utf-8"),
        **{path.relative_to(folder).as_posix(): path for path in shown},
    }


def listing(files: Mapping[str, Path | bytes]) -> str:
    """A line a file with its bytes, and one for all."""
    sizes = {
        name: len(x) if isinstance(x, bytes) else x.stat().st_size for name, x in files.items()
    }
    lines = [f"{size:>13,}  {name}" for name, size in sizes.items()]
    return "\n".join([*lines, f"{sum(sizes.values()):>13,}  bytes in {len(files)} files"])


def push(target: Repository, files: Mapping[str, Path | bytes], folder: Path) -> str:
    """Uploads files in one commit; files of other names stay in the repository.

    Args:
        target: the repository; it is made where there is none.
        files: of `contents`.
        folder: of the export, which a message names.

    Returns:
        The address of the repository's page.

    Raises:
        UserError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="spml_tf")
    try:
        made = api.create_repo(target.name, private=not target.public, exist_ok=True)
        operations = [
            CommitOperationAdd(name, x if isinstance(x, bytes) else str(x))
            for name, x in files.items()
        ]
        api.create_commit(target.name, operations, commit_message="Export of spml_tf")
    except Exception as error:  # its HTTP client is another one in each of its releases
        reason = reason_of(error, 400).rstrip(".")
        raise UserError(
            f"--push={target.address}: {reason}; the export is in {folder}, and the same command "
            "with --overwrite tries again"
        ) from error
    return str(made)
