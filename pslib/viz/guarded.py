"""Callbacks of a widget that never keep silent: a mistake is one sentence, an error of ours is said and raised."""

from collections.abc import Callable
from html import escape

import ipywidgets as w

from pslib.errors import UserError

__all__ = ["Guarded"]


class Guarded:
    """What a widget with a ``note`` needs to run its callbacks; ``_name`` is what it calls itself in the note.

    A callback's exception is swallowed by ipywidgets, so without the note a failure looks like nothing having happened.
    """

    note: w.HTML
    _name = "widget"
    _quiet = False

    def _guarded(self, call: Callable[[], None]) -> None:
        """Run a callback; a mistake of the user is said, an error of ours is said and raised again."""
        if self._quiet:
            return
        self.note.value = ""
        try:
            call()
        except UserError as error:
            self._say(str(error))
        except Exception as error:
            self._say(f"the {self._name} failed ({type(error).__name__}: {error}): this is not your mistake.")
            raise

    def _say(self, sentence: str) -> None:
        self.note.value = (f'<div role="alert" style="border-left:6px solid #D55E00;background:#FCF0E8;color:#111;'
                           f'padding:2px 8px;line-height:1.4">{escape(sentence)}</div>')

    def _silently(self, change: Callable[[], None]) -> None:
        """Set controls without being called back for each."""
        self._quiet, before = True, self._quiet
        try:
            change()
        finally:
            self._quiet = before
