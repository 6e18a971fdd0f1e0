"""The report of an encoder: its numbers, and what it says to do."""

import pickle
import time

import numpy as np
import pytest
import torch
from sklearn import config_context
from torch import nn

from skfp import EncoderReport, FeaturePredictionEncoder

GOOD = {
    "n_images": 1000, "z": 64, "target": "features", "n_epochs": 20,
    "explained_variance": 0.8, "explained_variance_pca": 0.7,
    "neighbours": 0.5, "neighbours_pca": 0.5, "kurtosis": 3.0,
    "effective_rank": 40.0, "gap": 0.02, "fall": 0.01,
    "speed": 4000.0, "speed_loss_network": 100.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def images(noise):
    """Coarse and fine noise, so that features have neighbours."""
    coarse = np.repeat(np.repeat(noise(90, 4, 4, 3), 16, axis=1), 16, axis=2)
    return (coarse // 2 + noise(90, 64, 64, 3) // 8).astype(np.uint8)


@pytest.fixture
def make():
    def make(**parameters):
        defaults = {"z": 4, "max_epochs": 3, "batch_size": 16, "random_state": 0}
        defaults |= {"loss_network": nn.AvgPool2d(4), "encoder": "small"}
        return FeaturePredictionEncoder(**defaults | parameters)

    return make


class TestVerdict:
    @pytest.mark.parametrize(
        ("changes", "verdict"),
        [
            ({}, "The encoder keeps more than frozen features through PCA."),
            ({"explained_variance": 0.7}, "Frozen features through PCA would serve as well."),
            ({"explained_variance": 0.6}, "As it is, frozen features through PCA would serve"),
            ({"neighbours": 0.3}, "The encoder and frozen features through PCA keep different"),
            ({"fall": 0.2}, "Train longer"),
            ({"n_epochs": 1, "fall": None}, "Train longer"),
            ({"gap": 0.6}, "Pass more images"),
            ({"kurtosis": -1.2}, "Choose another loss network"),
        ],
    )
    def test_names_what_is_wrong_first(self, changes, verdict):
        assert EncoderReport({**GOOD, **changes}).verdict.startswith(verdict)

    def test_always_says_whether_frozen_features_would_serve(self):
        for changes in ({"fall": 0.2}, {"gap": 0.6}, {"kurtosis": 0.0}):
            verdict = EncoderReport({**GOOD, "explained_variance": 0.7, **changes}).verdict
            assert "Frozen features through PCA would serve as well." in verdict
            assert "40.0 times as fast" in verdict

    def test_one_sentence_of_advice_for_each_number(self):
        text = str(EncoderReport(GOOD))
        assert text.startswith("Verdict: The encoder keeps more")
        assert "80.0%, PCA 70.0%\n    Nothing to do" in text
        assert "Fall of the validation loss" in text
        missing = {"fall": None, "gap": None, "n_epochs": 0}
        assert "validation loss" not in str(EncoderReport({**GOOD, **missing}))


class TestNumbers:
    @pytest.fixture(scope="class")
    def reported(self, images):
        encoder = FeaturePredictionEncoder(
            z=4, max_epochs=3, batch_size=16, encoder="small", loss_network=nn.AvgPool2d(4),
            random_state=0,
        ).fit(images[:40])  # fmt: skip
        return encoder, encoder.report(images[40:]).numbers

    def test_explained_variance_is_that_of_the_loss(self, reported, images):
        encoder, numbers = reported
        pixels = torch.from_numpy(images[40:]).permute(0, 3, 1, 2) / 255
        features = encoder.loss_network_(pixels).detach().numpy()
        expected = 1 + encoder.score(images[40:]) / features.var(axis=0).mean()
        assert numbers["explained_variance"] == pytest.approx(expected, abs=1e-3)
        assert numbers["explained_variance"] < numbers["explained_variance_pca"] < 1

    def test_gap_and_fall_come_from_the_history(self, reported):
        encoder, numbers = reported
        best = encoder.history_[encoder.best_epoch_ - 1]
        assert numbers["gap"] == pytest.approx(best["valid_loss"] / best["train_loss"] - 1)
        before, last = (row["valid_loss"] for row in encoder.history_[-2:])
        assert numbers["fall"] == pytest.approx(1 - last / before)

    def test_effective_rank_counts_numbers_that_differ(self, make, images):
        encoder = make().fit(images[:40])
        rank = encoder.report(images[40:]).numbers["effective_rank"]
        assert 1 < rank <= 4
        with torch.no_grad():
            encoder.encoder_.head.weight[1:] = encoder.encoder_.head.weight[0]
        assert encoder.report(images[40:]).numbers["effective_rank"] == pytest.approx(1, abs=0.01)

    def test_a_loss_network_of_random_weights_is_found_out(self, make, images):
        network = nn.Sequential(nn.Conv2d(3, 20, 8, 8), nn.Conv2d(20, 20, 2, 2))
        report = make(loss_network=network, max_epochs=1).fit(images[:40]).report(images[40:])
        assert report.verdict.startswith("Choose another loss network: the weights of this one")
        pretrained = make(loss_network="alexnet", max_epochs=1).fit(images[:40])
        assert pretrained.report(images[40:]).numbers["kurtosis"] > 2

    def test_a_loss_network_without_weights_has_no_kurtosis(self, reported):
        _, numbers = reported
        assert numbers["kurtosis"] is None

    def test_speeds_are_measured(self, make, images):
        class Slow(nn.AvgPool2d):
            def forward(self, images):
                time.sleep(1.5 if len(images) > 30 else 0)
                return super().forward(images)

        numbers = make(loss_network=Slow(4), max_epochs=1).fit(images[:20]).report(images).numbers
        assert numbers["speed"] > numbers["speed_loss_network"]
        assert 5 < numbers["speed_loss_network"] <= 90 / 1.5


def test_every_procedure_has_one(procedure, images):
    encoder = procedure().fit(images[:16])
    report = encoder.report(images[40:])
    assert report.numbers["z"] == 3
    assert report.verdict in str(report)
    assert "<table>" in report._repr_html_()


def test_encoder_shows_the_verdict_of_its_last_report(make, images):
    encoder = make().fit(images[:40])
    assert "PCA" not in encoder._repr_html_()
    report = encoder.report(images[40:])
    for shown in (encoder, pickle.loads(pickle.dumps(encoder))):
        assert report.verdict[:30] in shown._repr_html_()
        assert report.verdict[:30] in shown._repr_mimebundle_()["text/html"]
    with config_context(display="text"):
        assert "text/html" not in encoder._repr_mimebundle_()
    assert report.verdict[:30] not in encoder.fit(images[:40])._repr_html_()


def test_keeps_the_verdict_in_a_saved_file(images, tmp_path):
    encoder = FeaturePredictionEncoder(z=2, max_epochs=1, encoder="small").fit(images[:30])
    verdict = encoder.report(images[30:]).verdict
    encoder.save(tmp_path / "encoder")
    loaded = FeaturePredictionEncoder.load(tmp_path / "encoder")
    assert verdict[:30] in loaded._repr_html_()


def test_after_partial_fit_there_is_no_history_to_judge(make, images):
    encoder = make().partial_fit(images[:40])
    assert encoder.report(images[40:]).numbers["gap"] is None


def test_refuses_few_images(make, images):
    encoder = make(max_epochs=1).fit(images[:40])
    with pytest.raises(ValueError, match="X holds 49 images, too few to judge by"):
        encoder.report(images[:49])
