"""Documentation that the three estimators share, written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

_SHARED = {
    "z": """
z : int, default=128
    Size of the embedding: the number of values per image.
""",
    "encoder": """
encoder : str or callable, default="auto"
    The network to train. "auto" is
    {auto_encoder}.
    Other names, with the cost of an image of 64 by 64 pixels, which grows with the number of pixels
    unless said otherwise:

    - "image" (30 MFLOP): the paper's four convolutions ({image}).
    - "small" and "large" (8 and 112 MFLOP): "image" with half and twice the channels.
    - "residual" (34 MFLOP): a small residual network; larger images need no more weights.
    - "pretrained" (20 MFLOP): the first block of each stage of EfficientNet-Lite0, with its weights
      of ImageNet, which are trained on. Images larger than 96 pixels are shrunk to that first, so
      they cost no more than 46 MFLOP.
    - "features": a perceptron on the features of the loss network ({features}), normalised: without
      that, such an encoder hardly learns ("paper-features" is the paper's, which is not).

    A function takes the size (height, width) of the images, at least 64 each, and returns a new
    module from float images (b, 3, height, width) in [0, 1] to a tensor (b, ...), which is
    flattened and mapped linearly to the embedding; `save` cannot keep such a module.
""",
    "loss_network": """
loss_network : str, LossNetwork, path-like, torch.nn.Module, callable or list, default="alexnet"
    {role}
    "alexnet" is the paper's: AlexNet pretrained on ImageNet, cut after its second ReLU,
    followed by a sigmoid; its weights come with the package. A path to a file of weights gives the
    same layers other weights. "photo" is EfficientNet-Lite0, a deep network to learn from on
    photographs; its weights come with the package too. Another name is a model of torchvision, such
    as "vgg16", or of timm, such as "timm:resnet26". A module or function maps float images
    (b, 3, height, width) in [0, 1] to a tensor (b, ...); a module is copied and frozen. A
    :class:`LossNetwork` says more, such as the layer. Several networks in a list are joined, each
    with its share of the loss.
""",
    "max_epochs": """
max_epochs : int or None, default=50
    Maximum number of epochs. None is no limit but `max_seconds`.
max_seconds : float or None, default=None
    Seconds that fit may take, features and validation included; training ends in time, also within
    an epoch, and the learning rate falls as time or `max_epochs` runs out, whichever is first.
    ``max_seconds=600, max_epochs=None`` trains for ten minutes, unless `patience` ends it. How many
    steps that makes depends on the machine, so such fits are not reproducible bit for bit.
random_state : int, RandomState instance or None, default=None
    Determines initial weights, the held-out images and the order of batches. Pass an int for the
    same embedding in every fit, bit for bit on a CPU with the same number of threads.
""",
    "parameters": """
value_range : "auto" or tuple of float, default="auto"
    (low, high), the values that are read as black and white; values outside are clipped. "auto"
    finds the range from the images in fit, whatever their type: 0 to 1, 0 to 255 or -1 to 1,
    whichever is the smallest that holds them. Images that fit into none of these, or use less than
    a tenth of one, are read with the range of their own values. Later images of another type or
    scale are read so that they match: after uint8, floats up to 2 are read as 0 to 1.
channels : {{"auto", "rgba", "mean", "pca"}} or three ints, default="auto"
    What the loss network gets of images that are neither grey nor RGB; the encoder takes all
    channels. Three numbers choose channels, "mean" averages all, and "pca" takes three principal
    components of their values. "auto" is the first three channels, or the mean of two. "rgba" says
    that a fourth channel is alpha: images are composited on white. PIL images say so themselves.
resize : {{"auto", "tile"}}, int or tuple of int, default="auto"
    Size of the images that the networks get: the shorter side, or (height, width), at least 64;
    images are resized batch by batch, and may then have any size, also in `transform`, and mixed
    sizes (an int is then both sides). "auto" changes only sides of less than 64 pixels, and makes
    them 64; "tile" repeats small images instead, as the paper does. Images of more than 256 by
    256 pixels are slow without it: 128 is a good size to begin with.
image_shape : tuple of int or None, default=None
    (height, width), (height, width, channels) or (channels, height, width) of an image if X holds
    flattened rows. Rows without it are read as grey images as square as possible.
batch_size : int or "auto", default="auto"
    Images per training step.
    "auto" is {batch_size}.
lr : {lr_type}
    Learning rate of Adam; {lr}.
lr_schedule : {{"one-cycle"}} or None, default={lr_schedule}
    "one-cycle" raises the learning rate to `lr` and then lowers it to almost zero over
    `max_epochs`, or `max_seconds`; None keeps it at `lr`, as the paper does.
augment : bool, default=False
    Whether the encoder gets each image flipped from left to right at random, and shifted by up to
    an eighth of its sides, in training; what it learns to predict stays that of the image itself.
    For images whose content does not depend on where it lies or on left and right. Not for
    encoders of features.
validation_fraction : float in (0, 1), default=0.2
    Share of the images that is held out for validation if fit gets no `X_val`.
patience : int, default=10
    Training stops after this many epochs without a lower validation loss.
gamma : float, default=0.0
    Weight of the variational term. If positive, embeddings are drawn from a normal distribution in
    training, and `transform` returns its mean.
warm_start : bool, default=False
    Whether fit continues from the networks of an earlier fit or partial_fit, for another
    `max_epochs`, instead of starting again.
memory : str, path-like, joblib.Memory, object with a method `cache`, or None, default=None
    Where to cache the features of the loss network, for the next fit on the same images with the
    same loss network, also in other processes. None computes them once per fit. Entries are pickles
    written by joblib: use a folder that only you can write to. A data set with random transforms
    gives other images each time, so no entry is ever found again.
checkpoint_dir : str, path-like or None, default=None
    Folder where the state of training is written after every epoch. When fit is called again with
    the same images and parameters, it continues from there, and ends bit for bit where it would
    have ended without a break, on a CPU with the same number of threads. Each fit has a subfolder,
    named by what decides its course, so a search can be killed and continued too. The files hold
    numbers and JSON, no code, and not the state of `callbacks`. A data set must give the same
    images each time.
device : str or torch.device, default="auto"
    Where to compute. "auto" is a CUDA device if there is one, else Apple's
    (mps), else the CPU.
verbose : int, default=0
    0 is silent, 1 prints a line per epoch, 2 shows a progress bar in terminals and notebooks.
callbacks : list of skorch.callbacks.Callback or None, default=None
    Callbacks of the training. Those of scikit-learn, from its version 1.9 on, go to
    `set_callbacks`: each epoch is a task of theirs.
net_params : dict or None, default=None
    Further parameters of the :class:`skorch.NeuralNet` that trains, such as ``{{"compile": True}}``
    or ``{{"optimizer__weight_decay": 1e-4}}``. ``{{"autocast": False}}`` trains in float32 on a
    GPU, where the default is mixed bfloat16.
""",
    "attributes": """
encoder_ : torch.nn.Module
    The encoder at its best epoch, on the CPU.
decoder_ : torch.nn.Module
    The decoder at its best epoch, on the CPU.
loss_network_ : FrozenNetwork{or_none}
    The frozen loss network.
history_ : list of dict
    One row per epoch with the keys "epoch", "train_loss", "valid_loss" and "seconds".
best_epoch_ : int
    The epoch, counted from 1, whose weights were kept.
validation_loss_ : float
    The loss of the best epoch on the held-out images.
n_epochs_ : int
    Number of epochs trained.
batch_size_ : int
    Images per training step.
n_parameters_ : int
    Number of trained parameters, of encoder and decoder together.
image_shape_ : tuple of int
    Shape of an image in fit.
n_features_in_ : int
    Number of values in an image.
feature_names_in_ : ndarray of shape (`n_features_in_`,)
    Column names of X, if it was a table of flattened images.
""",
    "references": """
.. [1] G. Grund Pihlgren, F. Sandin, M. Liwicki, "Pretraining Image Encoders without Reconstruction
   via Feature Prediction Loss", ICPR 2020.
""",
}

Class = TypeVar("Class", bound=type)


def fill_docstring(**values: str) -> Callable[[Class], Class]:
    """Return a decorator that replaces lines ``<name>`` of a class docstring by shared sections."""

    def fill(cls: Class) -> Class:
        doc = inspect.cleandoc(cls.__doc__ or "")
        for name, text in _SHARED.items():
            if f"<{name}>" in doc:
                doc = doc.replace(f"<{name}>", text.strip().format(**values))
        cls.__doc__ = doc
        return cls

    return fill
