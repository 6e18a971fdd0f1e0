"""Scripts that make the weight files of loss networks; no benchmark commands."""
