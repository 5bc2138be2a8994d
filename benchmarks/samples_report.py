"""Tables of rules sample by sample and under attack, from results/*.csv into docs/results; the picture of trust."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from attacks import PERCENT, RULES
from paper.report import DOCS, write
from per_sample import PLAIN
from repeated import PLAIN as PLAIN_TRAINING
from sklearn.datasets import load_digits
from suspects import FINDERS, FRACTION
from workers_report import DIVERGED

from skbgmd import BlockGMDClassifier
from skbgmd.corruption import corrupt_labels
from skbgmd.inspection import SampleTrustDisplay, StrengthDisplay, SuspectGridDisplay

RESULTS = Path(__file__).resolve().parent / "results"


def per_sample(frame: pd.DataFrame) -> pd.DataFrame:
    """Balanced accuracy of each rule: means over data sets, and the difference to plain training on clean data."""
    frame = frame.assign(balanced=100.0 * frame["balanced"])
    lines = []
    for rule, rows in frame.groupby("rule", sort=False):
        line = {"rule": rule, "seeds": rows["seed"].nunique()}
        for corruption, some in rows.groupby("corruption", sort=False):
            line[corruption] = f"{some.groupby('data')['balanced'].mean().mean():.1f}"
        lines.append({**line, **_clean_difference(frame, rule)})
    return pd.DataFrame(lines)


def _clean_difference(frame: pd.DataFrame, rule: str) -> dict[str, str]:
    clean = frame[frame["corruption"] == "none"].pivot_table(
        index=["data", "seed"], columns="rule", values="balanced", sort=False
    )
    by_data = (clean[rule] - clean[PLAIN]).dropna().groupby("data", sort=False).mean()
    return {"clean, against plain": f"{by_data.mean():+.1f}", "worst data set": f"{by_data.min():+.1f}"}


def paired(frame: pd.DataFrame) -> pd.DataFrame:
    """What the classifier's default costs on clean data: means and standard errors of differences of the same seed."""
    frame = frame.assign(balanced=100.0 * frame["balanced"])
    scores = frame.pivot_table(index=["data", "seed"], columns="rule", values="balanced", sort=False)
    (rule,) = (name for name in scores.columns if name != PLAIN)
    difference = (scores[rule] - scores[PLAIN]).groupby("data", sort=False)
    table = scores.groupby("data", sort=False).mean().round(1)[[PLAIN, rule]]
    spread = difference.std() / difference.count() ** 0.5
    table["difference"] = [f"{mean:+.2f} ± {error:.2f}" for mean, error in zip(difference.mean(), spread, strict=True)]
    return table.reset_index()


def clean_by_data(frame: pd.DataFrame) -> pd.DataFrame:
    """Balanced accuracy on clean data, by data set."""
    frame = frame[frame["corruption"] == "none"].assign(balanced=100.0 * frame["balanced"])
    return frame.pivot_table(index="rule", columns="data", values="balanced", sort=False).round(1).reset_index()


def suspects(frame: pd.DataFrame) -> pd.DataFrame:
    """Areas under the ROC curve, means over seeds, and over data sets by corruption."""
    finders = list(FINDERS)
    by_data = frame.groupby(["corruption", "data"], sort=False)[finders].mean().round(2).reset_index()
    overall = frame.groupby("corruption", sort=False)[finders].mean().round(2).reset_index()
    return pd.concat([overall.assign(data="mean of all"), by_data])[["corruption", "data", *finders]]


def regression(frame: pd.DataFrame) -> pd.DataFrame:
    """R^2 by regressor, truth, place and share of outliers: means over seeds; below -9.99 it says so."""
    frame = frame.assign(case=frame["outliers in"] + ", " + frame["percent"].astype(str) + " %")
    frame.loc[frame["percent"] == 0, "case"] = "none"
    table = frame.pivot_table(index=["truth", "regressor"], columns="case", values="R2", sort=False)
    return table.map(lambda value: "< -9.99" if value < -9.99 else f"{value:.2f}").reset_index()


def ghost(frame: pd.DataFrame) -> pd.DataFrame:
    """Times, ratios and peak memory."""
    return frame[["case", "variant", "ms", "ratio", "peak MB"]]


def price(frame: pd.DataFrame) -> pd.DataFrame:
    """Ratios of whole fits, a line for each case."""
    others = frame[frame["estimator"] != "MLPClassifier"]
    table = others[["case", "threads", "estimator", "over MLPClassifier", "over skorch", "over default"]].copy()
    table["estimator"] = table["estimator"].replace("group_size=None, aggregator='mean'", "plain training, ours")
    return table


def attacks(frame: pd.DataFrame, percent: int) -> pd.DataFrame:
    """Accuracy by rule and attack at some share of corrupt rows: means over seeds, or that all of them diverged."""
    some = frame[frame["percent"].isin([0, percent])]
    table = some.pivot_table(index="rule", columns="attack", values="accuracy", sort=False, dropna=False)
    lost = some[some["remark"] == "diverged"].groupby(["rule", "attack"]).size().unstack(fill_value=0)
    table = table.reindex([rule for rule in RULES if rule in table.index])
    lost = lost.reindex(index=table.index, columns=table.columns, fill_value=0)
    shown = table.map(lambda value: "" if pd.isna(value) else f"{value:.1f}")
    shown = shown.mask((lost > 0) & table.isna(), "diverged")
    shown = shown.mask((lost > 0) & table.notna(), shown + " (" + lost.astype(str) + " diverged)")
    return shown.reset_index()


def fresh_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by attack, size of groups and rule: means ± standard deviations over seeds, and the worst means."""
    frame = frame.assign(
        accuracy=frame["accuracy"].where(frame["remark"] != "diverged", DIVERGED),
        groups=frame["groups"].astype(str) + " of " + frame["group_size"].astype(str),
    )
    scores = frame.groupby(["attack", "groups", "rule"], sort=False)["accuracy"]
    means, spreads = (values.unstack()[frame["rule"].unique()] for values in (scores.mean(), scores.std()))
    lines = means.map("{:.1f}".format).mask(means.isna(), "")
    lines = lines.mask(spreads.notna(), lines + " ± " + spreads.map("{:.1f}".format))
    worst = means.drop(index="none").groupby("groups", sort=False).min().map("{:.1f}".format)
    worst.index = pd.MultiIndex.from_product([["worst"], worst.index], names=lines.index.names)
    return pd.concat([lines, worst]).reset_index()


def suspect_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Estimated number of suspects over the true one, in %, by set; of clean sets, over all samples."""
    truth = frame["corrupt"].where(frame["corrupt"] > 0, frame["samples"])
    percent = frame["share"].mul(100.0).round().astype(int).astype(str)
    frame = frame.assign(
        ratio=100.0 * frame["found"] / truth,
        dirt=frame["dirt"].where(frame["corrupt"] == 0, frame["dirt"] + " " + percent + " %"),
    )
    table = frame.pivot_table(index=["data", "strength"], columns="dirt", values="ratio", sort=False)
    return table.round(1).map(lambda value: "" if pd.isna(value) else f"{value:.0f}").reset_index()


def near_the_truth(frame: pd.DataFrame, name: str) -> pd.Series:
    """1 for numbers within 30 % of the corrupt, or of at most 1 % of clean samples, 0 for others; NaN of none."""
    allowed = (0.3 * frame["corrupt"]).where(frame["corrupt"] > 0, 0.01 * frame["samples"])
    near = (frame[name] - frame["corrupt"]).abs() <= allowed
    return near.astype(float).where(frame[name].notna())


def suspect_counts_summary(frame: pd.DataFrame) -> pd.DataFrame:
    """How many estimates are near the truth, beside cleanlab's, and how good the ranking is."""
    bounded = (frame["low"] <= frame["corrupt"]) & (frame["corrupt"] <= frame["high"])
    ratio = (frame["found"] / frame["corrupt"].where(frame["corrupt"] > 0)).mul(100.0)
    near = {f"near {name}": 100.0 * near_the_truth(frame, name) for name in ("found", "cleanlab")}
    groups = frame.assign(**near, bounded=100.0 * bounded, ratio=ratio).groupby(["dirt", "share"], sort=False)
    return pd.DataFrame(
        {
            "trainings": groups.size(),
            "within 30 %, % of them": groups["near found"].mean().round(),
            "cleanlab": groups["near cleanlab"].mean().round(),
            "truth within bounds, %": groups["bounded"].mean().round(),
            "median estimate, % of the truth": groups["ratio"].median().round(),
            "AUROC, suspects": groups["AUROC"].mean().round(3),
            "AUROC, trust": groups["trust AUROC"].mean().round(3),
            "precision": groups["precision"].mean().round(2),
        }
    ).reset_index()


def suspect_few(frame: pd.DataFrame) -> pd.DataFrame:
    """What is known of 5 % labels of the next class, by set: how good the ranking is, estimates in % of the truth."""
    frame = frame[(frame["dirt"] == "pair") & (frame["share"] == 0.05)]
    lines = []
    for name, rows in frame.groupby("data", sort=False):
        percent = (rows[["found", "low", "high", "cleanlab"]].div(rows["corrupt"], axis=0) * 100).round()
        shown = percent.astype(int).astype(str)
        lines.append(
            {
                "data": name,
                "corrupt": round(rows["corrupt"].mean()),
                "AUROC": rows["AUROC"].mean().round(3),
                "precision": rows["precision"].mean().round(2),
                "estimates": ", ".join(shown["found"]),
                "bounds": ", ".join(shown["low"] + " to " + shown["high"]),
                "cleanlab": ", ".join(shown["cleanlab"]),
            }
        )
    return pd.DataFrame(lines)


def suspect_bounds(frame: pd.DataFrame) -> pd.DataFrame:
    """Estimates without and with held-out labels over the true number, in %, by set; if clean, over all samples."""
    truth = frame["corrupt"].where(frame["corrupt"] > 0, frame["samples"])
    frame = frame.assign(**{name: 100.0 * frame[name] / truth for name in ("without", "with")})
    means = frame.groupby(["data", "dirt"], sort=False)[["without", "with"]].mean().round().astype(int).astype(str)
    shown = (means["without"] + ", " + means["with"]).unstack()[frame["dirt"].unique()]
    return shown.reindex(frame["data"].unique()).reset_index()


def suspect_bounds_summary(frame: pd.DataFrame) -> pd.DataFrame:
    """How many estimates are near the truth without and with held-out labels, and how many suspects are corrupt."""
    names = ("without", "with", "cleanlab")
    frame = frame.assign(**{f"near {name}": near_the_truth(frame, name).astype(int) for name in names})
    groups = frame.groupby("dirt", sort=False)
    share = 100.0 * groups["corrupt found"].sum() / groups["with"].sum()
    return pd.DataFrame(
        {
            "trainings": groups.size(),
            "within 30 % without": groups["near without"].sum(),
            "and with": groups["near with"].sum(),
            "cleanlab": groups["near cleanlab"].sum(),
            "suspects that are corrupt, %": share.round().map("{:.0f}".format).where(groups["corrupt"].sum() > 0, ""),
        }
    ).reset_index()


def pictures() -> None:
    """Digits, a fifth of them with wrong labels: trust, the most suspicious images, and the choice of the strength."""
    X, y = load_digits(return_X_y=True)
    y, wrong = corrupt_labels(y, fraction=FRACTION, random_state=0)
    X = (X / 16.0).astype(np.float32)
    firm = BlockGMDClassifier(strength="firm", max_epochs=50, random_state=0).fit(X, y)
    displays = {
        "sample_trust": SampleTrustDisplay.from_estimator(firm, X, y, corrupted=wrong),
        "suspect_grid": SuspectGridDisplay.from_estimator(firm, X, y, image_shape=(8, 8), n=12),
        "strength": StrengthDisplay.from_estimator(BlockGMDClassifier(max_epochs=100, random_state=0).fit(X, y)),
    }
    for name, display in displays.items():
        display.figure_.savefig(DOCS.parent / "images" / f"{name}.png", dpi=100)


def repeated(frame: pd.DataFrame) -> pd.DataFrame:
    """What the rules cost on clean data with repeated samples, on the other samples."""
    frame = frame.assign(score=100.0 * frame["score"])
    scores = frame.pivot_table(index=["data", "seed"], columns="rule", values="score", sort=False)
    table = scores.groupby("data", sort=False).mean().round(1)
    difference = (scores["default"] - scores[PLAIN_TRAINING]).groupby("data", sort=False)
    spread = difference.std() / difference.count() ** 0.5
    table["default, against plain"] = [
        f"{mean:+.2f} ± {error:.2f}" for mean, error in zip(difference.mean(), spread, strict=True)
    ]
    return table.reset_index()


def main() -> None:
    tables = {
        "repeated": {"repeated": repeated},
        "per_sample": {"per_sample": per_sample, "per_sample_clean": clean_by_data},
        "per_sample_paired": {"per_sample_paired": paired},
        "suspects": {"suspects": suspects},
        "suspect_counts": {
            "suspect_counts": suspect_counts,
            "suspect_counts_summary": suspect_counts_summary,
            "suspect_few": suspect_few,
        },
        "suspect_bounds": {"suspect_bounds": suspect_bounds, "suspect_bounds_summary": suspect_bounds_summary},
        "regression": {"regression": regression},
        "ghost": {"ghost": ghost},
        "price": {"price": price},
        "fresh_rows": {"fresh_rows": fresh_rows},
        "attacks": {f"attacks_{percent}": partial(attacks, percent=percent) for percent in PERCENT},
    }
    for name, made in tables.items():
        path = RESULTS / f"{name}.csv"
        if path.exists():
            for target, table in made.items():
                write(table(pd.read_csv(path)), target, DOCS)
    pictures()


if __name__ == "__main__":
    main()
