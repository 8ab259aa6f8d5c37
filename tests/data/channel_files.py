"""Files of channels of every kind, for tests to write and read."""

import io

import cv2
import numpy as np
import tifffile

from hpa_kit.data import CHANNELS

HEIGHT, WIDTH = 24, 40


def ramp(peak=255, dtype=np.uint8):
    return np.linspace(0, peak, HEIGHT * WIDTH).round().astype(dtype).reshape(HEIGHT, WIDTH)


def encoded(image, ending=".png", *flags):
    done, data = cv2.imencode(ending, image, list(flags))
    assert done
    return data.tobytes()


def by_pillow(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_tifffile(image, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, image, **options)
    return stream.getvalue()


def write_field(folder, id="a", ending=".png", data=None, **channels):
    """Four channel files; ``data`` for all, or bytes for one channel by its name; None leaves it out."""
    folder.mkdir(parents=True, exist_ok=True)
    for channel in CHANNELS:
        content = channels.get(channel, data if data is not None else encoded(ramp()))
        if content is not None:
            (folder / f"{id}_{channel}{ending}").write_bytes(content)
