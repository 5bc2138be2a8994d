"""What the classifier and the regressor share: parameters, checks, the training of a net, predictions."""
