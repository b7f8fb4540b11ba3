"""How a table of labels is to be read: the flags that import and `--dataset=folder` share."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from spml_tf.system.flag_fields import flag_field

# What a value means that is no 1.
MEANINGS = ("positive", "negative", "unknown")


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """The flags about tables of labels, None or False where not given.

    Attributes are described by their flags: `python -m spml_tf.data --help`.
    """

    group: ClassVar[str] = "Tables of labels (folder, import)"

    image_column: str | None = flag_field(
        None, "Column of the photos' names. Default: image, filename, file_name, path and the like."
    )
    label_column: str | None = flag_field(
        None,
        "Column of class names: several in a cell (--label_separator), or one a row. Columns that "
        "no flag names are then left out.",
    )
    label_columns: str | None = flag_field(
        None,
        "COLUMN,COLUMN,...: the columns of classes, with cells 1, 0 or empty. Default: all but the "
        "photos' and those left out.",
    )
    negative_column: str | None = flag_field(
        None,
        "Column of the names of absent classes; * means all that are not listed. Default: negatives"
        " beside labels.",
    )
    value_column: str | None = flag_field(
        None, "With --label_column: column that says whether the class is there (1) or not (0)."
    )
    weight_column: str | None = flag_field(
        None, "Column of the photos' weights in the loss, numbers from 0."
    )
    omit_columns: str | None = flag_field(
        None, "COLUMN,COLUMN,...: columns that are no classes, such as age and sex."
    )
    table_header: str | None = flag_field(
        None, "COLUMN,COLUMN,...: names of the columns of a table without a header."
    )
    column_separator: str | None = flag_field(
        None,
        "Between columns: comma, semicolon, tab, bar or the character itself. Default: recognised "
        "from the header.",
    )
    label_separator: str | None = flag_field(
        None,
        "Between class names in a cell: semicolon, comma, bar, blank, tab, json (a list), none, or "
        "the characters themselves. Default: semicolon; JSON lists are recognised.",
    )
    add_extension: str | None = flag_field(
        None, "Ending of the photos' files, such as .jpg, where the names have none."
    )
    strip_prefix: str | None = flag_field(
        None, "What the photos' names begin with and the photos' folder does not have."
    )
    minus_one: str | None = flag_field(
        None, "What -1 means. Default: a table with -1 is refused.", str, MEANINGS
    )
    zero: str | None = flag_field(
        None, "What 0 means. Default: negative.", str, ("negative", "unknown")
    )
    blank: str | None = flag_field(
        None,
        "What an empty cell in a column of a class means. Default: unknown.",
        str,
        ("unknown", "negative"),
    )
    skip_fractions: bool | None = flag_field(
        None, "Values between 0 and 1, which machines give, are unknown.", bool
    )
    no_label: str | None = flag_field(
        None, "Name that means that none of the classes is there, such as 'No Finding'."
    )
    unlisted: str | None = flag_field(
        None,
        "What the classes are that a photo's list does not name. Default: unknown.",
        str,
        ("unknown", "negative"),
    )
    keep_copies: bool | None = flag_field(
        None,
        "Photos with the same content stay apart. Default: they become one photo with the labels "
        "of all.",
        bool,
    )
    trust_table: bool | None = flag_field(
        None, "Read a table whose names of classes look as if it were misread.", bool
    )

    def given(self) -> list[str]:
        """The names of the table's flags that were given."""
        fields = dataclasses.fields(TableOptions)
        return [x.name for x in fields if getattr(self, x.name) not in (None, "", False)]

    def of_table(self) -> TableOptions:
        """These flags alone, of an instance of a class that inherits from this one."""
        return TableOptions(**{name: getattr(self, name) for name in self.given()})
