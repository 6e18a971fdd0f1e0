"""Training with skorch: data set, net, schedule, best epoch, checkpoint."""
