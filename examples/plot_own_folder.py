"""
=========================
Your own folder of images
=========================

Images lie in files of any size, and a table knows more about them. A column of paths and the other
columns go through one pipeline.
"""

# %%
# A folder and a table
# --------------------
# Stand-ins for your own images are crops of two photographs, of different sizes, written to
# PNG files. The table says from which photograph each was cut, and how high in it.
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_sample_image
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skfp import EmbeddingDisplay, FeaturePredictionEncoder, ImageLoader

folder = TemporaryDirectory()
random = np.random.default_rng(0)
records = []
for name in ("china.jpg", "flower.jpg"):
    photograph = load_sample_image(name)
    for number in range(1000):
        side = random.integers(50, 120)
        top, left = random.integers(0, np.array(photograph.shape[:2]) - side)
        path = Path(folder.name, f"{Path(name).stem}-{number:04}.png")
        Image.fromarray(photograph[top : top + side, left : left + side]).save(path)
        height = 1 - (top + side / 2) / len(photograph)
        records.append({"path": path, "photograph": name, "side": side, "height": height})
table = pd.DataFrame(records)
print(table.assign(path=[path.name for path in table["path"]]).sample(5, random_state=0))

# %%
# Paths beside other columns
# --------------------------
# :class:`~skfp.ImageLoader` reads the files and brings them to one size. The question is how high
# in its photograph a crop was cut: 0 is the lower edge, 1 the upper one.
images = Pipeline(
    [
        ("load", ImageLoader(size=64, n_jobs=2)),
        ("encode", FeaturePredictionEncoder(z=32, max_epochs=10, random_state=0, verbose=1)),
    ]
)
columns = ColumnTransformer(
    [
        ("image", images, ["path"]),
        ("photograph", OneHotEncoder(), ["photograph"]),
        ("side", "passthrough", ["side"]),
    ]
)
model = make_pipeline(columns, HistGradientBoostingRegressor(random_state=0))

train, test = train_test_split(table, test_size=0.25, random_state=0)
model.fit(train.drop(columns="height"), train["height"])
r2 = model.score(test.drop(columns="height"), test["height"])
without_images = HistGradientBoostingRegressor(random_state=0)
without_images.fit(pd.get_dummies(train[["photograph", "side"]]), train["height"])
r2_without = without_images.score(pd.get_dummies(test[["photograph", "side"]]), test["height"])
print(f"R2 with the images: {r2:.2f}, with the other columns alone: {r2_without:.2f}")

# %%
# A look at the embedding
# -----------------------
# Crops of alike contents lie side by side: sky, dark background, petals, and what has many edges.
# The encoder had no labels: neither what they are nor how high they were cut.
fitted = model[0].named_transformers_["image"]
EmbeddingDisplay.from_estimator(
    fitted["encode"], fitted["load"].transform(test["path"]), test["height"], random_state=0
)
plt.show()
folder.cleanup()
