"""Fitted encoders kept for later: in memory, by pickle and skops, and in files without pickle."""

import copy
import json
import pickle
import pickletools
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import safetensors.torch
import sklearn
import skops.io
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from torch import nn

from skfp import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder

# What a fit leaves behind, but for the networks, which are compared by what they compute.
LEARNED = (
    "history_",
    "best_epoch_",
    "validation_loss_",
    "n_epochs_",
    "n_parameters_",
    "image_shape_",
    "n_features_in_",
)
LOAD_AND_EMBED = """
import pickle, sys
import joblib, numpy as np
frames = np.load(sys.argv[1])
for file in sys.argv[2:]:
    encoder = joblib.load(file) if file.endswith("joblib") else pickle.load(open(file, "rb"))
    np.savez(file, embedding=encoder.transform(frames), score=encoder.score(frames))
"""


def assert_same(loaded, original, X):
    """Check that an encoder is in all respects the one that was saved."""
    embedding = original.transform(X)
    np.testing.assert_array_equal(loaded.transform(X), embedding)
    assert loaded.score(X) == original.score(X)
    for name in LEARNED:
        assert getattr(loaded, name) == getattr(original, name), name
    if hasattr(original, "inverse_transform"):
        decoded = original.inverse_transform(embedding)
        np.testing.assert_array_equal(loaded.inverse_transform(embedding), decoded)
    np.testing.assert_array_equal(loaded.get_feature_names_out(), original.get_feature_names_out())


@pytest.fixture(scope="module")
def variational(frames):
    return FeaturePredictionEncoder(z=3, gamma=0.1, max_epochs=2, random_state=0).fit(frames)


@pytest.fixture(scope="module")
def table(frames):
    """Frames as a table of flattened rows, with names."""
    return pd.DataFrame(frames.reshape(len(frames), -1)).add_prefix("value")


@pytest.fixture(scope="module")
def of_table(table):
    return FeaturePredictionEncoder(
        z=3, image_shape=(64, 64, 3), max_epochs=1, random_state=np.random.RandomState(0)
    ).fit(table)


@pytest.fixture(scope="module")
def content(variational, tmp_path_factory):
    """Bytes of a good file."""
    path = tmp_path_factory.mktemp("good") / "encoder.safetensors"
    variational.save(path)
    return path.read_bytes()


class TestPickle:
    def test_nothing_is_lost(self, trained, frames):
        loaded = pickle.loads(pickle.dumps(trained))

        assert_same(loaded, trained, frames)
        assert loaded.get_params() == trained.get_params()

    def test_other_process(self, variational, frames, tmp_path):
        encoders = {
            f"{estimator.__name__}, {encoder}.{kind}": estimator(
                2, encoder=encoder, loss_network=nn.AvgPool2d(8), max_epochs=1, random_state=0
            ).fit(frames)
            for estimator in (FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder)
            for encoder, kind in (("image", "joblib"), ("features", "pickle"))
        }
        encoders["variational.pickle"] = variational
        np.save(tmp_path / "frames.npy", frames)
        for name, encoder in encoders.items():
            if name.endswith("joblib"):
                joblib.dump(encoder, tmp_path / name)
            else:
                (tmp_path / name).write_bytes(pickle.dumps(encoder))

        files = [tmp_path / name for name in encoders]
        subprocess.run(
            [sys.executable, "-c", LOAD_AND_EMBED, tmp_path / "frames.npy", *files], check=True
        )

        for name, encoder in encoders.items():
            there = np.load(tmp_path / f"{name}.npz")
            np.testing.assert_allclose(there["embedding"], encoder.transform(frames), atol=1e-5)
            np.testing.assert_allclose(there["score"], encoder.score(frames), rtol=1e-4)

    def test_compressed_joblib(self, variational, frames, tmp_path):
        joblib.dump(variational, tmp_path / "encoder.joblib", compress=3)

        assert_same(joblib.load(tmp_path / "encoder.joblib"), variational, frames)

    def test_memory_mapped_joblib_may_be_trained_on(self, variational, frames, tmp_path):
        joblib.dump(variational, tmp_path / "encoder.joblib")

        loaded = joblib.load(tmp_path / "encoder.joblib", mmap_mode="r")

        assert_same(loaded, variational, frames)
        assert loaded.partial_fit(frames).n_epochs_ == variational.n_epochs_ + 1

    def test_after_parameters_were_set(self, frames):
        """What fit has learned stays, whatever the next fit is to do."""
        encoder = PixelAutoencoder(z=3, max_epochs=1, random_state=0).fit(frames)
        embedding = encoder.transform(frames)
        encoder.set_params(z=5, gamma=1.0, encoder="features", max_epochs=7)

        loaded = pickle.loads(pickle.dumps(encoder))

        np.testing.assert_array_equal(loaded.transform(frames), embedding)
        assert loaded.get_params() == encoder.get_params()
        assert loaded.n_epochs_ == 1

    def test_names_of_columns(self, of_table, table):
        loaded = pickle.loads(pickle.dumps(of_table))

        assert loaded.feature_names_in_.tolist() == table.columns.tolist()
        with pytest.raises(ValueError, match="feature names"):
            loaded.transform(table[table.columns[::-1]])

    @pytest.mark.parametrize("estimator", [FeaturePredictionEncoder, PerceptualAutoencoder])
    @pytest.mark.parametrize("network", [nn.Conv2d(3, 4, 8, stride=8), nn.AvgPool2d(8)])
    def test_loss_network_of_the_user(self, frames, estimator, network):
        encoder = estimator(z=2, loss_network=network, max_epochs=1).fit(frames)

        assert_same(pickle.loads(pickle.dumps(encoder)), encoder, frames)

    def test_unfitted(self, procedure, frames):
        loaded = pickle.loads(pickle.dumps(procedure()))

        assert loaded.get_params() == procedure().get_params()
        with pytest.raises(NotFittedError):
            loaded.transform(frames)

    def test_copies(self, variational, frames):
        copied = copy.deepcopy(variational)

        assert_same(copied, variational, frames)
        with torch.no_grad():
            copied.encoder_.head.bias += 1
        assert not np.allclose(copied.transform(frames), variational.transform(frames))

    def test_clone_of_a_loaded_one_is_unfitted(self, variational, frames):
        again = clone(pickle.loads(pickle.dumps(variational)))

        assert again.get_params() == variational.get_params()
        with pytest.raises(NotFittedError):
            again.transform(frames)
        np.testing.assert_array_equal(
            again.fit(frames).transform(frames), variational.transform(frames)
        )

    def test_holds_what_a_file_holds_and_no_images(self, trained, tmp_path):
        trained.save(tmp_path / "encoder.safetensors")

        n_bytes = (tmp_path / "encoder.safetensors").stat().st_size
        assert abs(len(pickle.dumps(trained)) - n_bytes) < 10_000

    def test_holds_no_torch_objects(self, variational):
        """A file that was written on a GPU, or by another torch, is made of numpy arrays."""
        names = {
            argument
            for _, argument, _ in pickletools.genops(pickle.dumps(variational))
            if isinstance(argument, str)
        }

        assert "numpy" in {name.partition(".")[0] for name in names}
        assert not {name for name in names if name.partition(".")[0] == "torch"}


class TestSkops:
    def test_trusts_nothing_but_the_estimator(self, of_table, table):
        data = skops.io.dumps(of_table)

        untrusted = skops.io.get_untrusted_types(data=data)
        assert untrusted == [FeaturePredictionEncoder.__module__ + ".FeaturePredictionEncoder"]
        assert_same(skops.io.loads(data, trusted=untrusted), of_table, table)

    def test_pipeline_in_a_file(self, frames, tmp_path):
        y = np.arange(len(frames)) % 2
        pipeline = make_pipeline(PixelAutoencoder(2, max_epochs=1), LogisticRegression())
        pipeline.fit(frames, y)

        skops.io.dump(pipeline, tmp_path / "pipeline.skops")

        trusted = skops.io.get_untrusted_types(file=tmp_path / "pipeline.skops")
        assert trusted == [PixelAutoencoder.__module__ + ".PixelAutoencoder"]
        loaded = skops.io.load(tmp_path / "pipeline.skops", trusted=trusted)
        np.testing.assert_array_equal(loaded.predict_proba(frames), pipeline.predict_proba(frames))

    def test_unfitted(self):
        data = skops.io.dumps(PerceptualAutoencoder(z=7))

        trusted = skops.io.get_untrusted_types(data=data)
        assert trusted == [PerceptualAutoencoder.__module__ + ".PerceptualAutoencoder"]
        assert skops.io.loads(data, trusted=trusted).z == 7


class TestFile:
    def test_nothing_is_lost(self, trained, frames, tmp_path):
        trained.save(tmp_path / "encoder.safetensors")

        loaded = type(trained).load(tmp_path / "encoder.safetensors")

        assert_same(loaded, trained, frames)
        assert loaded.get_params() == trained.get_params()

    def test_training_goes_on_as_it_would_have(self, variational, frames, tmp_path):
        encoder = copy.deepcopy(variational).partial_fit(frames)
        encoder.save(tmp_path / "encoder.safetensors")
        loaded = FeaturePredictionEncoder.load(str(tmp_path / "encoder.safetensors"))

        encoder.partial_fit(frames)
        loaded.partial_fit(frames)

        np.testing.assert_array_equal(loaded.transform(frames), encoder.transform(frames))

    def test_names_and_shape_of_rows(self, of_table, table, tmp_path):
        of_table.save(tmp_path / "encoder.safetensors")

        loaded = FeaturePredictionEncoder.load(tmp_path / "encoder.safetensors")

        assert_same(loaded, of_table, table)
        assert loaded.image_shape == (64, 64, 3)
        assert loaded.feature_names_in_.tolist() == table.columns.tolist()
        assert loaded.random_state is None  # the draws of a RandomState are over

    def test_parameters_of_other_types(self, noise, tmp_path):
        weights = tmp_path / "weights.safetensors"
        alexnet = FeaturePredictionEncoder(2, max_epochs=1).fit(noise(4, 64, 64)).loss_network_
        safetensors.torch.save_file(
            {
                name.removeprefix("network."): 2 * tensor.contiguous()
                for name, tensor in alexnet.state_dict().items()
            },
            weights,
        )
        encoder = PixelAutoencoder(
            np.int64(2),
            encoder="features",
            loss_network=weights,
            lr=np.float32(0.5),
            max_epochs=1,
            memory=tmp_path / "memory",
            device=torch.device("cpu"),
            callbacks=[Callback()],
        ).fit(noise(4, 64, 64))
        encoder.save(tmp_path / "encoder.safetensors")
        weights.unlink()

        loaded = PixelAutoencoder.load(tmp_path / "encoder.safetensors")

        assert_same(loaded, encoder, noise(4, 64, 64))
        assert (loaded.z, loaded.lr, loaded.device) == (2, 0.5, "cpu")
        assert loaded.loss_network == str(weights)
        assert loaded.memory is None
        assert loaded.callbacks is None

    def test_of_a_fit_that_diverged(self, frames, tmp_path):
        class Poison(Callback):
            def on_batch_begin(self, net, training, **kwargs):
                if training and len(net.history) == 2:
                    with torch.no_grad():
                        next(net.module_.decoder.parameters()).fill_(float("nan"))

        with pytest.warns(UserWarning, match="diverged in epoch 2"):
            encoder = PixelAutoencoder(z=2, random_state=0, callbacks=[Poison()]).fit(frames)
        encoder.save(tmp_path / "encoder.safetensors")

        loaded = PixelAutoencoder.load(tmp_path / "encoder.safetensors")

        np.testing.assert_equal(loaded.history_, encoder.history_)
        assert np.isnan(loaded.history_[1]["train_loss"])
        np.testing.assert_array_equal(loaded.transform(frames), encoder.transform(frames))

    def test_after_a_fit_with_another_loss_network(self, frames, tmp_path):
        encoder = PixelAutoencoder(
            z=2, encoder="features", loss_network=nn.AvgPool2d(8), max_epochs=1
        ).fit(frames)
        encoder.set_params(encoder="image", loss_network="alexnet").fit(frames)
        encoder.save(tmp_path / "encoder.safetensors")

        loaded = PixelAutoencoder.load(tmp_path / "encoder.safetensors")

        np.testing.assert_array_equal(loaded.transform(frames), encoder.transform(frames))

    def test_after_z_was_set(self, variational, frames, tmp_path):
        encoder = copy.deepcopy(variational).set_params(z=7)
        encoder.save(tmp_path / "encoder.safetensors")

        loaded = FeaturePredictionEncoder.load(tmp_path / "encoder.safetensors")

        assert loaded.z == 7
        np.testing.assert_array_equal(loaded.transform(frames), variational.transform(frames))

    def test_holds_numbers_and_json_only(self, variational, tmp_path):
        path = tmp_path / "encoder.safetensors"
        variational.save(path)

        content = path.read_bytes()
        n_header = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + n_header])
        metadata = json.loads(header.pop("__metadata__")["skfp"])
        assert metadata["estimator"] == "FeaturePredictionEncoder"
        assert {entry["dtype"] for entry in header.values()} <= {"F32", "I64"}
        n_numbers = sum(np.prod(e["shape"]) * int(e["dtype"][1:]) // 8 for e in header.values())
        assert len(content) == 8 + n_header + n_numbers
        assert b"sklearn" not in content[: 8 + n_header]

    def test_with_metadata_that_fit_asks_for(self, frames, tmp_path):
        with sklearn.config_context(enable_metadata_routing=True):
            encoder = PixelAutoencoder(z=2, max_epochs=1).set_fit_request(X_val=True).fit(frames)

        encoder.save(tmp_path / "encoder.safetensors")

        again = PixelAutoencoder.load(tmp_path / "encoder.safetensors")
        np.testing.assert_array_equal(again.transform(frames), encoder.transform(frames))

    def test_old_file_outlives_a_failed_save(self, variational, frames, tmp_path):
        path = tmp_path / "encoder.safetensors"
        variational.save(path)
        before = path.read_bytes()
        other = FeaturePredictionEncoder(
            2, loss_network=nn.AvgPool2d(8), max_epochs=1, random_state=0
        ).fit(frames)

        with pytest.raises(ValueError, match=r"loss_network is a AvgPool2d.*joblib\.dump"):
            other.save(path)

        assert path.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == [path.name]

    def test_is_replaced(self, variational, of_table, tmp_path):
        path = tmp_path / "encoder.safetensors"
        variational.save(path)
        of_table.save(path)

        assert FeaturePredictionEncoder.load(path).image_shape == (64, 64, 3)
        assert [file.name for file in tmp_path.iterdir()] == [path.name]

    def test_of_an_unfitted_encoder(self, quick, tmp_path):
        with pytest.raises(NotFittedError):
            quick().save(tmp_path / "encoder.safetensors")
        assert list(tmp_path.iterdir()) == []

    def test_folder_that_is_not_there(self, variational, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
            variational.save(tmp_path / "nowhere" / "encoder.safetensors")


class TestBadFile:
    """A file from somebody else is refused in words, and never runs code."""

    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "encoder.safetensors"

    @pytest.fixture
    def edited(self, content, path):
        """Write the file again with another header or other tensors, and load that."""

        def load_edited(edit):
            n_header = int.from_bytes(content[:8], "little")
            metadata = json.loads(content[8 : 8 + n_header])["__metadata__"]
            header, tensors = json.loads(metadata["skfp"]), safetensors.numpy.load(content)
            edit(header, tensors)
            safetensors.numpy.save_file(tensors, path, {"skfp": json.dumps(header)})
            return FeaturePredictionEncoder.load(path)

        return load_edited

    def test_edited_file_without_an_edit_loads(self, edited, variational, frames):
        assert_same(edited(lambda header, tensors: None), variational, frames)

    def test_missing(self, path):
        with pytest.raises(FileNotFoundError, match=r"encoder\.safetensors.*no such file"):
            FeaturePredictionEncoder.load(path)

    @pytest.mark.parametrize("share", [0, 1e-6, 1e-5, 1e-3, 0.5, 1 - 1e-6])
    def test_truncated(self, content, path, share):
        path.write_bytes(content[: int(share * len(content))])

        with pytest.raises(ValueError, match="not a complete safetensors file"):
            FeaturePredictionEncoder.load(path)

    def test_damaged_header(self, content, path):
        """A flipped byte is refused as a ValueError, or hits a number and is read as another."""
        n_header = int.from_bytes(content[:8], "little")
        rng = np.random.default_rng(0)
        n_refused = 0
        for place in rng.integers(0, 8 + n_header, 60):
            damaged = bytearray(content)
            damaged[place] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged)
            try:
                FeaturePredictionEncoder.load(path)
            except ValueError:
                n_refused += 1
        assert n_refused > 50

    @pytest.mark.parametrize("content", [pickle.dumps({}), b"PK\x03\x04", b"{}", b"\0" * 100])
    def test_of_another_kind(self, path, content):
        path.write_bytes(content)

        with pytest.raises(ValueError, match="not a complete safetensors file"):
            FeaturePredictionEncoder.load(path)

    @pytest.mark.parametrize("metadata", [None, {"skfp": "[]"}, {"skfp": "{}"}, {"other": "{}"}])
    def test_of_other_tensors(self, path, metadata):
        safetensors.numpy.save_file({"weight": np.zeros(3)}, path, metadata)

        with pytest.raises(ValueError, match="not written by save"):
            FeaturePredictionEncoder.load(path)

    @pytest.mark.parametrize("json", ["{", "[" * 100_000, "\ud7ff"])
    def test_of_a_header_that_is_not_json(self, path, json):
        safetensors.numpy.save_file({}, path, {"skfp": json})

        with pytest.raises(ValueError, match="not a complete safetensors file"):
            FeaturePredictionEncoder.load(path)

    def test_of_another_estimator(self, content, path):
        path.write_bytes(content)

        with pytest.raises(ValueError, match="holds a FeaturePredictionEncoder"):
            PixelAutoencoder.load(path)

    def test_of_a_newer_version(self, edited):
        with pytest.raises(ValueError, match="newer version of skfp"):
            edited(lambda header, tensors: header.update(format=3))

    @pytest.mark.parametrize(
        "edit",
        [
            lambda header, tensors: header["parameters"].update(colour="red"),
            lambda header, tensors: header.update(parameters=[1]),
            lambda header, tensors: header.pop("state"),
            lambda header, tensors: header["state"].pop("format"),
            lambda header, tensors: header["state"].pop("history"),
            lambda header, tensors: tensors.update(
                {"encoder.head.bias": tensors["encoder.head.bias"].astype(np.float16)}
            ),
            lambda header, tensors: header["state"]["format"].update(image_shape=[80, 64, 3]),
            lambda header, tensors: header["state"]["format"].update(image_shape=[10**9] * 3),
            lambda header, tensors: tensors.pop("encoder.head.weight"),
            lambda header, tensors: tensors.pop("decoder.2.bias"),
            lambda header, tensors: tensors.pop("projection.mean"),
            lambda header, tensors: tensors.update({"encoder.more": np.zeros(2)}),
            lambda header, tensors: tensors.update({"other.weight": np.zeros(2)}),
            lambda header, tensors: tensors.update(
                {"encoder.head.weight": tensors["encoder.head.weight"][:-1]}
            ),
        ],
        ids=range(14),
    )
    def test_that_is_inconsistent(self, edited, edit):
        with pytest.raises(ValueError, match="inconsistent"):
            edited(edit)
