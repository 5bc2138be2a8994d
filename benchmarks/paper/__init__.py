"""The paper's experiments as cases that anyone can run: ``python -m paper.run``, then ``python -m paper.report``."""
