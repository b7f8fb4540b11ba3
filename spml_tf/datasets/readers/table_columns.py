"""Which column of a table is what: the photos' names, lists of classes, classes, or neither."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from spml_tf.datasets.readers.photos import PHOTO
from spml_tf.datasets.readers.table_cells import Row, Values
from spml_tf.datasets.table_options import TableOptions
from spml_tf.system.errors import UserError, quoted, spoiled
from spml_tf.system.flag_words import split_names

FORMS = (
    "the header is image,labels or image,labels,negatives (names separated by ;) or "
    "image,CLASS,CLASS,... (cells 1, 0 or empty)"
)
# Without regard to case, blanks, - and _; the first that is there counts.
_IMAGE_NAMES = (
    "image", "filename", "file", "path", "filepath", "imagepath", "imagename", "imagefile",
    "imageindex", "imageid", "img", "imgpath", "photo", "picture",
)  # fmt: skip
_LABEL_NAMES = (
    "labels", "label", "classes", "class", "classname", "category", "categories", "tags", "tag",
    "choice", "choices", "labelname",
)  # fmt: skip
# Columns beside one of names that must not be left out without a word.
_SPLIT_NAMES = (
    "split", "set", "subset", "partition", "fold", "isvalid", "isval", "isvalidation", "istrain",
    "istraining", "istest",
)  # fmt: skip
_NEGATIVE_NAMES = ("negatives", "negative", "neg", "absent", "negativelabels")
_VALUE_NAMES = (
    "value", "present", "presence", "confidence", "score", "probability", "isthere", "positive",
    "visible",
)  # fmt: skip
# The flags that only tables with lists of names have a use for, and those with values.
_OF_LISTS = ("negative_column", "label_separator", "no_label", "unlisted")
_OF_VALUES = ("minus_one", "zero", "blank", "skip_fractions")
# More columns than any set of labels has, ImageNet-21K's among them.
_MOST_COLUMNS = 100_000


@dataclasses.dataclass(frozen=True)
class Columns:
    """Where what stands in each row.

    Attributes:
        image: the photo's name.
        labels: names of classes; None where the classes have columns.
        negatives: names of absent classes, or None.
        value: whether the class that a row names is there, or None.
        weight: the photo's weight, or None.
        classes: columns of classes.
        notes: about columns that are left out.
    """

    image: int
    labels: int | None = None
    negatives: int | None = None
    value: int | None = None
    weight: int | None = None
    classes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def split_columns(flag: str, text: str | None) -> list[str]:
    """The columns that a flag lists, those without a name apart."""
    return [*filter(None, split_names(flag, text))]


def check_header(place: str, header: Sequence[str]) -> None:
    """Refuses a header that is no list of names.

    Raises:
        UserError: the names of a row, too many, or one that is spoiled or given twice.
    """
    photo = next((x for x, name in enumerate(header) if PHOTO.search(name)), None)
    if photo is not None and not any(_plain(name) in _IMAGE_NAMES for name in header):
        names = _names_of(header[:9], photo)
        raise UserError(
            f"{place}: the first line names a photo, {quoted(header[photo])}; add a header, or "
            f"give it as --table_header={','.join(names)}"
        )
    if len(header) > _MOST_COLUMNS:
        raise UserError(
            f"{place}: {len(header):,} columns, at most {_MOST_COLUMNS:,} are read; write a row "
            "for each photo and a column for each class"
        )
    before: set[str] = set()
    for number, name in enumerate(header):
        if name and (reason := spoiled(name)):
            raise UserError(f"{place}: the name of column {number + 1} {reason}; name or remove it")
        if name and name in before:
            raise UserError(f"{place}: two columns are called {quoted(name)}; rename or remove one")
        before.add(name)


def _names_of(first: Sequence[str], photo: int) -> list[str]:
    """A header for a table whose first row is known."""
    text = [x for x, cell in enumerate(first) if x != photo and not Values.looks_like_one(cell)]
    names = [f"COLUMN{x}" if x in text else f"CLASS{x}" for x in range(len(first))]
    if len(text) == 1:
        names[text[0]] = "labels"
    if photo < len(names):
        names[photo] = "image"
    return names


def assign(
    place: str, header: Sequence[str], body: Sequence[Row], options: TableOptions
) -> Columns:
    """Says which column is what.

    Args:
        place: of the header, for messages.
        header: names without blanks around them, checked.
        body: the rows, each as long as the header.
        options: the flags about tables.

    Raises:
        UserError: a column that a flag names is not there, there is no column of photos or of
            labels, or a column is neither; the message shows the flag to give.
    """
    return _Assignment(place, header, body, options).columns()


class _Assignment:
    def __init__(
        self,
        place: str,
        header: Sequence[str],
        body: Sequence[Row],
        options: TableOptions,
    ) -> None:
        self._place, self._header, self._body, self._options = place, header, body, options
        self._notes: list[str] = []

    def columns(self) -> Columns:
        given, header = self._options, self._header
        image = self._image()
        label, negative, value, weight = (
            self._find(flag, getattr(given, flag))
            for flag in ("label_column", "negative_column", "value_column", "weight_column")
        )
        if value is not None and label is None:
            raise UserError("--value_column: needs --label_column, the column of the class")
        omitted = {
            self._find("omit_columns", name)
            for name in split_columns("omit_columns", given.omit_columns)
        }
        taken = {image, negative, value, weight, label, *omitted}
        rest = [x for x in range(len(header)) if x not in taken and not self._unnamed(x)]
        if given.label_columns:
            if label is not None:
                raise UserError("--label_columns: not together with --label_column; drop one")
            chosen = split_columns("label_columns", given.label_columns)
            classes = [self._require("label_columns", name) for name in chosen]
            self._leave_out([x for x in rest if x not in classes])
            return self._of_classes(image, weight, classes)
        if label is None:
            label, negative, rest = self._look_for_labels(rest, negative)
        if label is None:
            if not rest:
                raise UserError(
                    f"{self._place}: there is no column of labels; {FORMS}; if the columns are "
                    "separated by another character, give --column_separator=CHARACTER"
                )
            if negative is not None:
                raise UserError(
                    f"{self._place}: --negative_column: needs a column of lists of names; give "
                    "--label_column, or leave it out where each class has a column"
                )
            if not given.trust_table:
                self._check_splits(rest, ", or --trust_table if it is a class")
            return self._of_classes(image, weight, rest)
        if negative is None and given.negative_column is None and _plain(header[label]) == "labels":
            negative = next((x for x in rest if _plain(header[x]) == "negatives"), None)
            rest = [x for x in rest if x != negative]
        self._check_left_out(rest, negative is None, value is None)
        self._leave_out(rest)
        if value is None:
            self._tell_of_ignored(_OF_VALUES, "names of classes, and no values")
        return Columns(image, label, negative, value, weight, notes=self._told())

    def _check_left_out(self, columns: Sequence[int], negatives: bool, values: bool) -> None:
        """Refuses to leave out columns that say what the names beside them mean."""
        self._check_splits(columns)
        for x in columns:
            name, plain, flag = self._header[x], _plain(self._header[x]), ""
            if negatives and plain in _NEGATIVE_NAMES:
                flag = "negative_column"
            elif values and plain in _VALUE_NAMES and self._holds_values(x):
                flag = "value_column"
            if flag:
                raise UserError(
                    f"{self._place}: {quoted(name)} seems to say which labels are absent; give "
                    f"--{flag}={name}, or --omit_columns={name} if it does not"
                )

    def _check_splits(self, columns: Sequence[int], otherwise: str = "") -> None:
        """Refuses columns that say to which part of the data a row belongs."""
        name = next((self._header[x] for x in columns if self._says_split(x)), None)
        if name is not None:
            raise UserError(
                f"{self._place}: {quoted(name)} seems to say of which split a row is; cut the "
                f"table into one for each, or give --omit_columns={name} to read all "
                f"rows{otherwise}"
            )

    def _says_split(self, column: int) -> bool:
        return _plain(self._header[column]) in _SPLIT_NAMES

    def _of_classes(self, image: int, weight: int | None, classes: Sequence[int]) -> Columns:
        self._tell_of_ignored(_OF_LISTS, "a column for each class, and no names in cells")
        return Columns(image, weight=weight, classes=tuple(classes), notes=self._told())

    def _tell_of_ignored(self, flags: Sequence[str], shape: str) -> None:
        """Notes the flags that the table's form has no use for; another split's may have."""
        ignored = [f"--{flag}" for flag in flags if flag in self._options.given()]
        if ignored:
            self._notes.append(f"it has {shape}: {', '.join(ignored)} changes nothing")

    def _image(self) -> int:
        if self._options.image_column:
            return self._require("image_column", self._options.image_column)
        plain = {_plain(name): x for x, name in reversed(list(enumerate(self._header)))}
        if "image" in self._header:
            return self._header.index("image")
        for name in _IMAGE_NAMES:
            if name in plain:
                return plain[name]
        place, names = self._place, ", ".join(map(quoted, self._header[:8]))
        photos = [
            x for x in range(len(self._header)) if self._body and PHOTO.search(self._cell(0, x))
        ]
        column = self._header[photos[0]] if len(photos) == 1 and self._header[photos[0]] else ""
        raise UserError(
            f"{place}: no column is called image, found {names}; give "
            f"--image_column={column or 'COLUMN'}; {FORMS}; if the columns are separated by "
            "another character, give --column_separator=CHARACTER"
        )

    def _look_for_labels(
        self, rest: list[int], negative: int | None
    ) -> tuple[int | None, int | None, list[int]]:
        """The column of lists of names, if there is one, and what is left."""
        header = self._header
        if _announce_lists([header[x] for x in rest]):
            return rest[0], rest[1] if len(rest) > 1 else negative, []
        text = [x for x in rest if not self._holds_values(x)]
        if not text:
            return None, negative, rest
        named = [x for x in text if _plain(header[x]) in _LABEL_NAMES]
        if len(named) == 1:
            classes = [x for x in rest if x not in text and not self._says_split(x)]
            otherwise = f", and else --omit_columns={self._flag(text)}" if classes else ""
            raise UserError(
                f"{self._place}: columns beside {quoted(header[named[0]])}; give "
                f"--label_column={header[named[0]]} if it lists the classes{otherwise}"
            )
        return None, negative, rest

    def refusal(self, classes: Sequence[int]) -> str:
        """What to do about columns of classes that hold something else."""
        return self._flag([x for x in classes if not self._holds_values(x)])

    def _flag(self, columns: Sequence[int]) -> str:
        """Columns as a flag lists them."""
        names = [self._header[x] for x in columns[:20]]
        return ",".join(f'"{name}"' if "," in name else name for name in names)

    def _cell(self, row: int, column: int) -> str:
        return self._body[row][1][column].strip()

    def _holds_values(self, column: int) -> bool:
        cells = {fields[column] for _, fields in self._body}
        return all(map(Values.looks_like_one, cells))

    def _unnamed(self, column: int) -> bool:
        """Whether a column without a name may be dropped: it is blank, or numbers the rows."""
        if not _without_a_name(self._header[column]):
            return False
        cells = [fields[column].strip() for _, fields in self._body]
        if not any(cells):
            return True
        if all(re.fullmatch(r"\d+", cell) for cell in cells) and len(set(cells)) == len(cells):
            return True
        raise UserError(
            f"{self._place}: the name of column {column + 1} is empty; name or remove it"
        )

    def _find(self, flag: str, name: str | None) -> int | None:
        return self._require(flag, name) if name else None

    def _require(self, flag: str, name: str) -> int:
        if name in self._header:
            return self._header.index(name)
        plain = [x for x, other in enumerate(self._header) if _plain(other) == _plain(name)]
        if len(plain) == 1:
            return plain[0]
        known = ", ".join(map(quoted, self._header[:30]))
        raise UserError(
            f"{self._place}: --{flag}: no column {quoted(name)}; there are {known}; flags about "
            "columns are those of all tables, so give their columns the same names"
        )

    def _leave_out(self, columns: Sequence[int]) -> None:
        if columns:
            names = ", ".join(quoted(self._header[x]) for x in columns[:5])
            more = f" and {len(columns) - 5} more" if len(columns) > 5 else ""
            self._notes.append(f"columns that are no labels, left out: {names}{more}")

    def _told(self) -> tuple[str, ...]:
        path = self._place.rpartition(":")[0]
        return tuple(f"{path}: {note}" for note in self._notes)


def not_classes(class_names: Sequence[str], others: Sequence[str]) -> set[str]:
    """The names of classes that a table with a column for each would not give back.

    Args:
        class_names: what the header is to have, in its order.
        others: the names of the header's other columns.

    Examples:
        >>> not_classes(["label"], ["image"]), not_classes(["cat", "label"], ["image"])
        ({'label'}, set())
        >>> not_classes(["cat", "fold"], ["image"])
        {'fold'}
    """
    if _announce_lists(class_names):
        return set(class_names)
    return {
        name
        for name in class_names
        if name in others or _without_a_name(name) or _plain(name) in _SPLIT_NAMES
    }


def _announce_lists(names: Sequence[str]) -> bool:
    """Whether columns beside the photos' names are lists of classes by their names."""
    plain = list(map(_plain, names))
    return plain in (["labels"], ["labels", "negatives"]) or (
        len(plain) == 1 and plain[0] in _LABEL_NAMES
    )


def _without_a_name(name: str) -> bool:
    """Whether a column is called as those are that a program wrote without a name."""
    return not name or re.fullmatch(r"Unnamed: \d+", name) is not None


def has_column(header: Sequence[str], name: str | None) -> bool:
    """Whether a flag's column is there, without regard to case, blanks, - and _."""
    return name is not None and _plain(name) in map(_plain, header)


def no_classes(header: Sequence[str], body: Sequence[Row], classes: Sequence[int]) -> str:
    """The columns among those of classes that hold something else, as --omit_columns lists them."""
    return _Assignment("", header, body, TableOptions()).refusal(classes)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()
