"""How strongly samples are distrusted: defaults, and the choice by held-out samples."""
