"""Encoders, decoders and losses as torch modules."""
