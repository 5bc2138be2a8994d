"""Common parts of the classifier and the regressor: parameters, checks, the training of a net, predictions."""
