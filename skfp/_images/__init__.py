"""What images are: their format, values and files. Needs NumPy and Pillow, but no torch."""
