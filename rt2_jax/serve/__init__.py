"""A policy behind a port, and the client that a robot runs; `client` and `wire` need numpy, msgpack and websockets."""
