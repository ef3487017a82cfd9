"""Choose the initial learning rate of each network from a grid (paper, section II.B)."""

import pandas as pd

from ecglib.study import places
from ecglib.study.params import StudyError
from ecglib.study.runs import RunError, read_run


def read_grid(study) -> tuple[pd.DataFrame, list[str]]:
    """Best validation score of every run of the grid, and a sentence for each missing one.

    Returns
    -------
    pandas.DataFrame
        ``model, learning_rate, rotation, val_score, label, best_epoch, epochs``.
    list of str
    """
    rows, problems = [], []
    for model, rate, rotation in study.grid_runs:
        try:
            facts = read_run(places.grid_folder(study.name, model, rate, rotation))
        except RunError as error:
            problems.append(str(error))
            continue
        history = pd.read_csv(facts["folder"] / "history.csv")
        row = {"model": model, "learning_rate": rate, "rotation": rotation}
        row |= {"val_score": history.val_score.max(), "label": study.display_name(model)}
        rows.append(row | {name: facts[name] for name in ("best_epoch", "epochs")})
    if not rows:
        raise StudyError(
            f"Study {study.name} has no finished run of its grid: run "
            f"`make reproduce STUDY=params/{study.name}.yaml`"
        )
    return pd.DataFrame(rows), problems


def choose(scores: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Choose a learning rate for each model and rotation.

    Parameters
    ----------
    scores : pandas.DataFrame
        ``model, learning_rate, rotation, val_score``.
    rule : {'mean', 'per_rotation'}
        'mean' is the paper's: the rate with the highest mean validation score over the rotations,
        for all of them. It is mildly optimistic, since every validation fold is the test fold of
        another rotation. 'per_rotation' chooses from a rotation's own validation fold alone, so its
        test fold has no part in the choice.

    Returns
    -------
    pandas.DataFrame
        ``model, rotation, learning_rate``; with 'mean' rotation is −1, for all. Of equal scores the
        lower rate wins.
    """
    scores = scores.sort_values("learning_rate")
    if rule == "mean":
        scores = (
            scores.groupby(["model", "learning_rate"], sort=False).val_score.mean().reset_index()
        )
        scores["rotation"] = -1
    best = scores.loc[scores.groupby(["model", "rotation"], sort=False).val_score.idxmax()]
    return best[["model", "rotation", "learning_rate"]].reset_index(drop=True)


def at_edge(scores: pd.DataFrame, chosen: pd.DataFrame) -> list[str]:
    """A sentence for each chosen rate that is the lowest or highest of those tried: better ones may
    lie beyond.

    `scores` is the table of `read_grid`, `chosen` that of `choose`; a model with one rate has no
    edge.
    """
    told = []
    for row in chosen.itertuples():
        rates = sorted(set(scores.learning_rate[scores.model == row.model]))
        for end, rate in (("lowest", rates[0]), ("highest", rates[-1])) if len(rates) > 1 else ():
            if row.learning_rate == rate:
                where = "" if row.rotation < 0 else f", rotation {row.rotation}"
                told.append(
                    f"{row.model}{where}: {rate:g} is the {end} "
                    f"of {len(rates)} rates that were tried"
                )
    return told
