"""Datasets of others, as TFDS itself writes them: nothing of this package."""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds


def language_table_features(height, width):
    """language_table 0.0.1, with smaller frames."""
    tensor, scalar = tfds.features.Tensor, tfds.features.Scalar
    observation = {
        "rgb": tfds.features.Image(shape=(height, width, 3), dtype=np.uint8, encoding_format="jpeg"),
        "instruction": tensor(shape=(512,), dtype=np.int32),
        "effector_translation": tensor(shape=(2,), dtype=np.float32),
        "effector_target_translation": tensor(shape=(2,), dtype=np.float32),
    }
    flags = {name: scalar(dtype=np.bool_) for name in ("is_first", "is_last", "is_terminal")}
    action = tensor(shape=(2,), dtype=np.float32)
    step = {"observation": observation, "action": action, "reward": scalar(dtype=np.float32), **flags}
    return tfds.features.FeaturesDict({"steps": tfds.features.Dataset(step)})


def as_language_table(instruction, frames, actions):
    """An episode of uint8[T, H, W, 3] and [T, 2]; the instruction is character codes, zeros at the end."""
    codes = np.zeros(512, np.int32)
    codes[: len(instruction)] = [ord(char) for char in instruction]
    steps = [
        {
            "observation": {
                "rgb": frame,
                "instruction": codes,
                "effector_translation": np.zeros(2, np.float32),
                "effector_target_translation": np.zeros(2, np.float32),
            },
            "action": np.asarray(action, np.float32),
            "reward": np.float32(0),
            "is_first": step == 0,
            "is_last": step == len(frames) - 1,
            "is_terminal": False,
        }
        for step, (frame, action) in enumerate(zip(frames, actions, strict=True))
    ]
    return {"steps": steps}


def write_tfds(folder, name, split_examples, wanted):
    """Split name -> examples; one shard each."""
    folder.mkdir(parents=True)
    serializer = tfds.core.example_serializer.ExampleSerializer(wanted.get_serialized_info())
    infos = []
    for split, examples in split_examples.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, split=split, filetype_suffix="tfrecord"
        )
        rows = [serializer.serialize_example(wanted.encode_example(example)) for example in examples]
        with tf.io.TFRecordWriter(str(folder / f"{name}-{split}.tfrecord-00000-of-00001")) as writer:
            for row in rows:
                writer.write(row)
        infos.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=[len(rows)], num_bytes=sum(map(len, rows)), filename_template=template
            )
        )
    tfds.folder_dataset.write_metadata(data_dir=folder, features=wanted, split_infos=infos, description="")
