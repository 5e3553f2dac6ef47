"""The constrained sampler and the policy built on it: what serving, evaluation and `rt2 sample` share."""
