"""Images in any accepted form, read batch by batch."""
