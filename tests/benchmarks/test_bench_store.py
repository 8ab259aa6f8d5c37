"""In which format resized fields are kept: bytes and time of candidates that Kaggle's image has, and of ours.

``python -m pytest tests/benchmarks/test_bench_store.py -s --override-ini addopts=``
"""

import io
import time
import zlib

import cv2
import numpy as np
import pyarrow
import pytest

from hpa_kit.data import CHANNELS, FieldStore, find_fields, read_field, resize_field

TRAINING_FIELDS = 21_806
KAGGLE_GB = 20


def fastest(work, repeats=5):
    """Processor seconds of all threads: what other processes do meanwhile plays no part."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def tall(field):
    return field.reshape(-1, field.shape[2])


def by_cv2(ending, *flags):
    def encode(field):
        return cv2.imencode(ending, tall(field), flags)[1].tobytes()

    def decode(data, size):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        return (pixels if pixels.ndim == 2 else pixels[..., 0]).reshape(4, size, size)

    return encode, decode


def npy(field):
    stream = io.BytesIO()
    np.save(stream, field)
    return stream.getvalue()


def by_zlib(level):
    def decode(data, size):
        return np.frombuffer(zlib.decompress(data, bufsize=4 * size**2), np.uint8).reshape(4, size, size)

    return lambda field: zlib.compress(field.tobytes(), level), decode


def by_pyarrow(name, level=None):
    codec = pyarrow.Codec(name, compression_level=level)

    def decode(data, size):
        return np.frombuffer(codec.decompress(data, 4 * size**2), np.uint8).reshape(4, size, size)

    return lambda field: codec.compress(field.tobytes(), asbytes=True), decode


LOSSLESS = {
    # A copy, because a mapping is only read when its bytes are asked for.
    "raw, mapped": (lambda f: f.tobytes(), lambda d, s: np.frombuffer(d, np.uint8).reshape(4, s, s).copy()),
    "npy": (npy, lambda d, s: np.load(io.BytesIO(d))),
    "zlib 1": by_zlib(1),
    "zlib 3": by_zlib(3),
    "zlib 6": by_zlib(6),
    "lz4": by_pyarrow("lz4"),
    "zstd 1": by_pyarrow("zstd", 1),
    "zstd 3": by_pyarrow("zstd", 3),
    "png": by_cv2(".png", cv2.IMWRITE_PNG_COMPRESSION, 1),
    "png run lengths": by_cv2(".png", cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    "webp lossless": by_cv2(".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
}
LOSSY = {f"jpg {quality}": by_cv2(".jpg", cv2.IMWRITE_JPEG_QUALITY, quality) for quality in (90, 95, 100)}


@pytest.fixture
def full_size(real):
    """Folder and IDs of the real fields of 2048²; the time that decoding one's pngs takes, in one thread."""
    folder = real / "competition" / "train"
    ids = [id for id in find_fields(folder) if read_field(folder, id).shape[1] == 2048]
    files = [[(folder / f"{id}_{channel}.png") for channel in CHANNELS] for id in ids]

    def decode():
        for paths in files:
            for path in paths:
                cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)

    return folder, ids, lambda: fastest(decode, 3) / len(ids)


def sets(real, folder, ids):
    """Real fields by the side to which they are resized; those of 512² are of other experiments."""
    other = real / "fields512" / "train"
    mixed = [read_field(other, id) for id in find_fields(other)][:12]
    mixed += [resize_field(read_field(folder, id), 512) for id in ids]
    return {512: mixed, 1024: [resize_field(read_field(folder, id), 1024) for id in ids]}


def test_bytes_and_times_of_the_formats_are_printed(real, full_size):
    folder, ids, decode_time = full_size
    fields, full = sets(real, folder, ids), decode_time()
    print(f"\ndecoding the four pngs of a field of 2048²: {full * 1e3:.0f} ms; Kaggle keeps {KAGGLE_GB} GB")
    print(f"MB per field, GB of {TRAINING_FIELDS} fields, ms to read, how many times faster that is")
    for name, (encode, decode) in (LOSSLESS | LOSSY).items():
        line = []
        for size, some in fields.items():
            encoded = [encode(field) for field in some]
            decoded = [decode(data, size) for data in encoded]
            if name in LOSSLESS:
                assert all(np.array_equal(a, b) for a, b in zip(some, decoded, strict=True))
            seconds = fastest(lambda e=encoded, s=size, d=decode: [d(data, s) for data in e], 3) / len(some)
            mb = sum(map(len, encoded)) / len(some) / 1e6
            total = mb * TRAINING_FIELDS / 1e3
            line.append(
                f"{size}²: {mb:5.2f} MB {total:5.1f} GB {seconds * 1e3:6.2f} ms {full / seconds:4.0f}x"
            )
        print(f"{name:16} {'   '.join(line)}")


@pytest.mark.parametrize("size", [512, 1024])
def test_a_kept_field_is_read_many_times_faster_than_its_images(full_size, tmp_path, size):
    folder, ids, decode_time = full_size
    kept = FieldStore(folder, ids, size, cache=False, kept=tmp_path)
    decoded = FieldStore(folder, ids, size, cache=False)
    for number in range(len(ids)):
        assert np.array_equal(kept[number], decoded[number])

    def read(store):
        return fastest(lambda: [store[number] for number in range(len(ids))]) / len(ids)

    ours, without, full = read(kept), read(decoded), decode_time()
    again = fastest(lambda: FieldStore(folder, ids, size, cache=False, kept=tmp_path), 3) / len(ids)
    print(
        f"\n{size}²: from the store {ours * 1e3:.2f} ms a field; decoding its pngs {full * 1e3:.0f} ms: "
        f"{full / ours:.0f}x; decoding and resizing {without * 1e3:.0f} ms: {without / ours:.0f}x; "
        f"checking that it is fresh {again * 1e6:.0f} us"
    )


def test_checking_the_whole_competition_is_cheap(tmp_path):
    """Tiny images, as only their names, sizes and times are looked at."""
    n = 2000
    (tmp_path / "train").mkdir()
    png = cv2.imencode(".png", np.full((32, 32), 7, np.uint8))[1].tobytes()
    ids = [f"{number:08x}-bb9b-11e8-b2b9-ac1f6b6435d0" for number in range(n)]
    for id in ids:
        for channel in CHANNELS:
            (tmp_path / "train" / f"{id}_{channel}.png").write_bytes(png)
    FieldStore(tmp_path / "train", ids, 32, cache=False, kept=tmp_path / "kept")
    seconds = fastest(lambda: FieldStore(tmp_path / "train", ids, 32, cache=False, kept=tmp_path / "kept"), 2)
    assert len(list((tmp_path / "kept" / "32").iterdir())) == n
    print(f"\nlooking whether {n} kept fields are fresh: {seconds:.2f} s; of {TRAINING_FIELDS}: "
          f"{seconds / n * TRAINING_FIELDS:.1f} s")  # fmt: skip
