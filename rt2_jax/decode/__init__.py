"""The constrained sampler and the policy built on it."""
