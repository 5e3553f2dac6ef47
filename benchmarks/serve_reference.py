"""What `serve_load.py` measures against: a server written as openpi's is, inference inside the handler, no batching.

    python benchmarks/serve_reference.py --bundle data/checkpoints/tabletop_rt2 --port 8001

Each WebSocket connection has a coroutine that reads an observation, calls the policy and sends its action. While the
policy computes, nobody else is read from or written to.
"""

import argparse
import asyncio
import pathlib

import numpy as np
import websockets.asyncio.server

from rt2_jax import load_policy
from rt2_jax.serve.wire import pack, unpack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=pathlib.Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    policy = load_policy(arguments.bundle)
    name = next(iter(policy.embodiments))

    def infer(observation):
        frames = np.stack([observation["observation/image"]])
        return policy.act(frames, [observation["prompt"]], embodiment=name).chunk[0]

    size = policy.image_size
    infer({"observation/image": np.zeros((size, size, 3), np.uint8), "prompt": "wait"})

    async def handle(socket):
        await socket.send(pack({}))
        async for message in socket:
            await socket.send(pack({"actions": infer(unpack(message))}))

    async def serve():
        options = {"compression": None, "max_size": None}
        async with websockets.asyncio.server.serve(handle, "127.0.0.1", arguments.port, **options):
            print("listening", flush=True)
            await asyncio.Future()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
