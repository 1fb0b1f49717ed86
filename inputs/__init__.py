"""Images from packages, folders and prepared TFDS sets, as batches whose order is the step."""
