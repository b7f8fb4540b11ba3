"""Controls of the pages on which labels are decided, as HTML."""

from __future__ import annotations

from spml_tf.pages.html_page import text

OPACITY = 35  # percent at first: it is the photo that is to be judged
WHICH = """<label>Show <select id="which"><option value="all">all</option>
<option value="open">undecided</option><option value="decided">decided</option></select></label>"""
SAVING = """<button type="button" id="undo">Undo</button>
<button type="button" id="save">Save reviewed.csv</button>
<label>Read one back <input type="file" id="load" accept=".csv"></label>
<span id="count" role="status"></span>"""
SAVED = '<span id="saved" role="status"></span> <span id="loaded" role="status"></span>'


def label_buttons(image: str, class_name: str, more: str, before: str = "") -> str:
    """What a label is decided with.

    Args:
        image: the photo's name.
        class_name: the label's.
        more: attributes of the element.
        before: HTML before the buttons.
    """
    choices = "".join(
        f'<button type="button" data-decision="{value}" aria-pressed="false">{word}</button>'
        for value, word in (("1", "present"), ("0", "absent"))
    )
    return (
        f'<div class="review" role="group" aria-label="{text(class_name)} in {text(image)}" '
        f'data-image="{text(image)}" data-class="{text(class_name)}" {more}>{before}{choices}</div>'
    )
