"""What the fake backend takes over from a start: nothing, but rays that contradict are refused like a real one's."""

import json


def adopt(config, settings, text):
    threshold = json.loads(text)["fitted"]["threshold"]
    if settings.unet.HasField("centre_threshold") and settings.unet.centre_threshold != threshold:
        raise ValueError(f"centre_threshold is {settings.unet.centre_threshold}, but the start has {threshold}.")
    return config
