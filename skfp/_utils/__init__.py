"""Helpers that know nothing of images: devices, memory, processes, files of tensors, hashes."""
