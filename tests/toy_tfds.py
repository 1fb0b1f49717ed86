"""Prepared TFDS sets, written by hand: TFDS needs TensorFlow to write one."""

import json
import struct

from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

LABELS = ("ant", "bee", "cat")


def record(**values):
    """A serialized example: bytes, integers or floats, or lists of them, by feature."""
    features = tf_feature_pb2.Features()
    for key, value in values.items():
        value = value if isinstance(value, list) else [value]
        feature = features.feature[key]
        if value and isinstance(value[0], bytes):
            feature.bytes_list.value.extend(value)
        elif value and isinstance(value[0], float):
            feature.float_list.value.extend(value)
        else:
            feature.int64_list.value.extend(value)
    return tf_example_pb2.Example(features=features).SerializeToString()


def feature(name, module, **content):
    return {"pythonClassName": f"tensorflow_datasets.core.features.{module}.{name}", **content}


def write_tfds(
    root, splits, *, file_format="array_record", version="1.0.0", config="", features=None, **change
):
    """Writes `{split: [shard, ...]}` as `root/toy/[config/]version`; returns the folder.

    Its features are an image, a label and a note, changed by `change` (None takes one away), or
    `features`, a FeaturesDict.
    """
    folder = root.joinpath(*filter(None, ("toy", config, version)))
    folder.mkdir(parents=True)
    infos = []
    for split, shards in splits.items():
        for i, shard in enumerate(shards):
            path = folder / f"toy-{split}.{file_format}-{i:05d}-of-{len(shards):05d}"
            if file_format == "array_record":
                writer = ArrayRecordWriter(str(path), "group_size:1")
                for data in shard:
                    writer.write(data)
                writer.close()
            else:  # length, its checksum, data, its checksum
                path.write_bytes(
                    b"".join(struct.pack("<QI", len(d), 0) + d + bytes(4) for d in shard)
                )
        infos.append(
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "shardLengths": [str(len(shard)) for shard in shards],
                "numBytes": "1",
            }
        )
    info = {"name": "toy", "version": version, "fileFormat": file_format, "splits": infos}
    if config:
        info["configName"] = config
    (folder / "dataset_info.json").write_text(json.dumps(info))
    if features is not None:
        features.save_config(folder)
        return folder
    shape = {"dimensions": ["-1", "-1", "3"]}
    features = {
        "image": feature("Image", "image_feature", image={"shape": shape, "dtype": "uint8"}),
        "label": feature("ClassLabel", "class_label_feature", classLabel={"numClasses": "3"}),
        "note": feature("Text", "text_feature", text={}),
    }
    features = {key: value for key, value in (features | change).items() if value is not None}
    tree = feature("FeaturesDict", "features_dict", featuresDict={"features": features})
    (folder / "features.json").write_text(json.dumps(tree))
    (folder / "label.labels.txt").write_text("\n".join(LABELS))
    return folder
