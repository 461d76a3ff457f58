"""What the user says about the fields of examples: the options of `create`, `filter`, `train`, `evaluate`, ..."""

from __future__ import annotations

from typing import Annotated

from datacreate.settings import CommaList, Pairs, Settings, setting

Fields = Annotated[tuple[str, ...], CommaList]


class FormatOptions(Settings):
    """The task format of examples."""

    format: str | None = setting(
        "Task format: the name of a shipped one, or a JSON file.",
        "input",
        metavar="NAME|FILE",
        shown_default="inferred from the example",
    )
    inputs: Fields = setting(
        "Fields that the answer depends on.",
        "input",
        default=(),
        metavar="FIELD,...",
        shown_default="all texts but answer and options",
    )
    answer: str | None = setting(
        "Field of the answer.", "input", metavar="FIELD", shown_default="from its name and value"
    )
    options: str | None = setting(
        "Field with a list of possible answers.", "input", metavar="FIELD", shown_default="as for --answer"
    )
    ignore: Fields = setting(
        "Fields that nothing uses; the model does not write them.", "input", default=(), metavar="FIELD,..."
    )
    labels: Pairs = setting("All values that a field may have.", "input", default={}, metavar="FIELD=a,b,c")
    label: tuple[str, ...] = setting(
        "One more value that a field may have; it can contain commas. Repeat the option for each.",
        "input",
        default=(),
        metavar="FIELD=VALUE",
    )
    ranges: Pairs = setting(
        "Range of a numeric field.", "input", default={}, flag="--range", metavar="FIELD=1..5"
    )
    turns: int | None = setting(
        "Conversations: messages of the user, each with its answer.",
        "input",
        gt=0,
        shown_default="as in the example",
    )

    @property
    def label_sets(self) -> dict[str, list[str]]:
        """The values of each field with --labels or --label, in order."""
        sets = {name: [part.strip() for part in text.split(",")] for name, text in self.labels.items()}
        for text in self.label:
            name, _, value = text.partition("=")
            sets.setdefault(name.strip(), []).append(value.strip())
        return {name: [value for value in values if value] for name, values in sets.items()}
