"""Prints what TensorBoard itself reads from the event files of a run: python scripts/check-tensorboard.py runs/<id>

Needs `pip install tensorboard`. Run by hand; the test suite has a reader of its own.
"""

import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

accumulator = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0})
accumulator.Reload()
tags = accumulator.Tags()
for tag in tags["scalars"]:
    for event in accumulator.Scalars(tag):
        print(f"{tag}\t{event.step}\t{event.value!r}\t{event.wall_time:.3f}")
for tag in tags["tensors"]:
    plugin = accumulator.SummaryMetadata(tag).plugin_data.plugin_name
    for event in accumulator.Tensors(tag):
        print(f"{tag} ({plugin})\t{event.step}\t{[text.decode() for text in event.tensor_proto.string_val]}")
