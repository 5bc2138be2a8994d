"""Strength of the distrust in samples: defaults, and the choice by held-out samples."""
