"""Numbers, intervals and whole tables as text: for a cell, for a page, for Markdown."""

import re
from numbers import Integral, Real

import numpy as np
import pandas as pd

INTERVAL = ["estimate", "low", "high"]
WORDS = {
    "val_score": "Best validation score", "rr_ms": "RR (ms)", "noise_uv": "Noise (µV)",
    "n_beats": "Beats found", "n_used": "Beats used", "omi": "OMI",
    "omi_percent": "OMI %", "gflop": "GFLOP",
    "record_id": "Record", "ecgs": "ECGs", "positive_ecgs": "positive ECGs", "auc": "AUC",
    "average_precision": "AP", "nan": "–", "None": "–", "<NA>": "–", "True": "yes", "False": "no",
    "stage1": "stage of infarction", "sd": "SD", "std": "SD", "50%": "median",
    "shap": "Mean absolute SHAP value",
}  # fmt: skip
"""Names of fields on a page, where more than their underscores has to change."""


def interval_texts(bounds: pd.DataFrame, unknown: str = "–") -> list[str]:
    """Text of each row: ``0.889 [0.861, 0.914]``; the estimate alone, or `unknown`, where the rest
    isn't known.
    """
    texts = []
    for estimate, low, high in bounds[INTERVAL].to_numpy():
        limits = "" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]"
        texts.append(unknown if np.isnan(estimate) else f"{estimate:.3f}{limits}".replace("-", "−"))
    return texts


def p_text(p: float) -> str:
    """Text of a p-value: three decimals below 0.1, two above, "< 0.001" where they say no more."""
    if np.isnan(p):
        return "–"
    return "< 0.001" if p < 0.0005 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def mean_sd(values: pd.Series) -> str:
    """Text ``mean ± SD`` with three decimals; the mean alone for one value, a dash for none."""
    if values.empty:
        return "–"
    return number(values.mean()) + (f" ± {number(values.std())}" if len(values) > 1 else "")


def name(field) -> str:
    """Name of a field, model or row on a page: no underscore but in links, files; no 1e-05."""
    if field is None:
        return None
    if isinstance(field, float):
        return re.sub(r"e-0?(\d+)", r"e−\1", f"{field:g}")
    text = WORDS.get(str(field), str(field))
    return text if re.search(r"\]\(|`|/|\.[a-z]+$", text) else re.sub(r"(?<=\w)_(?=\w)", " ", text)


def number(value: float, decimals: int = 3) -> str:
    """Text of a number with its sign and separators; of one that these decimals hide, its size."""
    if pd.isna(value):
        return "–"
    small = 0 < abs(value) < 0.5 / 10**decimals
    return (name(float(f"{value:.1g}")) if small else f"{value:,.{decimals}f}").replace("-", "−")


def typeset(sentence: str) -> str:
    """A sentence with true minus signs, and a space before each per cent sign."""
    return re.sub(r"(?<=\d)%", " %", re.sub(r"(?<![\w.])-(?=[\d.])", "−", sentence))


def texts(table: pd.DataFrame) -> pd.DataFrame:
    """Every cell as text, for a page: the decimals that a column's size leaves sensible, a dash for
    what is missing, names without underscores (but for those of records).
    """

    def cell(value, decimals: int) -> str:
        if isinstance(value, bool) or not isinstance(value, Real):
            return name(value)
        return number(value, 0 if isinstance(value, Integral) else decimals)

    shown = table.astype(object)
    for place, field in enumerate(table):
        values = pd.to_numeric(table.iloc[:, place], errors="coerce").astype(float)
        size = values.abs().max()
        whole = size > 1 and (values.dropna() % 1 == 0).all()
        decimals = 0 if whole or size >= 1000 else 1 if "%" in str(field) or size >= 20 else 3
        if field != "record_id":
            shown.isetitem(place, [cell(value, decimals) for value in table.iloc[:, place]])
    rows = str if "record_id" in table.index.names else name
    return shown.rename(rows).rename(name, axis=1).rename_axis(index=name, columns=name)


def styled(table: pd.DataFrame, caption: str):
    """`texts` as HTML below its caption, limits and SDs in a line of their own; columns that are
    the same in three or more rows are told in the caption.
    """
    shown = texts(table)
    same = [c for c in shown if len(shown) > 2 and (shown[c] == shown[c].iloc[0]).all()]
    if same and len(same) < shown.shape[1]:
        told = {c[-1] if isinstance(c, tuple) else c: shown[c].iloc[0] for c in same}
        told = [f"{column} {text}" for column, text in told.items() if text != "–"]
        caption += f" In every row: {'; '.join(told)}." if told else ""
        shown = shown.drop(columns=same)
    if shown.index.nlevels == 1:  # its name needs no line of its own
        names = [*shown.columns.names[:-1], shown.index.name or shown.columns.names[-1]]
        shown = shown.rename_axis(names, axis=1).rename_axis(None)
    lines = {r" ± ": "\n±\u00a0", r" (?=\[.*\d)": "\n", r"(\d), (?=[−\d.]+\])": "\\1,\u00a0"}
    shown = shown.replace(lines, regex=True)
    above = {"selector": "caption"}
    above["props"] = "caption-side: top; text-align: left; font-weight: bold"
    looks = [above, {"selector": "td", "props": "white-space: pre-line; text-align: right"}]
    looks.append({"selector": "th.index_name", "props": "text-align: left"})
    for place in range(shown.shape[1]):
        if shown.iloc[:, place].astype(str).str.contains("[A-Za-z]{3}").any():
            looks.append({"selector": f".col{place}", "props": "text-align: left"})
    return shown.style.set_caption(caption).set_table_styles(looks).format(escape="html")


def markdown(table: pd.DataFrame) -> str:
    """`texts` as Markdown, with the index as its first columns."""
    shown = texts(table.reset_index()).map(lambda text: text.replace("|", "\\|"))
    rows = [shown.columns, ["---"] * shown.shape[1], *shown.to_numpy()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
