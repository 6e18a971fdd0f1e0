"""Features of the loss network: computed once per fit, projected, stored, cached."""
