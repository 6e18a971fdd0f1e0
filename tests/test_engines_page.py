"""The page on larger collections and more machines: its code does what it says."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV

from skfp import FeaturePredictionEncoder

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "examples" / "docs" / "scaling.md"


def code_of(heading):
    """The first Python code below a heading of the page."""
    section = PAGE.read_text("utf-8").split(f"# {heading}\n")[1]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


@pytest.fixture(scope="module")
def encoder(frames):
    return FeaturePredictionEncoder(z=3, max_epochs=1, random_state=0).fit(frames)


@pytest.fixture
def saved(encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder.save("encoder.safetensors")


@pytest.mark.parametrize(
    "heading",
    ["Searches on dask", "Searches on ray", "One fit on several devices"],
)
def test_is_code(heading):
    compile(code_of(heading), heading, "exec")


def test_memory_maps(frames, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", frames)
    encoder = FeaturePredictionEncoder(z=128, max_epochs=1, random_state=0)
    exec(code_of("Larger than memory"), {"np": np, "encoder": encoder})
    np.testing.assert_allclose(
        np.load("embedding.npy"), encoder.transform(frames), rtol=1e-4, atol=1e-5
    )


def test_dask_embeds_chunk_by_chunk(encoder, frames, tmp_path, monkeypatch):
    da = pytest.importorskip("dask.array", reason="needs the extra dask")
    monkeypatch.chdir(tmp_path)
    da.from_array(frames, chunks=(9, 64, 64, 3)).to_zarr("images.zarr")
    names = {"encoder": encoder}
    exec(code_of("dask"), names)
    assert names["embedding"].chunks == ((9, 7), (3,))
    embedded = da.from_zarr("embedding.zarr").compute()
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, encoder.transform(frames), rtol=1e-4, atol=1e-5)


def test_spark_udf_embeds_batches_of_bytes(saved, encoder, frames, monkeypatch):
    """Without Spark: the function gets what Spark would hand it."""
    functions = types.ModuleType("pyspark.sql.functions")
    functions.pandas_udf = lambda returned: lambda function: function
    for name in ("pyspark", "pyspark.sql"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "pyspark.sql.functions", functions)
    definition = code_of("Spark").split("embedded =")[0]
    names: dict = {}
    exec(definition, names)

    images = pd.Series([frame.tobytes() for frame in frames])
    embedded = pd.concat(list(names["embed"](iter([images[:9], images[9:]]))))
    np.testing.assert_allclose(np.stack(embedded), encoder.transform(frames), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def ray():
    """A local cluster that may run two tasks at a time."""
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20)
    yield ray
    ray.shutdown()


class TestRay:
    def test_search(self, frames, ray, tmp_path):
        from ray.util.joblib import register_ray

        register_ray()
        search = GridSearchCV(
            FeaturePredictionEncoder(memory=str(tmp_path), max_epochs=1, random_state=0),
            {"z": [2, 3]},
            cv=2,
            refit=False,
        )
        alone = search.fit(frames).cv_results_["mean_test_score"]
        with parallel_config("ray", n_jobs=-1):
            together = search.fit(frames).cv_results_["mean_test_score"]
        np.testing.assert_allclose(together, alone, rtol=1e-5)

    def test_map_batches(self, saved, encoder, frames, ray):
        code = code_of("ray").replace('"encoder', f'"{Path.cwd()}/encoder')
        names = {"__name__": "__main__", "images": frames}
        exec(code, names)
        rows = names["embedding"].take_all()
        embedding = np.stack([row["embedding"] for row in rows])
        # ray may hand blocks back in another order.
        expected = encoder.transform(frames)
        np.testing.assert_allclose(
            embedding[np.lexsort(embedding.T)],
            expected[np.lexsort(expected.T)],
            rtol=1e-4,
            atol=1e-5,
        )
