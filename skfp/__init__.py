"""Image embeddings for scikit-learn, by feature prediction."""

from skfp.estimators import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder

__version__ = "0.1.0"
__all__ = ["FeaturePredictionEncoder", "PerceptualAutoencoder", "PixelAutoencoder"]
