"""A REST call as OpenVLA's scripts send it (requests, json-numpy) drives two episodes: `python ... PORT`."""

import json_numpy
import requests
import world

json_numpy.patch()


def make_act(port):
    url = f"http://localhost:{port}/act"

    def act(frame, told):
        reply = requests.post(url, json={"image": frame, "instruction": told}, timeout=60)
        reply.raise_for_status()
        return reply.json()

    return act


if __name__ == "__main__":
    world.main(make_act)
