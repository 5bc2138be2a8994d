"""The network, the data of each client, and local training."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def make_net():
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))


def load_data():
    """Training and test samples, training and test labels."""
    X, y = load_digits(return_X_y=True)
    split = train_test_split((X / 16).astype(np.float32), y, test_size=0.25, random_state=0, stratify=y)
    return tuple(map(torch.from_numpy, split))


def train(net, X, y, epochs=3, lr=0.1):
    """Train by SGD, and give the mean loss of the last epoch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for _ in range(epochs):
        losses = []
        for batch in torch.randperm(len(y)).split(16):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(X[batch]), y[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return float(np.mean(losses))


def accuracy(net, X, y):
    with torch.no_grad():
        return float((net(X).argmax(dim=1) == y).float().mean())
