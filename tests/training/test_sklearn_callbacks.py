"""Callbacks of scikit-learn, where it has them."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from torch import nn

from skfp import FeaturePredictionEncoder

callback = pytest.importorskip("sklearn.callback", reason="needs scikit-learn 1.9")


class Record:
    """Keeps what a fit tells it; may end it after some epochs."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.events = []
        self.fitted = []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        self.events.append(f"end {context.task_name}")
        self.fitted.append(fitted_estimator)
        return context.task_name == "epoch" and context.task_id + 1 == self.stop_after


@pytest.fixture
def make():
    def make(*callbacks, **parameters):
        defaults = {"z": 2, "max_epochs": 3, "batch_size": 8, "random_state": 0}
        defaults |= {"loss_network": nn.AvgPool2d(16), "encoder": "small"}
        return FeaturePredictionEncoder(**defaults | parameters).set_callbacks(*callbacks)

    return make


def test_hears_of_the_fit_and_its_epochs(make, frames):
    record = Record()
    make(record).fit(frames)
    epoch = ["begin epoch", "end epoch"]
    assert record.events == ["setup", "begin fit", *epoch * 3, "end fit", "teardown"]


def test_changes_nothing(make, frames):
    with_callback, without = make(Record()).fit(frames), make().fit(frames)
    np.testing.assert_array_equal(with_callback.transform(frames), without.transform(frames))


def test_gets_an_encoder_of_each_epoch(make, frames):
    record = Record()
    encoder = make(record).fit(frames, X_val=frames)
    *epochs, final = record.fitted
    scores = [-row["valid_loss"] for row in encoder.history_]
    np.testing.assert_allclose([one.score(frames) for one in epochs], scores, rtol=1e-4)
    np.testing.assert_array_equal(final.transform(frames), encoder.transform(frames))


def test_ends_training_in_good_order(make, frames, recwarn):
    encoder = make(Record(stop_after=2)).fit(frames)
    assert encoder.n_epochs_ == 2
    assert not [w for w in recwarn if "interrupted" in str(w.message)]


def test_each_begun_epoch_is_ended_also_the_one_that_ends_training(make, frames):
    record = Record()
    encoder = make(record, lr=10, lr_schedule=None, patience=1, max_epochs=30).fit(frames)
    assert encoder.n_epochs_ < 30
    assert record.events.count("begin epoch") == record.events.count("end epoch")


def test_scoring_monitor_and_progress_bar(make, frames, capsys):
    labels = np.arange(len(frames)) % 2

    def probe(encoder, X, y):
        embedding = encoder.transform(X)
        return KNeighborsClassifier(1).fit(embedding, y).score(embedding, y)

    monitor = callback.ScoringMonitor(scoring={"probe": probe})
    bar = [callback.ProgressBar()] if pytest.importorskip("rich") else []
    make(monitor, *bar).fit(frames, labels)
    scores = [row["probe"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert scores == [1.0, 1.0, 1.0]
    assert "FeaturePredictionEncoder" in capsys.readouterr().out


def test_in_searches_and_pipelines(make, frames):
    record = Record()
    search = GridSearchCV(make(record, max_epochs=1), {"z": [1, 2]}, cv=2).fit(frames)
    assert record.events.count("begin epoch") == 5  # with the refit
    pipeline = make_pipeline(clone(search.best_estimator_), KNeighborsClassifier(1))
    pipeline.set_callbacks(callback.ProgressBar()).fit(frames, np.arange(len(frames)))
