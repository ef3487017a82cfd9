"""What refusals share: one sentence that names the thing, and the nearest valid name."""

import difflib


class Refusal(Exception):
    """An error whose sentence says it all: a notebook shows that, and no traceback."""

    def _render_traceback_(self):
        return [str(self)]


def nearest(name: str, known) -> str:
    """Return the end of an error sentence: the nearest known name, or all that are allowed."""
    known = [str(k) for k in known]
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f" (allowed: {', '.join(known) or 'none'})"
