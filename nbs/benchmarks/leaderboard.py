"""The leaderboard: every encoder and objective of a comparison on the same tasks, beside baselines.

`leaderboard.ipynb` says which tasks, and why; `nbs/tests/leaderboard.ipynb` tests this file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.std import tqdm

from ehrseq.data.folders import check_seal, private_folder, read_json, seal, write_json, write_parquet
from ehrseq.encoders.encoder import MeanPooled
from ehrseq.explore.arrays import patient_vectors
from ehrseq.runs.compare import Comparison, file_name
from ehrseq.scores.baselines import (
    TASK_BASELINES,
    best_of,
    count_svd,
    person_table,
    regressions,
    task_baselines,
)
from ehrseq.scores.diseases import main_disease
from ehrseq.scores.metrics import areas, interval, resamples
from ehrseq.tasks.downstream import row_vectors
from ehrseq.tasks.phenotypes import disease_matrix, phenotype_scores
from ehrseq.tasks.task import Task
from ehrseq.training.checkpoint import from_pretrained
from ehrseq.training.train import seed_everything

SVD = "SVD of counts"
BASELINES = (*TASK_BASELINES, SVD)
OF_BASELINES = ("baselines", 0)  # name and seed under which their predictions are kept
MOMENT = ["subject_id", "prediction_time"]
SPLITS = ("train", "valid", "test")


class Leaderboard:
    """The runs of a comparison, on the same tasks.

    `run()` makes the predictions that are not there yet; they are kept in `tasks/` and `phenotypes/` of the
    folder of the comparison. Raises `ValueError` for tasks that differ in look-back, that share a name, that
    have a single class in a split, or that are not those of the predictions in the folder.
    """

    def __init__(
        self,
        comparison: Comparison,
        events: Any,
        tasks: list[Task],
        clusters: Iterable[int] = range(5, 13),
    ):
        self.comparison = comparison
        self.tasks = {t.name: t for t in tasks}
        self.clusters = list(clusters)
        self.folder = Path(comparison.out)
        if len({t.lookback for t in tasks}) > 1:
            raise ValueError("tasks with different look-backs; give all the same.")
        if len(self.tasks) < len(tasks):
            raise ValueError("two tasks have the same name; give each its own name.")
        moments = moments_of(tasks)
        trained = comparison.cohort
        every = Task("all", moments, lookback=tasks[0].lookback)
        self.task_cohort = every.cohort(events, trained.vocab, trained.info["kinds"])
        self.cohort = self.task_cohort.by_label  # its rows are label_ids
        self.owner = moments["subject_id"].to_numpy()
        self.y = {name: self.labels_of(task, moments) for name, task in self.tasks.items()}
        self.check_tasks()

    def labels_of(self, task: Task, moments: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        "Return, by moment of all tasks, the label of one task, and whether this task has one there."
        place = moments.reset_index().set_index(MOMENT)["index"]
        at = place.loc[pd.MultiIndex.from_frame(task.labels[MOMENT])].to_numpy()
        y, labelled = np.zeros(len(moments), bool), np.zeros(len(moments), bool)
        y[at], labelled[at] = task.y, True
        for split in SPLITS:
            labels = self.task_cohort.label_id(split)
            if len(set(y[labels][labelled[labels]])) < 2:
                raise ValueError(
                    f"{task.name}: a single class among the {split} patients; "
                    "take a longer horizon or leave it out."
                )
        return y, labelled

    def check_tasks(self) -> None:
        "Write down which tasks the folder holds predictions for. Raises `ValueError` if it holds others."
        hashes = {name: task_hash(task) for name, task in self.tasks.items()}
        file = self.folder / "tasks" / "questions.json"
        if file.exists() and read_json(file) != hashes:
            known = ", ".join(read_json(file))
            raise ValueError(
                f"{file.parent} holds predictions for other tasks: {known}. "
                "Choose another folder, or give the same tasks."
            )
        private_folder(file.parent)
        write_json(file, hashes)

    # Who predicts

    def contenders(self) -> list[tuple[str, int]]:
        "Return (name, seed) of the finished runs of the comparison, and of each of their networks untrained."
        runs = [(r["name"], r["seed"]) for r in self.comparison.state["rows"]]
        return runs + sorted({(f"{n.partition('/')[0]}, untrained", s) for n, s in runs})

    def encoder(self, name: str, seed: int) -> Any:
        "Return the encoder of a contender; of an untrained one, with the weights that its runs began with."
        architecture, untrained, _rest = name.partition(", untrained")
        same_seed = [n for n, s in self.contenders() if s == seed]
        begins = f"{architecture}/"
        run = next(n for n in same_seed if (n.startswith(begins) if untrained else n == name))
        trained = from_pretrained(self.comparison.folder(run, seed), trust=self.named_by_caller())
        if not untrained:
            return trained.encoder
        seed_everything(seed)
        return type(trained.encoder)(trained.encoder.config).eval()

    def named_by_caller(self) -> tuple[str, ...]:
        "Return the encoders that the caller named as contenders, and as what they start from."
        return tuple(name for c in self.comparison.contenders for name in c.classes)

    # Predictions

    def run(self, progress: bool = True) -> Leaderboard:
        "Make the predictions that have not been made yet."
        contenders = [OF_BASELINES, *self.contenders()]
        bar = tqdm(contenders, desc="predicting", unit="contender", ncols=88, disable=not progress)
        for name, seed in bar:
            bar.set_postfix_str(f"{name}, seed {seed}")
            self.keep("tasks", name, seed, self.task_predictions)
            self.keep("phenotypes", name, seed, self.phenotype_results)
        return self

    def file(self, kind: str, name: str, seed: int) -> Path:
        return self.folder / kind / f"{file_name(name)}-{seed}.parquet"

    def keep(self, kind: str, name: str, seed: int, make: Callable) -> None:
        file = self.file(kind, name, seed)
        if file.exists():
            return
        private_folder(file.parent)
        write_parquet(file, make(name, seed))
        seal(file.parent, [file.name])

    def task_predictions(self, name: str, seed: int) -> pd.DataFrame:
        if (name, seed) == OF_BASELINES:
            return self.baseline_predictions()
        encoder, rows = self.encoder(name, seed), self.cohort.rows()
        tables = {}
        for pool, pooled in (("own", encoder), ("mean", MeanPooled(encoder))):
            vectors = np.zeros((len(self.cohort.sequences), encoder.config.hidden_dim), np.float32)
            vectors[rows] = row_vectors(pooled, self.cohort, rows)
            tables[pool] = self.with_age_and_sex(vectors)
        frames = [self.test_predictions("ours", task, self.probe(tables, task)) for task in self.tasks]
        return pd.concat(frames, ignore_index=True)

    def baseline_predictions(self) -> pd.DataFrame:
        counts = self.with_age_and_sex(count_svd(self.cohort, 128))
        frames = []
        for task, (y, labelled) in self.y.items():
            predictions = task_baselines(self.cohort, y, labelled)
            predictions[SVD] = self.probe({SVD: counts}, task, (1e-4, 1e-3, 1e-2, 1e-1))
            frames += [self.test_predictions(name, task, p) for name, p in predictions.items()]
        return pd.concat(frames, ignore_index=True)

    def with_age_and_sex(self, vectors: np.ndarray) -> np.ndarray:
        return np.hstack([vectors, person_table(self.cohort)])

    def rows(self, task: str, split: str) -> np.ndarray:
        "Return the rows of the cohort of a split that a task has a label for."
        rows = self.cohort.rows(split)
        labelled = self.y[task][1]
        return rows[labelled[rows]]

    def test_predictions(self, name: str, task: str, p: np.ndarray) -> pd.DataFrame:
        "Return name, task, subject_id, y and p of the test rows of a task, out of probabilities of all rows."
        rows = self.rows(task, "test")
        label = rows
        who, y = self.owner[label], self.y[task][0][label]
        predictions = {"name": name, "task": task, "subject_id": who, "y": y, "p": np.asarray(p, float)[rows]}
        return pd.DataFrame(predictions)

    def probe(self, tables: dict, task: str, strengths: tuple = (1e-3, 1e-2)) -> np.ndarray:
        "Return probabilities of all rows, by the table and penalty that are best on validation patients."
        from sklearn.metrics import roc_auc_score

        y = self.y[task][0]
        train, valid = self.rows(task, "train"), self.rows(task, "valid")
        fitted = [(best_of(regressions(strengths), x, y, train, valid), x) for x in tables.values()]
        score = lambda model, x: roc_auc_score(y[valid], model.predict_proba(x[valid])[:, 1])
        model, x = max(fitted, key=lambda pair: score(*pair))
        return model.predict_proba(x)[:, 1]

    def phenotype_results(self, name: str, seed: int) -> pd.DataFrame:
        trained = self.comparison.cohort
        rows = trained.rows("test")
        have = disease_matrix(trained, rows)
        disease = main_disease(trained).reindex(trained.sequences.subject_id[rows]).to_numpy()
        frames = []
        for pool, vectors in self.test_vectors(name, seed).items():
            scores, _ = phenotype_scores(vectors, have, disease, "", self.clusters)
            for key, score in scores.items():
                found = score if isinstance(score, dict) else {"value": float(score)}
                frames.append({"pool": pool, "score": key.lstrip("."), **found})
        return pd.DataFrame(frames)

    def test_vectors(self, name: str, seed: int) -> dict[str, np.ndarray]:
        "Return the vectors of the test patients of the comparison, by how a patient is pooled."
        trained = self.comparison.cohort
        if (name, seed) == OF_BASELINES:
            return {SVD: count_svd(trained, 128)[trained.rows("test")]}
        encoder = self.encoder(name, seed)
        pools = {"own": encoder, "mean": MeanPooled(encoder)}
        return {k: np.stack(patient_vectors(e, trained, "test")["vector"]) for k, e in pools.items()}

    # What was predicted

    def read(self, kind: str) -> pd.DataFrame:
        check_seal(self.folder / kind)
        frames = []
        for name, seed in [OF_BASELINES, *self.contenders()]:
            file = self.file(kind, name, seed)
            if file.exists():
                frames.append(pd.read_parquet(file).assign(of=name, seed=seed))
        return pd.concat(frames, ignore_index=True)

    def predictions(self) -> pd.DataFrame:
        "Return name, seed, task, subject_id, y and p of all predictions."
        t = self.read("tasks")
        t["name"] = t["name"].where(t["of"] == OF_BASELINES[0], t["of"])
        return t[["name", "seed", "task", "subject_id", "y", "p"]]

    def phenotypes(self) -> pd.DataFrame:
        """Return name, pool, score: the mean over seeds, the extremes of the seeds, and the mean of the ends
        of the intervals over patients."""
        t = self.read("phenotypes").assign(name=lambda t: t["of"].replace(OF_BASELINES[0], SVD))
        columns = {
            "value": ("value", "mean"),
            "low": ("low", "mean"),
            "high": ("high", "mean"),
            "lowest_seed": ("value", "min"),
            "highest_seed": ("value", "max"),
            "seeds": ("seed", "nunique"),
        }
        return t.groupby(["name", "pool", "score"]).agg(**columns).reset_index()


def moments_of(tasks: list[Task]) -> pd.DataFrame:
    "Return the moments of all tasks, each once: histories are read and encoded once for all tasks."
    every = pd.concat([t.labels[MOMENT] for t in tasks]).drop_duplicates()
    return every.sort_values(MOMENT, ignore_index=True)


def task_hash(task: Task) -> str:
    text = f"{task.labels.to_csv(index=False)}{task.lookback}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# The table

Board = Leaderboard | pd.DataFrame  # a leaderboard, or a table of `predictions`


def draws(board: Board, score: str = "auroc") -> tuple[pd.DataFrame, np.ndarray]:
    """Return the score of every name, task and seed, and 1,000 redraws of it, the same patients for all.

    The table has columns name, task, seed, value, n, true; the array is (rows, draws).
    """
    t = board if isinstance(board, pd.DataFrame) else board.predictions()
    people = np.sort(t["subject_id"].unique())
    again, which = resamples(len(people)), ("auroc", "auprc").index(score)
    rows, redrawn = [], []
    for (name, task, seed), part in t.groupby(["name", "task", "seed"], sort=False):
        y, p = part["y"].to_numpy(), part["p"].to_numpy()
        who = np.searchsorted(people, part["subject_id"])
        value = float(areas(y, p, np.ones((1, len(y))))[which][0])
        n, true = part["subject_id"].nunique(), int(y.sum())
        rows.append({"name": name, "task": task, "seed": seed, "value": value, "n": n, "true": true})
        redrawn.append(areas(y, p, again[:, who])[which])
    return pd.DataFrame(rows), np.array(redrawn)


def by_task(board: Board, score: str = "auroc") -> pd.DataFrame:
    "Return name, task, value (mean over seeds), low, high, lowest_seed, highest_seed, seeds, n, true."
    rows, redrawn = draws(board, score)
    out = []
    for (name, task), part in rows.groupby(["name", "task"], sort=False):
        value = part["value"]
        found = {"name": name, "task": task}
        found |= interval(value.mean(), redrawn[part.index].mean(0), part["n"].iloc[0])
        found |= {"lowest_seed": value.min(), "highest_seed": value.max(), "seeds": len(part)}
        out.append(found | {"true": part["true"].iloc[0]})
    return pd.DataFrame(out)


def ranking(board: Board, score: str = "auroc", tasks: Iterable[str] | None = None) -> pd.DataFrame:
    """Return name, value (mean over tasks and seeds) with its interval, and how far it is `ahead` of the best
    baseline, with the interval of the difference; best first."""
    rows, redrawn = draws(board, score)
    if tasks is not None:
        chosen = rows["task"].isin(tasks)
        rows, redrawn = rows[chosen].reset_index(drop=True), redrawn[chosen]
    mean = {}
    for name, part in rows.groupby("name", sort=False):
        mean[name] = part["value"].mean(), np.nanmean(redrawn[part.index], 0)
    best = max((n for n in BASELINES if n in mean), key=lambda n: mean[n][0])
    out = []
    for name, (value, again) in mean.items():
        seeds = rows[rows["name"] == name].groupby("seed")["value"].mean()
        gap = interval(value - mean[best][0], again - mean[best][1], 0)
        found = {"name": name, **interval(value, again, rows["n"].max())}
        found |= {"lowest_seed": seeds.min(), "highest_seed": seeds.max(), "seeds": len(seeds)}
        found |= {"best_rival": best, "ahead": gap["value"]}
        out.append(found | {"ahead_low": gap["low"], "ahead_high": gap["high"]})
    return pd.DataFrame(out).sort_values("value", ascending=False, ignore_index=True)
