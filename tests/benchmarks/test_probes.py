"""Probes find what an embedding holds, by the paper's rules."""

import numpy as np
import pytest
from sklearn.dummy import DummyRegressor

from benchmarks.probes import (
    HIDDEN_LAYERS,
    draw_labelled,
    measure,
    measure_probes,
    select_probe,
    select_simple_probe,
    selected_probe,
    validation_losses,
)


@pytest.fixture(scope="module")
def positions():
    return np.random.default_rng(0).uniform(-1, 1, (1200, 2)).astype(np.float32)


def bent(positions):
    """Hide positions in 16 numbers, so that no linear map reads them out."""
    random = np.random.default_rng(1)
    centres = random.uniform(-1, 1, (16, 2))
    distances = np.linalg.norm(positions[:, None] - centres, axis=2)
    return np.exp(-3 * distances**2).astype(np.float32)


@pytest.fixture(scope="module")
def search(positions):
    return select_probe(bent(positions[:900]), positions[:900], task="position", n_jobs=2)


def test_seven_probes_compete_and_the_lowest_validation_loss_wins(search):
    losses = validation_losses(search)
    assert len(losses) == len(HIDDEN_LAYERS) == 7
    assert selected_probe(search) == min(losses, key=losses.get)
    assert losses["linear"] > 2 * min(losses.values()), "the hidden positions are not linear"
    assert (
        search.best_estimator_["mlp"].hidden_layer_sizes
        == search.best_params_["mlp__hidden_layer_sizes"]
    )


def test_positions_are_read_out(search, positions):
    embedding = bent(positions[900:])
    distance = measure(search, embedding, positions[900:])
    by_hand = np.sqrt(((search.predict(embedding) - positions[900:]) ** 2).sum(1)).mean()
    assert distance == pytest.approx(by_hand)
    mean = DummyRegressor().fit(embedding, positions[900:]).predict(embedding)
    assert distance < 0.2 * np.linalg.norm(mean - positions[900:], axis=1).mean()


def test_position_split_is_the_last_fifth(search):
    ((train, valid),) = search.cv
    np.testing.assert_array_equal(train, np.arange(720))
    np.testing.assert_array_equal(valid, np.arange(720, 900))


@pytest.mark.slow
def test_same_seed_same_probe(positions):
    embedding = bent(positions[:200])
    first, second = (
        select_probe(embedding, positions[:200], task="position", random_state=3) for _ in range(2)
    )
    assert validation_losses(first) == validation_losses(second)
    np.testing.assert_array_equal(first.predict(embedding), second.predict(embedding))


def test_classes_are_read_out_even_when_sorted_and_rare(positions):
    quadrant = (positions[:600] > 0) @ [1, 2]
    quadrant[:8] = 4  # a rare class
    order = np.argsort(quadrant)
    embedding, quadrant = positions[:600][order], quadrant[order]
    search = select_probe(embedding, quadrant, task="class", n_jobs=2)
    assert measure(search, embedding, quadrant) == pytest.approx(
        (search.predict(embedding) == quadrant).mean()
    )
    assert measure(search, embedding, quadrant) > 0.85
    assert all(loss > 0 for loss in validation_losses(search).values())


@pytest.mark.slow
def test_scale_of_the_embedding_does_not_matter(search, positions):
    # By a power of two, which rounds nothing: training then takes the same course on any machine.
    larger = select_probe(1024 * bent(positions[:900]), positions[:900], task="position", n_jobs=2)
    assert larger.best_score_ == search.best_score_


def test_unknown_task():
    with pytest.raises(ValueError, match=r"task must be one of \['class', 'position'\]"):
        select_probe(np.zeros((10, 2)), np.zeros(10), task="colour")


@pytest.mark.parametrize("name", ["linear", "k-NN"])
def test_simple_probes_read_out_what_is_simple(name, positions):
    quadrant = (positions > 0) @ [1, 2]
    for task, target in (("class", quadrant), ("position", positions)):
        search = select_simple_probe(name, positions[:300], target[:300], task=task)
        measured = measure(search, positions[300:600], target[300:600])
        assert measured > 0.9 if task == "class" else measured < 0.1


def test_more_labels_teach_more(positions, monkeypatch):
    monkeypatch.setattr("benchmarks.probes.select_probe", lambda *args, **kwargs: search)
    quadrant = (positions > 0) @ [1, 2]
    embedding = np.concatenate([positions, np.random.default_rng(0).normal(size=(1200, 8))], axis=1)
    search = select_simple_probe("linear", embedding, quadrant, task="class")
    rows, test = slice(600), slice(600, None)
    measured = measure_probes(
        *(embedding[rows], quadrant[rows], embedding[test], quadrant[test]),
        task="class",
        n_labelled=(40, 600, 6000),
    )
    assert list(measured) == ["40", "600"]
    for name in ("linear", "k-NN"):
        assert measured["40"][name]["test"] < measured["600"][name]["test"]


def test_labelled_images_are_drawn_class_by_class():
    target = np.repeat([0, 1, 2], [60, 30, 10])
    rows = draw_labelled(target, 20, random_state=1)
    assert np.bincount(target[rows]).tolist() == [12, 6, 2]
    assert len(set(rows)) == 20
