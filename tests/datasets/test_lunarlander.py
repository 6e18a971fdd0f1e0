import os
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from skfp.datasets import fetch_lunarlander

pytest.importorskip("gymnasium")
pytest.importorskip("Box2D")

SMALL = {"n_rollouts": 3, "n_steps": 12}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def small(home):
    return fetch_lunarlander(**SMALL, data_home=home)


def assert_same_bytes(one, other):
    for name in ("images", "positions", "rollouts"):
        assert one[name].dtype == other[name].dtype
        assert one[name].shape == other[name].shape
        assert one[name].tobytes() == other[name].tobytes()


def cache_file(folder):
    (path,) = folder.rglob("*.npz")
    return path


def test_shapes_types_and_description(small):
    assert small.images.shape == (36, 64, 64, 3)
    assert small.images.dtype == np.uint8
    assert small.positions.shape == (36, 2)
    assert small.positions.dtype == np.float32
    assert small.rollouts.dtype == np.int32
    np.testing.assert_array_equal(small.rollouts, np.repeat([0, 1, 2], 12))
    assert "LunarLander" in small.DESCR
    assert "3 of 12 steps" in small.DESCR


def test_frames_are_gymnasiums_before_the_step_and_positions_after_it(tmp_path):
    import gymnasium

    data = fetch_lunarlander(n_rollouts=1, n_steps=30, run=3, on_screen_only=False, random_state=5,
                             data_home=tmp_path)  # fmt: skip
    world, policy = np.random.SeedSequence(5, spawn_key=(3, 0)).spawn(2)
    env = gymnasium.make("LunarLander-v3", render_mode="rgb_array").unwrapped
    env.reset(seed=int(world.generate_state(1)[0]))
    for step, action in enumerate(np.random.default_rng(policy).integers(4, size=30)):
        frame = Image.fromarray(env.render()).resize((64, 64), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(data.images[step], np.asarray(frame))
        np.testing.assert_array_equal(data.positions[step], env.step(action)[0][:2])


def test_lander_is_where_the_position_says(tmp_path):
    data = fetch_lunarlander(n_rollouts=4, n_steps=100, stride=20, data_home=tmp_path)
    # The lander alone is violet. It moves less than two pixels in the step before its label.
    red, green, blue = np.moveaxis(data.images.astype(int), -1, 0)
    violet = (blue > 150) & (green < 140) & (red < 160)
    whole = abs(data.positions[:, 1] - 0.7) < 0.5  # inside of the picture, above the ground
    assert whole.sum() > 5
    for mask, (x, y) in zip(violet[whole], data.positions[whole], strict=True):
        rows, columns = np.nonzero(mask)
        assert columns.mean() == pytest.approx(32 + 32 * x, abs=2.5)
        # y = 0 is where the legs (3 pixels) stand on the pad, at a quarter of the height.
        assert rows.mean() == pytest.approx(48 - 3 - 32 * y, abs=2.5)


def test_workers_do_not_change_a_byte(small, tmp_path):
    assert_same_bytes(small, fetch_lunarlander(**SMALL, data_home=tmp_path, n_jobs=2))


def test_fewer_rollouts_are_the_beginning_of_more(small, tmp_path):
    one = fetch_lunarlander(n_rollouts=1, n_steps=12, data_home=tmp_path)
    np.testing.assert_array_equal(one.images, small.images[:12])
    np.testing.assert_array_equal(one.positions, small.positions[:12])


@pytest.mark.parametrize("stride", [5, 12, 40])
def test_stride_skips_frames_and_changes_none(small, tmp_path, stride):
    strided = fetch_lunarlander(**SMALL, stride=stride, data_home=tmp_path)
    kept = np.tile(np.arange(12) % stride == 0, 3)
    assert_same_bytes(strided, {k: small[k][kept] for k in ("images", "positions", "rollouts")})


def test_runs_seeds_and_rollouts_differ(small, tmp_path):
    others = [
        fetch_lunarlander(**SMALL, run=2, on_screen_only=False, data_home=tmp_path),
        fetch_lunarlander(**SMALL, random_state=1, data_home=tmp_path),
    ]
    for other in others:
        assert not np.array_equal(other.images, small.images)
    # Each rollout has its own terrain.
    first = small.images[::12]
    assert not np.array_equal(first[0], first[1])


def test_run_decides_whether_frames_off_screen_are_left_out(tmp_path):
    settings = {"n_rollouts": 3, "n_steps": 200, "stride": 10, "data_home": tmp_path}
    every = fetch_lunarlander(**settings, run=2, on_screen_only=False)
    x, y = every.positions.T
    on_screen = (abs(x) <= 1) & (y >= -0.5) & (y <= 1.5)
    assert 0 < on_screen.sum() < len(on_screen) == 60  # or the test would show nothing
    kept = fetch_lunarlander(**settings, run=2)
    assert_same_bytes(kept, {k: every[k][on_screen] for k in ("images", "positions", "rollouts")})
    assert len(fetch_lunarlander(**settings, run=1).images) == 60


def test_image_size(small, tmp_path):
    large = fetch_lunarlander(n_rollouts=1, n_steps=2, image_size=96, data_home=tmp_path)
    assert large.images.shape == (2, 96, 96, 3)
    np.testing.assert_array_equal(large.positions, small.positions[:2])


def test_second_call_reads_the_cache(tmp_path):
    first = fetch_lunarlander(**SMALL, data_home=tmp_path)
    path = cache_file(tmp_path)
    # Data that no simulator makes show where the second call has them from.
    marked = {"images": first.images ^ 255, "positions": first.positions}
    np.savez(path, **marked, rollouts=first.rollouts)
    second = fetch_lunarlander(**SMALL, data_home=tmp_path, n_jobs=2, verbose=1)
    np.testing.assert_array_equal(second.images, first.images ^ 255)
    # Other parameters have another file.
    fetch_lunarlander(**SMALL, random_state=1, data_home=tmp_path)
    assert len(list(tmp_path.rglob("*"))) == 2 + 2  # skfp/lunarlander, and no rest of a write


def test_cache_holds_no_pickle_and_is_under_skfp(small, home):
    path = cache_file(home)
    assert path.parent == home / "skfp" / "lunarlander"
    with np.load(path, allow_pickle=False) as stored:
        assert_same_bytes(small, stored)


@pytest.mark.parametrize("damage", ["flipped byte", "cut", "empty", "other arrays"])
def test_damaged_cache_is_generated_again(small, tmp_path, damage):
    fetch_lunarlander(**SMALL, data_home=tmp_path)
    path = cache_file(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "flipped byte":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b""}.get(damage, content))
    if damage == "other arrays":
        np.savez(path, weights=np.zeros(3))
    with pytest.warns(UserWarning, match="damaged"):
        assert_same_bytes(small, fetch_lunarlander(**SMALL, data_home=tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_bytes(small, fetch_lunarlander(**SMALL, data_home=tmp_path))


def test_home_that_cannot_be_written_gives_uncached_data(small, tmp_path):
    not_a_folder = tmp_path / "file"
    not_a_folder.write_text("")
    with pytest.warns(UserWarning, match="could not be cached"):
        data = fetch_lunarlander(**SMALL, data_home=not_a_folder)
    assert_same_bytes(small, data)


def test_default_home_is_scikit_learns(tmp_path, monkeypatch):
    from sklearn.datasets import get_data_home

    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    fetch_lunarlander(n_rollouts=1, n_steps=1)
    assert os.fspath(cache_file(tmp_path)).startswith(get_data_home())


def test_progress_is_shown_on_demand(tmp_path, capsys):
    fetch_lunarlander(n_rollouts=2, n_steps=1, data_home=tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    fetch_lunarlander(n_rollouts=2, n_steps=1, data_home=tmp_path / "loud", verbose=1)
    assert "2/2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        {"run": 0},
        {"run": 4},
        {"n_rollouts": 0},
        {"n_steps": 0},
        {"stride": 0},
        {"stride": 1.5},
        {"image_size": 0},
        {"on_screen_only": "yes"},
        {"random_state": -1},
        {"random_state": None},
        {"data_home": 3},
    ],
)
def test_wrong_parameters_are_named(wrong, tmp_path):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"'{name}' parameter of fetch_lunarlander"):
        fetch_lunarlander(**{**SMALL, "data_home": tmp_path, **wrong})


def test_missing_simulator_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r'pip install "skfp\[lunarlander\]"'):
        fetch_lunarlander(**SMALL, data_home=tmp_path)
