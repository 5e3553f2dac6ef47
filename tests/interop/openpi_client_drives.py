"""openpi-client, as openpi's examples use it, drives two episodes: `python openpi_client_drives.py PORT`."""

import world
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def make_act(port):
    policy = WebsocketClientPolicy(host="localhost", port=port)
    metadata = policy.get_server_metadata()
    assert isinstance(metadata, dict), metadata
    return lambda frame, told: policy.infer({"observation/image": frame, "prompt": told})["actions"][0]


if __name__ == "__main__":
    world.main(make_act)
