"""The terminal program of `datacreate review`: one row at a time, one key for each decision.

It needs no mouse, 80x24 characters and the terminal's own colors. Text from models is shown as
`messages.safe_text` makes it safe, and is never markup.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Input, Static, TextArea

from datacreate.errors import DatacreateError, DecisionRefused
from datacreate.formats.example import Json, field_text
from datacreate.messages import safe_line, safe_text
from datacreate.review.session import FLAGS, Change, ReviewRow, ReviewSession
from datacreate.review.spreadsheet import editable_fields, editable_text, edited_value, probabilities_text
from datacreate.runs.decisions import Verdict
from datacreate.signals import Signals, caught_signals, deferred

_REASONS = ("wrong answer", "false statement", "unclear", "off topic", "repetitive", "offensive")  # keys: 1, 2, ...

_KEYS = "a accept   r reject   e edit   s skip   b back   ↑↓ PgUp PgDn scroll   q quit"
_ACTIONS = {"a": "accept", "r": "reject", "e": "edit", "s": "skip", "b": "previous", "q": "quit"}
_SIGNAL_SECONDS = 0.2  # between two looks for a signal


class Dialog(ModalScreen[object]):
    """A question on the whole screen; Esc goes back, with the result None."""

    DEFAULT_CSS = """
    Dialog { align: center middle; }
    Dialog > VerticalScroll { width: 100%; height: 100%; padding: 0 1; background: $background; }
    Dialog TextArea { height: auto; max-height: 8; }
    Dialog .error { text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", show=False)]

    def show_error(self, text: str) -> None:
        self.query_one(".error", Static).update(Text(safe_line(text)))


class RejectDialog(Dialog):
    """Asks why a row is rejected; the result is the reason, or None."""

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=False):
            reasons = "\n".join(f"  {number}  {reason}" for number, reason in enumerate(_REASONS, 1))
            keys = "A digit or your own words, then Enter; Esc goes back."
            yield Static(Text(f"Why is the row rejected?\n\n{reasons}\n\n{keys}"), markup=False)
            input_line = Input(max_length=200, select_on_focus=False, compact=True)
            input_line.cursor_blink = False  # nothing is sent while nothing is pressed
            yield input_line
            yield Static("", classes="error", markup=False)

    def on_key(self, event: Key) -> None:
        """Give the input line the keys that arrived before it had the focus."""
        input_line = self.query_one(Input)
        if event.key == "enter":
            self._finish(input_line.value)
        elif event.character and event.is_printable:
            input_line.insert_text_at_cursor(event.character)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._finish(event.value)

    def _finish(self, typed: str) -> None:
        reason = " ".join(safe_text(typed).split())
        if reason.isdecimal():
            reason = dict(enumerate(_REASONS, 1)).get(int(reason), "")
        if reason:
            self.dismiss(reason)
        else:
            self.show_error(f"Write a reason or a digit from 1 to {len(_REASONS)}, or go back with Esc.")


class EditDialog(Dialog):
    """Edits the fields of a row. `save` gets the values and returns why they are refused, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+s,f2", "save", show=False, priority=True)]

    def __init__(
        self, values: Mapping[str, Json], names: list[str], save: Callable[[dict[str, Json]], str | None]
    ) -> None:
        super().__init__()
        self._values, self._names, self._save = values, names, save
        self._shown: list[str] = []  # the texts before the edit

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=False):
            yield Static("Ctrl+S or F2 saves, Esc goes back, Tab moves to the next field.", markup=False)
            yield Static("", classes="error", markup=False)
            for name in self._names:
                yield Static(Text(f"\n{safe_line(name)}", style="bold"), markup=False)
                area = TextArea(editable_text(self._values[name]), compact=True, highlight_cursor_line=False)
                area.cursor_blink = False
                self._shown.append(area.text)
                yield area

    def on_mount(self) -> None:
        self.query(TextArea).first().focus()

    def action_save(self) -> None:
        values = dict(self._values)
        for name, area, shown in zip(self._names, self.query(TextArea), self._shown, strict=True):
            if area.text != shown:
                try:
                    values[name] = edited_value(area.text, self._values[name])
                except ValueError as error:
                    self.show_error(f"{name}: {error}")
                    return
        if refusal := self._save(values):
            self.show_error(refusal)
        else:
            self.dismiss(values)


class ReviewApp(App[None]):
    """Shows rows in their order, and makes decisions about those that have none."""

    CSS = """
    #top { height: 1; text-style: reverse; }
    #body { height: 1fr; }
    #message { height: auto; max-height: 3; text-style: bold; }
    #keys { height: 1; }
    """
    ENABLE_COMMAND_PALETTE = False
    # They have priority, so that keys after one that opens a dialog belong to the dialog, however fast they arrive.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, action, show=False, priority=True) for key, action in _ACTIONS.items()
    ]

    def __init__(self, session: ReviewSession, rows: list[ReviewRow], signals: Signals) -> None:
        super().__init__(ansi_color=True)
        self._session, self._all, self._signals = session, rows, signals
        self._rows, self._row_index = self._undecided, 0
        self.failure: DatacreateError | None = None  # the first; kept here, since a later `exit` replaces its result

    @property
    def _undecided(self) -> list[ReviewRow]:
        return [row for row in self._all if row.decision is None]

    @property
    def current(self) -> ReviewRow | None:
        """The row that is shown; None at the end."""
        return self._rows[self._row_index] if self._row_index < len(self._rows) else None

    def compose(self) -> ComposeResult:
        yield Static(id="top", markup=False)
        with VerticalScroll(id="body"):
            yield Static(id="row", markup=False)
        yield Static(id="message", markup=False)
        yield Static(Text(_KEYS), id="keys", markup=False)

    def on_mount(self) -> None:
        self.theme = "ansi-dark"
        self.query_one("#body").focus()
        self.set_interval(_SIGNAL_SECONDS, self._check_signals)
        self._show()

    def _check_signals(self) -> None:
        if self._signals.received:
            self.exit()

    def _show(self, message: str = "") -> None:
        session, row, skipped = self._session, self.current, len(self._undecided)
        decided = f"{len(session.stats.review.last)} of {len(session.rows)} decided"
        title = f"{session.directory.path.name} · {len(self._rows) - self._row_index} to review · {decided}"
        self.query_one("#top", Static).update(Text(safe_line(title), no_wrap=True, overflow="ellipsis"))
        again = f"{skipped} skipped rows are left: s shows them again. " if skipped else ""
        end = Text(f"No more rows here. {again}q quits.")
        self.query_one("#row", Static).update(self._describe(row) if row else end)
        self.query_one("#message", Static).update(Text(safe_line(message)))
        self.query_one("#body", VerticalScroll).scroll_home(animate=False)

    def _describe(self, row: ReviewRow) -> Text:
        """The row, what is known about it, and the example that the model saw."""
        session, task_format, text = self._session, self._session.format, Text()

        def add(name: str, content: str) -> None:
            text.append(f"{safe_line(name)}: ", "bold")
            text.append(f"{safe_text(content)}\n")

        add("row", str(row.number))
        if row.probabilities:
            choices = task_format.answers.choices(row.values)
            written = "" if row.assigned is None else f"; written for {choices[row.assigned]}"
            add("verifier", f"{probabilities_text(session, row)}{written}")
        for flag in row.flags(task_format):
            add(flag, FLAGS[flag])
        if row.decision:
            add("decided", " ".join(filter(None, (row.decision.verdict, row.decision.reason))))
        text.append("\n")
        names = editable_fields(session, row)
        if task_format.passage_field and task_format.passage_field[0] not in names:
            names.append(task_format.passage_field[0])
        for name in names:
            add(name, field_text(row.values[name]))
        if parent := session.parent(row):
            text.append("\nwritten when the model saw\n", "bold")
            for name, value in parent.items():
                if name in session.fields and value is not None:
                    add(f"  {name}", field_text(value))
        return text

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The keys of rows do nothing while a dialog is open."""
        return action not in _ACTIONS.values() or len(self.screen_stack) == 1

    def action_accept(self) -> None:
        self._decide("accept")

    def action_reject(self) -> None:
        if self.current:
            self.push_screen(RejectDialog(), self._rejected)

    def _rejected(self, reason: object) -> None:
        if isinstance(reason, str):
            self._decide("reject", reason)

    def action_edit(self) -> None:
        if row := self.current:
            names, save = editable_fields(self._session, row), partial(self._refusal, row, "edit", "")
            self.push_screen(EditDialog(row.values, names, save), self._edited)

    def _edited(self, values: object) -> None:
        if values is not None:
            self._next()

    def _decide(self, verdict: Verdict, reason: str = "") -> None:
        if row := self.current:
            if refusal := self._refusal(row, verdict, reason):
                self._show(refusal)
            else:
                self._next()

    def _refusal(
        self, row: ReviewRow, verdict: Verdict, reason: str, values: dict[str, Json] | None = None
    ) -> str | None:
        """Make a decision; returns why it is refused, or None. If it cannot be written, the program ends."""
        try:
            self._session.decide(Change(row, verdict, reason, values))
        except DecisionRefused as refused:
            return str(refused)
        except DatacreateError as error:
            self.failure = self.failure or error
            self.exit()
        return None

    def _next(self) -> None:
        self._row_index += 1
        self._show()

    def action_skip(self) -> None:
        if self.current:
            self._next()
        else:
            self._rows, self._row_index = self._undecided, 0
            self._show()

    def action_previous(self) -> None:
        self._row_index = max(0, self._row_index - 1)
        self._show()


def review_in_terminal(session: ReviewSession, rows: list[ReviewRow]) -> None:
    """Show the rows until the user quits. Raises what ended it: StorageError, LockLost, Stopped."""
    with caught_signals() as signals, deferred():
        app = ReviewApp(session, rows, signals)
        app.run(mouse=False)
        if app.failure:
            raise app.failure
