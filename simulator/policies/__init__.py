"""The published policies, one class each with its source, and the production core beside them."""
