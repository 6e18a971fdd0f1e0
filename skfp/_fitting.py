"""Train the networks of an estimator: to the best epoch in `fit`, one pass in `partial_fit`."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from torch import nn

from ._data import ImageSet, Preprocess
from ._features import FeatureExtractor, PCAProjection
from ._loss_network import FrozenNetwork, JointNetwork, load_loss_network, select_channels
from ._networks import Architecture, Autoencoder
from ._state import FittedState, Networks, make_criterion
from ._training import (
    Checkpoint,
    Clock,
    EpochTasks,
    Steps,
    TrainingSet,
    completed_epochs,
    digest,
    fit_signature,
    open_checkpoint,
    select_best_epoch,
    train_networks,
    train_one_pass,
)
from ._utils import distributed
from ._utils.devices import choose_device
from ._utils.random import seeded, training_generator
from ._utils.sampling import evenly_spaced

# How many images channels and several loss networks are scaled to.
N_SAMPLED = 128


def fit_networks(
    estimator: Any,
    architecture: Architecture,
    images: ImageSet,
    feature_names: np.ndarray | None,
    valid_images: ImageSet | None,
    start: FittedState | None,
    clock: Clock,
    tasks: EpochTasks | None,
) -> FittedState:
    """Extract features, project them, train encoder and decoder, and return the best epoch.

    Parameters
    ----------
    estimator : BaseImageEncoder
        Its parameters are read, and nothing in it changes.
    architecture : Architecture
        What the networks are made from.
    images : ImageSet
        To train on.
    feature_names : ndarray of str or None
        Column names of flattened images, kept in the state.
    valid_images : ImageSet or None
        For validation. None holds out a part of `images`.
    start : FittedState or None
        An earlier state, whose networks training begins with.
    clock : Clock
        Since the call of fit.
    tasks : EpochTasks or None
        For callbacks of scikit-learn.
    """
    device = choose_device(estimator.device)
    drawn_seed = _draw_seed(estimator.random_state)
    setup = _FitSetup(architecture, images, device, estimator.memory, estimator.channels, start)
    folder = estimator.checkpoint_dir
    if folder is not None:
        initial = None if start is None else filter(None, start.networks.trained)
        signature = fit_signature(estimator, images, valid_images, setup.loss_network, initial)
        folder = Path(folder) / digest(signature)
    with open_checkpoint(folder) as checkpoint, ExitStack() as seed_scope:
        if checkpoint.seed is None:
            checkpoint.seed = drawn_seed
        seed = checkpoint.seed  # a fit that continues keeps its seed
        seed_scope.enter_context(seeded(seed))
        setup.prepare(start, checkpoint)
        if valid_images is None:
            train_rows, valid_rows = train_test_split(
                np.arange(len(images)),
                test_size=estimator.validation_fraction,
                random_state=seed,
            )
            train = setup.training_set(train_rows)
            valid = TrainingSet(train.inputs, train.targets, valid_rows)
        else:
            train = setup.training_set()
            valid = setup.validation_set(valid_images)
        make_state = partial(setup.state, estimator, feature_names, start)
        callbacks = [*(estimator.callbacks or ())]
        if tasks is not None:
            tasks.make_state = lambda net: make_state(
                networks=copy.deepcopy(setup.networks), history=completed_epochs(net), seed=seed
            )
            callbacks.append(tasks)
        net = train_networks(
            setup.autoencoder(estimator.augment),
            setup.criterion(),
            train,
            valid,
            _step_settings(estimator, device, seed, seed_scope),
            max_epochs=estimator.max_epochs,
            clock=clock,
            lr_schedule=estimator.lr_schedule,
            patience=estimator.patience,
            verbose=int(estimator.verbose),
            callbacks=callbacks,
            checkpoint=checkpoint,
            keep_start=start is not None,
        )
    history, best = select_best_epoch(net, estimator.max_epochs, start)
    return make_state(
        history=history,
        seed=seed,
        best_epoch=best["epoch"],
        validation_loss=best["valid_loss"],
    )


def fit_networks_to_batch(
    estimator: Any,
    architecture: Architecture,
    images: ImageSet,
    feature_names: np.ndarray | None,
    start: FittedState | None,
) -> FittedState:
    """Train for one pass over a batch of a stream; arguments are as in `fit_networks`."""
    device = choose_device(estimator.device)
    first_seed = _draw_seed(estimator.random_state) if start is None else start.seed
    history = [] if start is None else start.history
    seed = first_seed + len(history)  # another one in each call
    with ExitStack() as seed_scope:
        seed_scope.enter_context(seeded(seed))
        setup = _FitSetup(architecture, images, device, None, estimator.channels, start)
        setup.prepare(start)
        steps = _step_settings(estimator, device, seed, seed_scope)
        if estimator.lr_schedule == "one-cycle":
            # `lr` is the peak of the schedule; constant, it could ruin weights that are fitted.
            steps = steps._replace(lr=steps.lr / 10)
        net = train_one_pass(
            setup.autoencoder(estimator.augment),
            setup.criterion(),
            setup.training_set(),
            steps,
            {} if start is None else start.optimizer_state,
            callbacks=estimator.callbacks or (),
        )
    row = {
        "epoch": len(history) + 1,
        "train_loss": net.history[-1]["train_loss"],
        "seconds": distributed.broadcast(net.history[-1]["dur"]),
    }
    return setup.state(
        estimator,
        feature_names,
        start,
        history=[*history, row],
        seed=first_seed,
        optimizer_state={
            parameter: {name: tensor.cpu() for name, tensor in tensors.items()}
            for parameter, tensors in net.optimizer_.state_dict()["state"].items()
        },
    )


class _FitSetup:
    """The networks of one fit, and the inputs and targets that they are trained on."""

    def __init__(
        self,
        architecture: Architecture,
        images: ImageSet,
        device: torch.device,
        memory: Any,
        channels: Any,
        start: FittedState | None,
    ) -> None:
        self.architecture = architecture
        self.images = images
        self.preprocess = Preprocess()
        self.device = device
        self.memory = memory
        if start is not None:
            # Networks are copied, so that a fit that fails leaves the earlier state as it is.
            self.loss_network = copy.deepcopy(start.networks.loss_network)
        elif architecture.loss_network is None:
            self.loss_network = None
        else:
            self.loss_network = self._load_loss_network(channels)

    def _load_loss_network(self, channels: Any) -> FrozenNetwork:
        """Load the loss network, scaled to a sample of the images where that is needed."""
        network: Any = load_loss_network(self.architecture.loss_network).to(self.device)
        n_channels = self.images.format.input_shape[0]
        sample = None
        if channels == "pca" or isinstance(network.network, JointNetwork):
            rows = evenly_spaced(len(self.images), N_SAMPLED)
            sample = self.preprocess(self.images.read(rows)).cpu()
        selected: Any = select_channels(network, channels, n_channels, sample)
        if isinstance(network.network, JointNetwork) and sample is not None:
            joint = selected.network
            if selected is not network:
                selection, joint = joint
                sample = selection(sample)
            joint.balance(sample.to(self.device))
        return selected

    @property
    def n_features(self) -> int:
        """Number of features of the loss network."""
        return 0 if self.extractor is None else self.extractor.n_features

    def prepare(self, start: FittedState | None, checkpoint: Checkpoint | None = None) -> None:
        """Extract features, and make the networks or copy those of an earlier state."""
        self.extractor = self._extract(self.images)
        if start is not None:
            encoder, decoder, variance_head = copy.deepcopy(start.networks.trained)
            projection = start.networks.projection
        else:
            architecture, shape = self.architecture, self.images.format.input_shape
            mean = None
            if architecture.encoder == "features" and self.extractor is not None:
                mean = self.extractor.sample_mean()
            encoder = architecture.make_encoder(self.n_features, shape, mean)
            projection = self._projection(checkpoint)
            decoder = architecture.make_decoder(self.n_features, shape, projection)
            variance_head = architecture.make_variance_head(encoder)
        if checkpoint is not None:
            checkpoint.projection = projection
        self.networks = Networks(encoder, decoder, variance_head, self.loss_network, projection)

    def autoencoder(self, augment: bool) -> Autoencoder:
        """Join the networks to the module that is trained."""
        prepare = nn.Identity() if self.architecture.takes_features else self.preprocess
        return Autoencoder(prepare, *self.networks.trained, augment=augment)

    def criterion(self) -> nn.Module:
        """Make the loss."""
        return make_criterion(self.architecture, self.n_features, self.preprocess, self.networks)

    def state(
        self,
        estimator: Any,
        feature_names: np.ndarray | None,
        start: FittedState | None,
        networks: Networks | None = None,
        **outcome: Any,
    ) -> FittedState:
        """Join networks, by default those that were trained, and an outcome to a fitted state."""
        return FittedState(
            format=self.images.format if start is None else start.format,
            feature_names=feature_names,
            architecture=self.architecture,
            n_features=self.n_features,
            networks=(networks or self.networks).on_cpu(),
            batch_size=estimator._batch_size(),
            reading=estimator._reading(),
            **outcome,
        )

    def training_set(self, rows: np.ndarray | None = None) -> TrainingSet:
        """Pair the inputs and targets of some images, by default of all."""
        return self._pairs(self.images, self.extractor, rows)

    def validation_set(self, images: ImageSet) -> TrainingSet:
        """Pair the inputs and targets of other images."""
        return self._pairs(images, self._extract(images))

    def _extract(self, images: ImageSet) -> FeatureExtractor | None:
        if self.loss_network is None:
            return None
        images = self.architecture.images_of_features(images, self.loss_network)
        extractor = FeatureExtractor.from_images(
            images, self.preprocess, self.loss_network, self.device, self.memory
        )
        return extractor.precomputed() if self.architecture.takes_features else extractor

    def _projection(self, checkpoint: Checkpoint | None) -> PCAProjection | None:
        if self.architecture.target_components is None or self.extractor is None:
            return None
        if checkpoint is not None and checkpoint.tensors["projection"]:
            return PCAProjection(**checkpoint.tensors["projection"])
        return self.extractor.fit_projection(self.architecture.target_components)

    def _pairs(
        self, images: ImageSet, extractor: FeatureExtractor | None, rows: np.ndarray | None = None
    ) -> TrainingSet:
        rows = np.arange(len(images)) if rows is None else rows
        stored = self.architecture.takes_features
        inputs: Any = extractor.source if stored and extractor is not None else images
        if self.architecture.loss == "pixels" or extractor is None:
            return TrainingSet(inputs, images, rows)
        if self.networks.projection is not None:
            return TrainingSet(inputs, extractor.projected(self.networks.projection), rows)
        return TrainingSet(inputs, inputs if stored else extractor.features(), rows)


def _draw_seed(random_state: Any) -> int:
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    return distributed.broadcast(seed)


def _step_settings(estimator: Any, device: torch.device, seed: int, seed_scope: ExitStack) -> Steps:
    """Make the settings of training steps, with a generator that goes on from initial weights.

    torch's own generator is given back to other threads before training begins, unless a module
    of the user's may draw from it, in dropout for example.
    """
    owns_generator = not callable(estimator.encoder)
    generator = training_generator(device, copy=owns_generator)
    if owns_generator:
        seed_scope.close()
    return Steps(
        batch_size=estimator._batch_size(),
        lr=estimator._lr(),
        gamma=estimator.gamma,
        device=device,
        seed=seed,
        generator=generator,
        net_params=estimator.net_params or {},
    )
