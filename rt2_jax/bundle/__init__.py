"""What a robot is served from: spec, store, weights and the steps of a run; every byte under a hash."""
